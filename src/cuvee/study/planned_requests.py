"""What a study will ask its LLM for: requests and tokens, counted before any is sent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cuvee.config import AttributesConfig, DialConfig, EmbeddedGenerator, FileGenerator, TopicsConfig
from cuvee.generate import Dial, Sampling
from cuvee.generate.asking import ITEMS_A_REQUEST
from cuvee.generate.calls import Request
from cuvee.generate.dials import Slot, wanted_slots
from cuvee.generate.prompts import PromptWriter
from cuvee.records import Usage
from cuvee.study.setup import FRESH, Study
from cuvee.study.writing import Commission

LETTERS_A_TOKEN = 4.0
"""Of English, by the tokenisers in use; other scripts have fewer, so they take more tokens."""
_PROMPTS_READ = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class DialPlan:
    """What one dial asks for, where every answer is usable.

    Attributes:
        dial: its name.
        levels: their names.
        draws: generation draws of each.
        rows: of the union of its levels, each once.
        requests: for these rows; drafts are requests too.
        confirm_rows, confirm_requests: of the level that asks for most, in fresh draws.
        list_requests: for topics or attributes that are asked for, at least.
        prompt_tokens, completion_tokens: of ``requests`` and ``list_requests``, estimated.
        drafts: those of ``requests`` that ``generator.draft`` answers; none without it.
        confirm, confirm_drafts: of ``confirm_requests``, all and those that ``generator.draft`` answers.
    """

    dial: str
    levels: tuple[str, ...]
    draws: int
    rows: int
    requests: int
    confirm_rows: int
    confirm_requests: int
    list_requests: int
    prompt_tokens: int
    completion_tokens: int
    drafts: Usage
    confirm: Usage
    confirm_drafts: Usage

    def times(self, count: int) -> DialPlan:
        """So many times as much: in folds."""
        return replace(
            self,
            rows=self.rows * count,
            requests=self.requests * count,
            confirm_rows=self.confirm_rows * count,
            confirm_requests=self.confirm_requests * count,
            list_requests=self.list_requests * count,
            prompt_tokens=self.prompt_tokens * count,
            completion_tokens=self.completion_tokens * count,
            drafts=times_usage(self.drafts, count),
            confirm=times_usage(self.confirm, count),
            confirm_drafts=times_usage(self.confirm_drafts, count),
        )


def times_usage(usage: Usage, count: int) -> Usage:
    """So many times as much."""
    return Usage(
        requests=usage.requests * count,
        prompt_tokens=usage.prompt_tokens * count,
        completion_tokens=usage.completion_tokens * count,
    )


def plan_dial(study: Study, wanted: Commission, settings: DialConfig, dial: Dial) -> DialPlan:
    """What one dial asks for, in all its draws and for the confirmation."""
    draws = planned_draws(study, settings)
    names = [level.name for level in dial.levels]
    slots = list(_slots(wanted, dial, names, range(draws)))
    fresh = range(FRESH, FRESH + study.config.draws.confirm)
    confirm = max((_slots(wanted, dial, [name], fresh) for name in names), key=len) if fresh else []
    sizes = _measure_prompts(study, wanted, slots)
    asked, drafts = sizes.ask(slots)
    again, again_drafts = sizes.ask(confirm)
    lists = _list_requests(settings, len(wanted.strata))
    listed = sizes.rows.times(lists)
    return DialPlan(
        dial=dial.name,
        levels=tuple(names),
        draws=draws,
        rows=len(slots),
        requests=asked.requests,
        confirm_rows=len(confirm),
        confirm_requests=again.requests,
        list_requests=lists,
        prompt_tokens=asked.prompt_tokens + listed.prompt_tokens,
        completion_tokens=asked.completion_tokens + listed.completion_tokens,
        drafts=drafts,
        confirm=again,
        confirm_drafts=again_drafts,
    )


def _slots(wanted: Commission, dial: Dial, levels: Sequence[str], blocks: range) -> Sequence[Slot]:
    if not blocks:
        return []
    batches = dial.batches(list(wanted.strata), blocks=list(blocks), rows_per_label=wanted.rows, levels=list(levels))
    return list(wanted_slots(batches).values())


def planned_draws(study: Study, settings: DialConfig) -> int:
    """Generation draws of a dial."""
    every = study.config.draws.generation
    return min(settings.draws or every, every)


def _list_requests(settings: DialConfig, strata: int) -> int:
    if isinstance(settings, TopicsConfig) and settings.topics == "llm":
        degree = settings.degree or (max(settings.levels),)
        lists = [math.prod(degree[:depth]) * math.ceil(count / ITEMS_A_REQUEST) for depth, count in enumerate(degree)]
        return strata * sum(lists)
    if isinstance(settings, AttributesConfig) and settings.dimensions == "llm":
        asked, values = settings.asked_count, settings.asked_values
        return math.ceil(asked / ITEMS_A_REQUEST) + asked * math.ceil(values / ITEMS_A_REQUEST)
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    """Tokens of one request."""

    prompt: float
    completion: float

    def times(self, requests: int) -> Usage:
        return Usage(
            requests=requests,
            prompt_tokens=round(self.prompt * requests),
            completion_tokens=round(self.completion * requests),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """Of requests for rows, and of those for drafts; ``apart`` where another LLM answers the latter."""

    rows: _Size
    drafts: _Size
    apart: bool

    def ask(self, slots: Sequence[Slot]) -> tuple[Usage, Usage]:
        """What these slots ask for, and what of it another LLM drafts."""
        drafted = self.drafts.times(sum(slot.draft is not None and slot.parent is None for slot in slots))
        return self.rows.times(len(slots)).plus(drafted), drafted if self.apart else Usage()


def _measure_prompts(study: Study, wanted: Commission, slots: Sequence[Slot]) -> _Sizes:
    """Tokens from the finished prompts of some slots, and from the lengths of real rows."""
    generator = study.config.generator
    if isinstance(generator, FileGenerator) or not slots:
        nothing = _Size(prompt=0.0, completion=0.0)
        return _Sizes(rows=nothing, drafts=nothing, apart=False)
    api = "completions" if isinstance(generator, EmbeddedGenerator) else generator.api
    writer = PromptWriter(
        study.train, describe=study.config.describe, api=api, sampling=Sampling(max_tokens=generator.max_tokens),
        seed=study.config.seed, kind=wanted.kind, strata=wanted.strata, prompts=wanted.prompts,
        draft_sampling=None if generator.draft is None else Sampling(max_tokens=generator.draft.max_tokens),
    )  # fmt: skip
    chosen = [slots[i] for i in np.linspace(0, len(slots) - 1, min(_PROMPTS_READ, len(slots)), dtype=int)]
    rows: list[Request] = []
    drafts: list[Request] = []
    for slot in chosen:
        source = study.train.texts[wanted.strata[slot.label].rows[0]]
        if slot.parent is not None:
            rows.append(writer.ask_for_paraphrase(slot, 0, source, []).request)
        elif slot.draft is not None:
            question = writer.ask_for_draft(slot, 0)
            drafts.append(question.request)
            rows.append(writer.ask_for_refinement(slot, 0, source, question.seed_ids).request)
        else:
            rows.append(writer.ask_for_row(slot, 0).request)
    answer = [len(t) for t in study.train.texts]
    if wanted.kind != "label":
        answer = [a + len(b) for a, b in zip(answer, study.train.targets, strict=True)]
    long = float(np.mean(answer)) / LETTERS_A_TOKEN + 1
    return _Sizes(rows=_size(rows, long), drafts=_size(drafts, long), apart=generator.draft is not None)


def _size(requests: Sequence[Request], answer: float) -> _Size:
    """The mean of requests whose answers have so many tokens, or as many as they may have."""
    if not requests:
        return _Size(prompt=0.0, completion=0.0)
    letters = [len(r.prompt or "") + sum(len(content) for _, content in r.messages) for r in requests]
    return _Size(
        prompt=float(np.mean(letters)) / LETTERS_A_TOKEN, completion=min(requests[0].sampling.max_tokens, answer)
    )
