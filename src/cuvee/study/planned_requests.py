"""What a study will ask its LLM for: requests and tokens, counted before any is sent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cuvee.config import AttributesConfig, DialConfig, EmbeddedGenerator, FileGenerator, TopicsConfig
from cuvee.generate import Dial, Sampling
from cuvee.generate.asking import ITEMS_A_REQUEST
from cuvee.generate.calls import Request
from cuvee.generate.dials import Slot, wanted_slots
from cuvee.generate.prompts import PromptWriter
from cuvee.study.setup import FRESH, Study
from cuvee.study.writing import Commission

LETTERS_A_TOKEN = 4.0
"""Of English, by the tokenisers in use; other scripts have fewer, so they take more tokens."""
_PROMPTS_READ = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class DialPlan:
    """What one dial asks for.

    Attributes:
        dial: its name.
        levels: their names.
        draws: generation draws of each.
        requests: each row of the union of its levels once, if every answer is usable.
        confirm_requests: for the level that asks for most, in fresh draws.
        list_requests: for topics or attributes that are asked for, at least.
        prompt_tokens, completion_tokens: of all these requests, estimated.
    """

    dial: str
    levels: tuple[str, ...]
    draws: int
    requests: int
    confirm_requests: int
    list_requests: int
    prompt_tokens: int
    completion_tokens: int


def plan_dial(study: Study, wanted: Commission, settings: DialConfig, dial: Dial) -> DialPlan:
    """What one dial asks for, in all its draws and for the confirmation."""
    draws = planned_draws(study, settings)
    names = [level.name for level in dial.levels]
    slots = list(_slots(wanted, dial, names, range(draws)))
    fresh = range(FRESH, FRESH + study.config.draws.confirm)
    confirm = max((len(_slots(wanted, dial, [name], fresh)) for name in names), default=0) if fresh else 0
    each = 2 if any(slot.draft is not None for slot in slots) else 1
    prompt, completion = _tokens(study, wanted, slots)
    requests = len(slots) * each
    return DialPlan(
        dial=dial.name,
        levels=tuple(names),
        draws=draws,
        requests=requests,
        confirm_requests=confirm * each,
        list_requests=_list_requests(settings, len(wanted.strata)),
        prompt_tokens=round(prompt * requests),
        completion_tokens=round(completion * requests),
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


def _tokens(study: Study, wanted: Commission, slots: Sequence[Slot]) -> tuple[float, float]:
    """Of prompt and answer of one request, from the finished prompts of some slots and the lengths of real rows."""
    generator = study.config.generator
    if isinstance(generator, FileGenerator) or not slots:
        return 0.0, 0.0
    api = "completions" if isinstance(generator, EmbeddedGenerator) else generator.api
    writer = PromptWriter(
        study.train, describe=study.config.describe, api=api, sampling=Sampling(max_tokens=generator.max_tokens),
        seed=study.config.seed, kind=wanted.kind, strata=wanted.strata, prompts=wanted.prompts,
        draft_sampling=None if generator.draft is None else Sampling(max_tokens=generator.draft.max_tokens),
    )  # fmt: skip
    chosen = [slots[i] for i in np.linspace(0, len(slots) - 1, min(_PROMPTS_READ, len(slots)), dtype=int)]
    prompts: list[Request] = []
    for slot in chosen:
        if slot.parent is not None:
            rows = wanted.strata[slot.label].rows
            prompts.append(writer.ask_for_paraphrase(slot, 0, study.train.texts[rows[0]], []).request)
        elif slot.draft is not None:
            question = writer.ask_for_draft(slot, 0)
            source = study.train.texts[wanted.strata[slot.label].rows[0]]
            prompts += [question.request, writer.ask_for_refinement(slot, 0, source, question.seed_ids).request]
        else:
            prompts.append(writer.ask_for_row(slot, 0).request)
    letters = [len(p.prompt or "") + sum(len(content) for _, content in p.messages) for p in prompts]
    rows = [len(t) for t in study.train.texts]
    if wanted.kind != "label":
        rows = [a + len(b) for a, b in zip(rows, study.train.targets, strict=True)]
    longest = prompts[0].sampling.max_tokens
    return float(np.mean(letters)) / LETTERS_A_TOKEN, min(longest, float(np.mean(rows)) / LETTERS_A_TOKEN + 1)
