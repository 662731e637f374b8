"""What the LLM is asked, in completion and chat form: a new row, a paraphrase, a draft, its refinement. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cuvee.corpus import Corpus, normalise_text
from cuvee.fingerprint import derive_rng, derive_seed, hash_value
from cuvee.generate.calls import Api, Request, Sampling
from cuvee.generate.dials.slots import Slot
from cuvee.generate.parsing import ECHO_WORDS, SEPARATOR, pair_schema
from cuvee.generate.strata import WRITINGS, Kind, Stratum, Writing, find_strata
from cuvee.generate.templates import PromptSet, Value, block, load_prompts, one_line, readable

EXAMPLES_SHOWN = 4
"""Seed examples in a prompt, or all of the label if it has fewer."""
SLOTS_A_ROTATION = 4
"""Neighbouring slots that see the same seed examples, so that an endpoint can reuse the prompt's prefix."""
LEAST_ROOM, MOST_ROOM = 128, 1024
"""Tokens that a pair is given at least, and at most on account of the longest pair of the training rows."""
_CHARACTERS_A_TOKEN = 2

Step = Literal["row", "paraphrase", "draft", "refinement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request, with the example texts it shows and the ids of the seed examples behind them.

    ``shown_targets`` are the other sides of the examples where it asks for pairs. ``source`` is the text that it asks
    to rewrite, ``avoided`` the words that it forbids.
    """

    request: Request
    step: Step = "row"
    seed_ids: tuple[str, ...]
    shown: tuple[str, ...]
    shown_targets: tuple[str, ...] = ()
    source: str | None = None
    avoided: tuple[str, ...] = ()


class PromptWriter:
    """Writes the question for each slot and attempt.

    Args:
        train: where the seed examples come from; every stratum of a slot has at least one row in it.
        describe: what the texts are, in the plural ("news headlines").
        api: the form to write.
        sampling: for slots without one of their own; pairs are given more room than its max_tokens where they need it.
        seed: of the choice of seed examples and of every request.
        kind: of writing.
        strata: what the labels of slots stand for; None is those of the training rows.
        prompts: the wording; None is the built-in one.
    """

    def __init__(
        self, train: Corpus, *, describe: str, api: Api, sampling: Sampling, seed: int, kind: Kind = "label",
        strata: Mapping[str, Stratum] | None = None, prompts: PromptSet | None = None,
    ) -> None:  # fmt: skip
        self._train = train
        self.writing: Writing = WRITINGS[kind]
        self.strata: Mapping[str, Stratum] = find_strata(train, kind) if strata is None else strata
        self._places = {id_: i for i, id_ in enumerate(train.ids)}
        self._describe = describe
        self._api = api
        self._sampling = sampling
        self._seed = seed
        self._prompts = prompts if prompts is not None else load_prompts()
        self._schema = pair_schema(self.writing) if self.writing.pair else None
        self._room = _find_room(train) if self.writing.pair else 0

    def ask(
        self, slot: Slot, attempt: int, avoided: Sequence[str] = (), *, step: Step = "row", source: str = "",
        seed_ids: Sequence[str] = (),
    ) -> Question:  # fmt: skip
        """Ask for a slot's row: a new one of its stratum, or its draft, or for a text in other words or in good form.

        Args:
            slot: with its topic and attributes.
            attempt: answers to the slot before.
            avoided: words that a new row or a draft may not use.
            step: what is asked for.
            source: the text that is paraphrased, or the draft that is refined.
            seed_ids: the examples behind it, shown with a draft in chat form.
        """
        label = readable(slot.label) if self.writing.kind == "label" else ""
        values: dict[str, Value] = {"label": label, "describe": self._describe}
        shown: tuple[str, ...]
        if step in ("row", "draft"):
            rows = self._choose_rows(slot, attempt)
            seed_ids = [self._train.ids[i] for i in rows]
            shown = tuple(one_line(self._train.texts[i]) for i in rows)
            values |= {
                "topic": readable(slot.topic) if slot.topic is not None else None,
                "attributes": [(readable(name), readable(value)) for name, value in slot.attributes],
                "avoided": list(avoided),
                "examples": list(shown) if self.writing.kind == "label" else [self._example(i) for i in rows],
            }
            if self.writing.source is not None:
                values[self.writing.source] = block(self.strata[slot.label].source or "")
        else:
            rows, name = [], "paraphrase" if step == "paraphrase" else "refine"
            examples = [one_line(self._train.texts[self._places[i]]) for i in seed_ids if step == "refinement"]
            values |= {"examples": examples, "text": one_line(source)}
            shown = self._prompts.file(f"{name}_completion").pairs if self._api == "completions" else tuple(examples)
        return Question(
            request=self._request(slot, attempt, step, values),
            step=step,
            seed_ids=tuple(seed_ids),
            shown=shown,
            shown_targets=tuple(self._train.targets[i] for i in rows) if self.writing.pair else (),
            source=source or None,
            avoided=tuple(avoided),
        )

    def blank(self) -> PromptWriter:
        """A writer of the same wording that has a placeholder for all that is given."""
        kind, places = self.writing.kind, range(EXAMPLES_SHOWN)
        rows = [{"id": str(i), "text": f"[example {i}]", "target": "[label]"} for i in places]
        if kind != "label":
            rows = [{**rows[i], "target": f"[target {i}]", "context": f"[context {i}]"} for i in places]
        train = Corpus.from_rows(rows, task=self.writing.task)
        return PromptWriter(
            train, describe=self._describe, api=self._api, sampling=self._sampling, seed=0, kind=kind,
            strata=find_strata(train, kind, ["[source]"] if self.writing.source else None), prompts=self._prompts,
        )  # fmt: skip

    def _example(self, row: int) -> dict[str, str]:
        """An example as the prompts of a kind without labels take it: a row with the names of its parts."""
        writing, train = self.writing, self._train
        text = train.texts[row]
        sides = {
            writing.text: block(text) if writing.lines else one_line(text),
            writing.target: block(train.targets[row]),
        }
        if writing.source is not None and writing.source not in sides:
            sides = {writing.source: block(train.contexts[row] or ""), **sides}
        return sides

    def _choose_rows(self, slot: Slot, attempt: int) -> list[int]:
        # a slot whose first answer was no use sees other examples, or the same in another order: at a low
        # temperature the same prompt would give the same answer again
        rotation = [slot.number // SLOTS_A_ROTATION, *([slot.number, attempt] if attempt else [])]
        rng = derive_rng(self._seed, "seed-examples", slot.label, slot.block, *rotation)
        rows = self.strata[slot.label].rows
        if slot.seed_ids:
            chosen = [self._places[id_] for id_ in slot.seed_ids]
        elif slot.examples:
            order = derive_rng(self._seed, "example-order", slot.label, slot.block).permutation(len(rows))
            chosen = [rows[order[place]] for place in slot.examples]
        else:
            return [rows[i] for i in rng.permutation(len(rows))[:EXAMPLES_SHOWN]]
        return [chosen[i] for i in rng.permutation(len(chosen))]

    def _request(self, slot: Slot, attempt: int, step: Step, values: Mapping[str, Value]) -> Request:
        draft, given = slot.draft if step == "draft" else None, self._sampling
        api, model = (self._api, None) if draft is None else (draft.api, draft.model)
        wanted = slot.temperature if draft is None else draft.temperature
        sampling = replace(
            given,
            temperature=wanted if wanted is not None else given.temperature,
            top_p=slot.top_p if slot.top_p is not None else given.top_p,
            min_p=slot.min_p if slot.min_p is not None else given.min_p,
            max_tokens=max(given.max_tokens, self._room),
        )
        name = {"paraphrase": "paraphrase", "refinement": "refine"}.get(step, self.writing.kind)
        pair = step in ("row", "draft") and self.writing.pair
        # 31 bits: the widest seed that every server takes
        seed = derive_seed(self._seed, "answer", slot.key, attempt) & 0x7FFFFFFF
        if api == "completions":
            prompt = self._prompts.file(f"{name}_completion").render(values)
            sampling = sampling if sampling.stop else replace(sampling, stop=self._stop if pair else ("\n",))
            return Request(prompt=prompt, sampling=sampling, seed=seed, replicate=attempt, model=model)
        messages = tuple(
            (role, self._prompts.file(f"{name}_chat_{role}").render(values)) for role in ("system", "user")
        )
        schema = self._schema if pair else None
        return Request(messages=messages, sampling=sampling, seed=seed, replicate=attempt, schema=schema, model=model)

    @property
    def _stop(self) -> tuple[str, ...]:
        """Where a pair ends: before the line between pairs, or the head of another pair."""
        heads = [name for name in (self.writing.source, self.writing.text) if name is not None]
        return (f"\n{SEPARATOR}", *(f"\n{name.capitalize()}:" for name in heads))


def _find_room(train: Corpus) -> int:
    """Tokens that pairs are given: enough for the longest pair of the training rows and what stands around it."""
    longest = max((len(t) + len(y) for t, y in zip(train.texts, train.targets, strict=True)), default=0)
    return min(MOST_ROOM, max(LEAST_ROOM, longest // _CHARACTERS_A_TOKEN + 32))


# --- the wording of prompts apart from what is given: its hash, and what an answer may not repeat ---
_SENTENCE = re.compile(r"(?<=[.:;?!])\s")
_PLACEHOLDER = re.compile(r"\[(?:slot|topic|word|text|source|(?:example|target|context|name|value) \d+)\]|\n")


class Wordings:
    """What a writer says, with placeholders for label, topic and examples.

    Args:
        writer: of the prompts.
    """

    def __init__(self, writer: PromptWriter) -> None:
        self._writer = writer.blank()
        self._requests: dict[tuple[Slot, Step, bool], Request] = {}
        self._runs: dict[tuple[str, Request], tuple[str, ...]] = {}

    def hash(self, slot: Slot, question: Question) -> str:
        """SHA-256 of the wording of a question that was asked for a slot."""
        request = self._request(slot, question)
        parts = [request.prompt, request.messages]
        return hash_value(parts if request.schema is None else [*parts, request.schema])

    def runs(self, slot: Slot, question: Question) -> tuple[str, ...]:
        """Stretches and sentences of the wording between what is given, normalised, of ``ECHO_WORDS`` words or more."""
        request = self._request(slot, question)
        known = (slot.label, request)
        if known not in self._runs:
            texts = [request.prompt or "", *(content for _, content in request.messages)]
            named = (text.replace("[label]", readable(slot.label)) for text in texts)
            runs = [run for text in named for run in _PLACEHOLDER.split(text)]
            sentences = [sentence for run in runs for sentence in _SENTENCE.split(run)]
            normal = (normalise_text(part) for part in (*runs, *sentences))
            self._runs[known] = tuple(dict.fromkeys(run for run in normal if len(run.split()) >= ECHO_WORDS))
        return self._runs[known]

    def _request(self, slot: Slot, question: Question) -> Request:
        blank = Slot(
            key="[slot]",
            label=next(iter(self._writer.strata)),
            block=0,
            topic=None if slot.topic is None else "[topic]",
            attributes=tuple((f"[name {i}]", f"[value {i}]") for i in range(len(slot.attributes))),
            draft=slot.draft,
            number=0,
            order=0,
        )
        known = (blank, question.step, bool(question.avoided))
        if known not in self._requests:
            avoided, seed_ids = ("[word]",) if question.avoided else (), [str(i) for i in range(EXAMPLES_SHOWN)]
            asked = self._writer.ask(blank, 0, avoided, step=question.step, source="[text]", seed_ids=seed_ids)
            self._requests[known] = asked.request
        return self._requests[known]
