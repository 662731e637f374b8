"""The wording of prompts apart from what is given: its hash, and what an answer may not repeat."""

from __future__ import annotations

import re

from cuvee.corpus import normalise_text
from cuvee.fingerprint import hash_value
from cuvee.generate.calls import Request
from cuvee.generate.dials.protocol import Slot
from cuvee.generate.parsing import ECHO_WORDS
from cuvee.generate.prompts import EXAMPLES_SHOWN, PromptWriter, Question, Step
from cuvee.generate.templates import readable

_SENTENCE = re.compile(r"(?<=[.:;?!])\s")
_PLACEHOLDER = re.compile(r"\[(?:slot|topic|word|text|source|(?:example|target|context|name|value) \d+)\]|\n")


class Wordings:
    """What the writer says, with placeholders for label, topic and examples.

    Args:
        writer: of the prompts.
    """

    def __init__(self, writer: PromptWriter) -> None:
        self._writer = writer.blank()
        self._stratum = next(iter(self._writer.strata))
        self._requests: dict[tuple[Slot, Step, bool], Request] = {}
        self._hashes: dict[Request, str] = {}
        self._runs: dict[tuple[str, Request], tuple[str, ...]] = {}

    def hash(self, slot: Slot, question: Question) -> str:
        """SHA-256 of the wording of a question that was asked for a slot."""
        request = self._request(slot, question)
        if request not in self._hashes:
            parts = [request.prompt, request.messages]
            self._hashes[request] = hash_value(parts if request.schema is None else [*parts, request.schema])
        return self._hashes[request]

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
            label=self._stratum,
            block=0,
            topic=None if slot.topic is None else "[topic]",
            attributes=tuple((f"[name {i}]", f"[value {i}]") for i in range(len(slot.attributes))),
            draft=slot.draft,
            number=0,
            order=0,
        )
        known = (blank, question.step, bool(question.avoided))
        if known not in self._requests:
            self._requests[known] = self._ask(blank, question.step, ("[word]",) if question.avoided else ())
        return self._requests[known]

    def _ask(self, slot: Slot, step: Step, avoided: tuple[str, ...]) -> Request:
        seed_ids = [str(i) for i in range(EXAMPLES_SHOWN)]
        if step == "paraphrase":
            return self._writer.ask_for_paraphrase(slot, 0, "[text]", seed_ids).request
        if step == "refinement":
            return self._writer.ask_for_refinement(slot, 0, "[text]", seed_ids, avoided).request
        if step == "draft":
            return self._writer.ask_for_draft(slot, 0, avoided).request
        return self._writer.ask_for_row(slot, 0, avoided).request
