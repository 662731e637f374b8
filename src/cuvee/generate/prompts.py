"""What the LLM is asked, in completion and chat form: a new row, a paraphrase, a draft, its refinement. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cuvee.corpus import Corpus
from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.generate.calls import Api, Request, Sampling
from cuvee.generate.dials.protocol import Slot
from cuvee.generate.templates import (
    CHAT_SYSTEM,
    CHAT_USER,
    COMPLETION,
    PARAPHRASE_COMPLETION,
    PARAPHRASE_SYSTEM,
    REFINE_COMPLETION,
    REFINE_SYSTEM,
    REFINE_USER,
    REFINEMENTS,
    REWRITINGS,
    one_line,
    readable,
    texts_of,
)

EXAMPLES_SHOWN = 4
"""Seed examples in a prompt, or all of the label if it has fewer."""
SLOTS_A_ROTATION = 4
"""Neighbouring slots that see the same seed examples, so that an endpoint can reuse the prompt's prefix."""

Kind = Literal["row", "paraphrase", "draft", "refinement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request, with the example texts it shows and the ids of the seed examples behind them.

    ``source`` is the text that it asks to rewrite, ``avoided`` the words that it forbids.
    """

    request: Request
    kind: Kind = "row"
    seed_ids: tuple[str, ...]
    shown: tuple[str, ...]
    source: str | None = None
    avoided: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """One question in both forms."""

    prompt: str
    system: str
    user: str


class PromptWriter:
    """Writes the question for each slot and attempt.

    Args:
        train: where the seed examples come from; every label of a slot has at least one row in it.
        describe: what the texts are, in the plural ("news headlines").
        api: the form to write.
        sampling: for slots without one of their own.
        seed: of the choice of seed examples and of every request.
    """

    def __init__(self, train: Corpus, *, describe: str, api: Api, sampling: Sampling, seed: int) -> None:
        self._train = train
        self._rows: Mapping[str, list[int]] = {
            label: [i for i, target in enumerate(train.targets) if target == label] for label in train.labels
        }
        self._places = {id_: i for i, id_ in enumerate(train.ids)}
        self._describe = describe
        self._api = api
        self._sampling = sampling
        self._seed = seed

    def ask_for_row(self, slot: Slot, attempt: int, avoided: Sequence[str] = ()) -> Question:
        """Ask for a new row of the slot's label, with the slot's topic and attributes and without these words."""
        return self._ask_for_new(slot, attempt, avoided, kind="row")

    def ask_for_draft(self, slot: Slot, attempt: int, avoided: Sequence[str] = ()) -> Question:
        """Ask for the draft of a row, at the draft's temperature and in its form."""
        return self._ask_for_new(slot, attempt, avoided, kind="draft")

    def ask_for_refinement(
        self, slot: Slot, attempt: int, draft: str, seed_ids: Sequence[str], avoided: Sequence[str] = ()
    ) -> Question:
        """Ask for ``draft`` in good form; ``seed_ids`` are the examples it was drafted from, shown in chat form."""
        text = one_line(draft)
        examples = [one_line(self._train.texts[self._places[id_]]) for id_ in seed_ids]
        words = {"label": readable(slot.label), "describe": self._describe, "examples": examples, "text": text}
        form = _Form(
            prompt=REFINE_COMPLETION.render(pairs=REFINEMENTS, **words),
            system=REFINE_SYSTEM.render(words),
            user=REFINE_USER.render(words),
        )
        return Question(
            request=self._request(slot, attempt, form, api=self._api),
            kind="refinement",
            seed_ids=tuple(seed_ids),
            shown=texts_of(REFINEMENTS) if self._api == "completions" else tuple(examples),
            source=draft,
            avoided=tuple(avoided),
        )

    def ask_for_paraphrase(self, slot: Slot, attempt: int, source: str, seed_ids: Sequence[str]) -> Question:
        """Ask for ``source`` in other words; ``seed_ids`` are those of the source."""
        text = one_line(source)
        form = _Form(
            prompt=PARAPHRASE_COMPLETION.render(pairs=REWRITINGS, text=text),
            system=PARAPHRASE_SYSTEM.render(describe=self._describe),
            user=text,
        )
        return Question(
            request=self._request(slot, attempt, form, api=self._api),
            kind="paraphrase",
            seed_ids=tuple(seed_ids),
            shown=texts_of(REWRITINGS) if self._api == "completions" else (),
            source=source,
        )

    def _ask_for_new(self, slot: Slot, attempt: int, avoided: Sequence[str], *, kind: Kind) -> Question:
        rows = self._choose_rows(slot, attempt)
        examples = [one_line(self._train.texts[i]) for i in rows]
        words = {
            "label": readable(slot.label),
            "describe": self._describe,
            "topic": readable(slot.topic) if slot.topic is not None else None,
            "attributes": [(readable(name), readable(value)) for name, value in slot.attributes],
            "avoided": list(avoided),
            "examples": examples,
        }
        form = _Form(prompt=COMPLETION.render(words), system=CHAT_SYSTEM.render(words), user=CHAT_USER.render(words))
        drafted = slot.draft if kind == "draft" else None
        return Question(
            request=self._request(
                slot,
                attempt,
                form,
                api=drafted.api if drafted is not None else self._api,
                temperature=drafted.temperature if drafted is not None else None,
            ),
            kind=kind,
            seed_ids=tuple(self._train.ids[i] for i in rows),
            shown=tuple(examples),
            avoided=tuple(avoided),
        )

    def _choose_rows(self, slot: Slot, attempt: int) -> list[int]:
        # a slot whose first answer was no use sees other examples, or the same in another order: at a low
        # temperature the same prompt would give the same answer again
        rotation = [slot.number // SLOTS_A_ROTATION, *([slot.number, attempt] if attempt else [])]
        rng = derive_rng(self._seed, "seed-examples", slot.label, slot.block, *rotation)
        if slot.examples or slot.seed_ids:
            rows = self._wanted_rows(slot)
            return [rows[i] for i in rng.permutation(len(rows))]
        rows = self._rows[slot.label]
        return [rows[i] for i in rng.permutation(len(rows))[:EXAMPLES_SHOWN]]

    def _wanted_rows(self, slot: Slot) -> list[int]:
        # the judge has checked that these examples are there
        if slot.seed_ids:
            return [self._places[id_] for id_ in slot.seed_ids if id_ in self._places]
        rows = self._rows[slot.label]
        order = derive_rng(self._seed, "example-order", slot.label, slot.block).permutation(len(rows))
        return [rows[order[place % len(rows)]] for place in slot.examples]

    def _request(self, slot: Slot, attempt: int, form: _Form, *, api: Api, temperature: float | None = None) -> Request:
        given = self._sampling
        wanted = temperature if temperature is not None else slot.temperature
        sampling = replace(
            given,
            temperature=wanted if wanted is not None else given.temperature,
            top_p=slot.top_p if slot.top_p is not None else given.top_p,
            min_p=slot.min_p if slot.min_p is not None else given.min_p,
        )
        # 31 bits: the widest seed that every server takes
        seed = derive_seed(self._seed, "answer", slot.key, attempt) & 0x7FFFFFFF
        if api == "completions":
            sampling = sampling if sampling.stop else replace(sampling, stop=("\n",))
            return Request(prompt=form.prompt, sampling=sampling, seed=seed, replicate=attempt)
        messages = (("system", form.system), ("user", form.user))
        return Request(messages=messages, sampling=sampling, seed=seed, replicate=attempt)
