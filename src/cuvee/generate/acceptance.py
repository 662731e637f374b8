"""Which answers become rows. Pure: the outcome depends on the answers, never on when they came."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cuvee.corpus import Corpus, normalise_text
from cuvee.generate.calls import Answer
from cuvee.generate.dials.protocol import Slot
from cuvee.generate.parsing import (
    COPY_OF_SOURCE,
    COPY_OF_TRAINING,
    DUPLICATE,
    NO_SOURCE,
    NOT_NEAREST,
    Parsed,
    parse_answer,
)
from cuvee.generate.prompts import PromptWriter, Question
from cuvee.records import Rejected

Nearest = Callable[[Sequence[str], Sequence[str]], Sequence[int]]
"""``nearest(queries, candidates)``: for each query the index of the nearest candidate."""
Refuse = Callable[[Sequence[str]], Sequence[str | None]]
"""``refuse(texts)``: for each text why it may not become a row, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An accepted answer."""

    slot: Slot
    text: str
    seed_ids: tuple[str, ...]


class Judge:
    """Fills the slots of one batch from the answers known so far.

    Slots are judged in their order in the batch. Each takes its first answer that is usable by itself, equals
    (normalised) no training row and no row of a slot before it, and, if it is a paraphrase, is nearer to its source
    than to any other base row. A slot's outcome thus depends on the slots before it and on nothing
    else: not on timing, not on the slots after it, not on other batches. Base slots (without a parent) are settled
    before the first paraphrase is asked for.

    Args:
        slots: base slots first.
        train: whose rows may not come back.
        writer: of the questions.
        nearest: None skips the test for the nearest base row.
        refuse: None refuses nothing.
        attempts: answers a slot may be given.
        least_words: fewer are too short.
        keep_truncated: whether answers that ran into max_tokens may become rows.
    """

    def __init__(
        self, slots: Sequence[Slot], *, train: Corpus, writer: PromptWriter, nearest: Nearest | None,
        refuse: Refuse | None = None, attempts: int, least_words: int, keep_truncated: bool = False,
    ) -> None:  # fmt: skip
        self._base = [s for s in slots if s.parent is None]
        self._paraphrases = [s for s in slots if s.parent is not None]
        self._writer = writer
        self._nearest = nearest
        self._refuse = refuse
        self._refused: dict[str, str | None] = {}
        self._attempts = attempts
        self._least_words = least_words
        self._keep_truncated = keep_truncated
        self._training = {normalise_text(text) for text in train.texts}
        self._slots = {slot.key: slot for slot in slots}
        self._asked: dict[str, list[Question]] = {}
        self._parsed: dict[str, list[Parsed]] = {}
        self._is_nearest: dict[tuple[str, str], bool] = {}
        self.rows: dict[str, Row] = {}
        self.rejected: list[Rejected] = []

    def next_questions(self) -> dict[str, Question]:
        """For each slot that needs another answer, what to ask next; empty when all is settled."""
        return self._questions(self._base) or self._questions(self._paraphrases)

    def give(self, answers: Mapping[str, tuple[Question, Answer]]) -> None:
        """Take questions with their answers, by slot key, and judge all slots afresh."""
        for key, (question, answer) in answers.items():
            self._asked.setdefault(key, []).append(question)
            self._parsed.setdefault(key, []).append(self.parse(key, question, answer))
        self._find_refused(answers)
        self.rows, self.rejected = {}, []
        taken = set(self._training)
        self._settle(self._base, taken)
        if not self._open(self._base):
            self._measure_nearest()
            self._settle(self._paraphrases, taken)

    def parse(self, key: str, question: Question, answer: Answer) -> Parsed:
        """An answer to a slot's question, judged by itself."""
        label = self._slots[key].label
        return parse_answer(
            answer,
            label=label,
            shown=question.shown,
            least_words=self._least_words,
            keep_truncated=self._keep_truncated,
        )

    def asked(self, key: str) -> Sequence[Question]:
        """The questions that were answered for a slot."""
        return self._asked.get(key, ())

    def _open(self, slots: Sequence[Slot]) -> list[Slot]:
        """Slots without a row that may be asked for again."""
        return [
            slot
            for slot in slots
            if slot.key not in self.rows
            and len(self.asked(slot.key)) < self._attempts
            and (slot.parent is None or slot.parent in self.rows)
        ]

    def _questions(self, slots: Sequence[Slot]) -> dict[str, Question]:
        questions = {}
        for slot in self._open(slots):
            attempt = len(self.asked(slot.key))
            if slot.parent is None:
                questions[slot.key] = self._writer.ask_for_row(slot, attempt)
            else:
                source = self.rows[slot.parent]
                questions[slot.key] = self._writer.ask_for_paraphrase(slot, attempt, source.text, source.seed_ids)
        return questions

    def _settle(self, slots: Sequence[Slot], taken: set[str]) -> None:
        for slot in slots:
            source = self.rows.get(slot.parent) if slot.parent is not None else None
            if slot.parent is not None and source is None:
                self.rejected.append(Rejected(slot=slot.key, reason=NO_SOURCE, text=""))
                continue
            for question, parsed in zip(self.asked(slot.key), self._parsed.get(slot.key, ()), strict=True):
                reason = parsed.reason or self._objection(parsed.text, taken, source)
                if reason is None:
                    taken.add(normalise_text(parsed.text))
                    self.rows[slot.key] = Row(slot=slot, text=parsed.text, seed_ids=question.seed_ids)
                    break
                self.rejected.append(Rejected(slot=slot.key, reason=reason, text=parsed.text or parsed.raw))

    def _objection(self, text: str, taken: Collection[str], source: Row | None) -> str | None:
        normal = normalise_text(text)
        if source is not None and normal == normalise_text(source.text):
            return COPY_OF_SOURCE
        if normal in self._training:
            return COPY_OF_TRAINING
        if normal in taken:
            return DUPLICATE
        if (refused := self._refused.get(text)) is not None:
            return refused
        if source is not None and not self._is_nearest.get((text, source.slot.key), True):
            return NOT_NEAREST
        return None

    def _find_refused(self, keys: Iterable[str]) -> None:
        """Ask once for every new usable text of these slots whether it is refused."""
        usable = [parsed.text for key in keys for parsed in self._parsed[key] if parsed.reason is None]
        texts = [text for text in dict.fromkeys(usable) if text not in self._refused]
        if self._refuse is not None and texts:
            self._refused.update(zip(texts, self._refuse(texts), strict=True))

    def _measure_nearest(self) -> None:
        """Find the nearest base row of every usable paraphrase not yet measured, in one call."""
        if self._nearest is None:
            return
        base = [self.rows[s.key] for s in self._base if s.key in self.rows]
        queries: dict[tuple[str, str], None] = {}
        for slot in self._paraphrases:
            for parsed in self._parsed.get(slot.key, ()):
                pair = (parsed.text, slot.parent or "")
                if parsed.reason is None and pair not in self._is_nearest:
                    queries[pair] = None
        if not queries:
            return
        found = self._nearest([text for text, _ in queries], [row.text for row in base])
        for (text, parent), index in zip(queries, found, strict=True):
            self._is_nearest[text, parent] = base[int(index)].slot.key == parent
