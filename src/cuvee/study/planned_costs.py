"""What the requests of a study cost, at the prices of who answers them, and whether its budgets pay for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cuvee.config import EndpointDraft, FileGenerator, StudyConfig
from cuvee.config.generators import LocalOrRemote
from cuvee.generate import Prices
from cuvee.records import Usage
from cuvee.study.planned_requests import DialPlan, times_usage


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendingPlan:
    """What a study's LLMs are asked, and what that costs.

    Attributes:
        rows: what ``generator`` answers: rows, lists, refinements, and drafts where nobody else writes them.
        drafts: what ``generator.draft`` answers.
        rows_cost, drafts_cost: at the prices of each; an LLM on this machine costs nothing; None without prices.
        currency: of both; empty where nothing is charged.
    """

    rows: Usage
    drafts: Usage
    rows_cost: float | None
    drafts_cost: float | None
    currency: str

    @property
    def usage(self) -> Usage:
        """Of both."""
        return self.rows.plus(self.drafts)

    @property
    def cost(self) -> float | None:
        """Of both; None where one is not known."""
        return None if self.rows_cost is None or self.drafts_cost is None else self.rows_cost + self.drafts_cost

    def times(self, count: int) -> SpendingPlan:
        """So many times as much."""
        return SpendingPlan(
            rows=times_usage(self.rows, count),
            drafts=times_usage(self.drafts, count),
            rows_cost=None if self.rows_cost is None else self.rows_cost * count,
            drafts_cost=None if self.drafts_cost is None else self.drafts_cost * count,
            currency=self.currency,
        )


def plan_spending(config: StudyConfig, dials: Sequence[DialPlan]) -> SpendingPlan:
    """What the dials, and the confirmation of the one that asks for most, take together."""
    every, drafts = Usage(), Usage()
    for dial in dials:
        every = every.plus(
            Usage(
                requests=dial.requests + dial.list_requests,
                prompt_tokens=dial.prompt_tokens,
                completion_tokens=dial.completion_tokens,
            )
        )
        drafts = drafts.plus(dial.drafts)
    if dials:
        dearest = max(dials, key=lambda dial: dial.confirm_requests)
        every, drafts = every.plus(dearest.confirm), drafts.plus(dearest.confirm_drafts)
    rows = Usage(
        requests=every.requests - drafts.requests,
        prompt_tokens=every.prompt_tokens - drafts.prompt_tokens,
        completion_tokens=every.completion_tokens - drafts.completion_tokens,
    )
    generator = config.generator
    if isinstance(generator, FileGenerator):
        return SpendingPlan(rows=rows, drafts=drafts, rows_cost=0.0, drafts_cost=0.0, currency="")
    parts = [part for part in (generator, generator.draft) if isinstance(part, EndpointDraft)]
    currencies = [part.prices.currency for part in parts if part.prices is not None]
    return SpendingPlan(
        rows=rows,
        drafts=drafts,
        rows_cost=_cost(generator, rows),
        drafts_cost=_cost(generator.draft, drafts),
        currency=currencies[0] if currencies else "",
    )


def compare_budgets(config: StudyConfig, spending: SpendingPlan) -> list[str]:
    """Which budgets the plan would pass, with the numbers; a run stops there.

    Args:
        config: as it was given, folds and all.
        spending: of all folds.
    """
    generator = config.generator
    if isinstance(generator, FileGenerator):
        return []
    parts = [
        ("generator", generator, spending.rows, spending.rows_cost),
        ("generator.draft", generator.draft, spending.drafts, spending.drafts_cost),
    ]
    notes = []
    for where, part, usage, cost in parts:
        if not isinstance(part, EndpointDraft):
            continue
        wanted = {
            "requests": float(usage.requests),
            "tokens": float(usage.prompt_tokens + usage.completion_tokens),
            "cost": math.nan if cost is None else cost,
        }
        allowed = {"requests": part.budget.requests, "tokens": part.budget.tokens, "cost": part.budget.cost}
        for name, most in allowed.items():
            if most is not None and wanted[name] > most:
                unit = f" {spending.currency}" if name == "cost" else ""
                notes.append(
                    f"{where}.budget.{name} is {most:,.10g}{unit}, and the plan takes about {wanted[name]:,.6g}{unit}: "
                    "the run would stop there; raise it, or ask for fewer levels, draws or rows"
                )
    return notes


def _cost(part: LocalOrRemote | None, usage: Usage) -> float | None:
    if not isinstance(part, EndpointDraft):
        return 0.0
    if part.prices is None:
        return None
    return Prices(**part.prices.model_dump()).cost(usage.prompt_tokens, usage.completion_tokens)
