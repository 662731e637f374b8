"""What may be spent on LLM calls, and what has been."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from cuvee.errors import BudgetReached
from cuvee.records import Usage

PROMPT_OVERHEAD = 64
"""Tokens that a chat template may add to a prompt, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What an endpoint charges for a million tokens."""

    prompt_per_million: float
    completion_per_million: float
    currency: str = "USD"

    def __post_init__(self) -> None:
        for name in ("prompt_per_million", "completion_per_million"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} {value!r}; must be 0 or more")

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """In ``currency``."""
        return (prompt_tokens * self.prompt_per_million + completion_tokens * self.completion_per_million) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most that may be spent on one ledger, in all runs that use it together; None sets no bound.

    ``tokens`` are those of prompts and completions together, ``cost`` is in the currency of the prices.
    """

    requests: int | None = None
    tokens: int | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        for name in ("requests", "tokens", "cost"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} {value!r}; must be 0 or more, or None for no bound")

    def __str__(self) -> str:
        named = (("requests", self.requests), ("tokens", self.tokens), ("cost", self.cost))
        return ", ".join(f"{name} {value:,.12g}" for name, value in named if value is not None) or "no bound"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent(Usage):
    """What was spent on answers that came; answers from the ledger cost nothing.

    ``unanswered`` counts requests that were sent and cut off before the answer came: the endpoint may charge
    for them, so a budget counts each at its worst case. ``cost`` is 0 where prices are not known.
    """

    unanswered: int = 0
    cost: float = 0.0
    currency: str = "USD"

    def __str__(self) -> str:
        cost = f", {self.cost:.4f} {self.currency}" if self.cost else ""
        lost = f" ({self.unanswered} more cut off unanswered)" if self.unanswered else ""
        tokens = self.prompt_tokens + self.completion_tokens
        return f"{self.requests:,} requests{lost}, {tokens:,} tokens{cost}"


def worst_case(prompt_bytes: int, max_tokens: int) -> Usage:
    """The most one request can cost: no tokeniser in use makes more than one token of a byte."""
    return Usage(requests=1, prompt_tokens=prompt_bytes + PROMPT_OVERHEAD, completion_tokens=max_tokens)


class BudgetGuard:
    """Lets a request go only while the worst case of all requests under way stays within the budget.

    Args:
        budget: None sets no bound.
        prices: None where they are not known.
        before: what was spent on the same budget before.
        where: the endpoint, for messages.
    """

    def __init__(self, budget: Budget | None, prices: Prices | None, *, before: Usage, where: str) -> None:
        self._budget = budget or Budget()
        self._bounded = budget is not None
        self._prices = prices
        self._before = before
        self._where = where
        self._answered = Usage()
        self._lost = Usage()
        self._reserved = Usage()
        self._freed = asyncio.Event()

    @property
    def spent(self) -> Spent:
        """So far, without what was spent before."""
        return self._spent(self._answered)

    async def reserve(self, worst: Usage) -> None:
        """Wait until a request fits, then count it at its worst.

        Raises:
            BudgetReached: it does not, with nothing under way that might cost less than feared.
        """
        if not self._bounded:
            return
        while not self._fits(worst):
            if self._reserved.requests == 0:
                raise self._reached()
            self._freed.clear()
            await self._freed.wait()
        self._reserved = self._reserved.plus(worst)

    def settle(self, worst: Usage, actual: Usage | None, *, lost: bool = False) -> None:
        """Replace the worst case by what a request did cost.

        Args:
            worst: what was reserved.
            actual: None if no answer came.
            lost: it was sent and cut off, so it may have cost its worst.
        """
        if self._bounded:
            self._reserved = self._reserved.plus(worst, -1)
            self._freed.set()
        if actual is not None:
            self._answered = self._answered.plus(actual)
        elif lost:
            self._lost = self._lost.plus(worst)

    def _spent(self, load: Usage, lost: Usage | None = None) -> Spent:
        return Spent(
            requests=load.requests,
            prompt_tokens=load.prompt_tokens,
            completion_tokens=load.completion_tokens,
            unanswered=(self._lost if lost is None else lost).requests,
            cost=self._cost(load),
            currency=self._prices.currency if self._prices else "USD",
        )

    def _fits(self, worst: Usage) -> bool:
        load = self._before.plus(self._answered).plus(self._lost).plus(self._reserved).plus(worst)
        most = self._budget
        tokens = load.prompt_tokens + load.completion_tokens
        return (
            (most.requests is None or load.requests <= most.requests)
            and (most.tokens is None or tokens <= most.tokens)
            and (most.cost is None or self._cost(load) <= most.cost)
        )

    def _cost(self, load: Usage) -> float:
        return self._prices.cost(load.prompt_tokens, load.completion_tokens) if self._prices else 0.0

    def _reached(self) -> BudgetReached:
        both = self._spent(self._before.plus(self._answered))
        before = self._spent(self._before, lost=Usage())
        return BudgetReached(
            f"{self._where}: the next request could pass the budget ({self._budget}); spent: {both}; of it before this "
            f"run: {before}; all answers so far are kept and cost nothing again: raise the budget to go on"
        )
