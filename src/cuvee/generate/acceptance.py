"""Which answers become rows. Pure: the outcome depends on the answers, never on when they came."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from cuvee.corpus import Corpus, normalise_text
from cuvee.generate.calls import Answer
from cuvee.generate.dials.protocol import Slot
from cuvee.generate.dials.words import characteristic_words, find_words
from cuvee.generate.near_copies import check_threshold
from cuvee.generate.parsing import (
    COPY_OF_SOURCE,
    COPY_OF_TRAINING,
    DRAFT,
    NO_SOURCE,
    NOT_NEAREST,
    Parsed,
    parse_answer,
    parse_pair,
)
from cuvee.generate.prompts import PromptWriter, Question
from cuvee.generate.screening import Agrees, Known, Refuse, Screen
from cuvee.generate.waves import check_slots, settling_waves
from cuvee.generate.wordings import Wordings
from cuvee.records import Rejected

__all__ = ["AcceptanceFilter", "AcceptanceRules", "Agrees", "Nearest", "Refuse", "Row", "settling_waves"]

Nearest = Callable[[Sequence[str], Sequence[str]], Sequence[int]]
"""``nearest(queries, candidates)``: for each query the index of the nearest candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceRules:
    """What an answer must be to become a row, beside usable by itself and no copy.

    ``nearest`` is for a paraphrase, which must be nearer to its source than to any other base row; None skips that
    test, and the pool's note says so. ``refuse`` says of texts why they may not become rows (they leak held-out data,
    say). ``agrees`` says of texts with their labels which of them have it. ``near_duplicate`` is the Jaccard similarity
    of the texts' runs of five characters, 0.5 to 1, from which a row counts as nearly the same as a training row, or
    as one before it in its batch (a paraphrase: as its source, too); None allows all but copies. ``keep_truncated``
    takes answers and drafts that ran into max_tokens, without their last, broken word. ``attempts`` are the answers a
    slot may be given, usable drafts not counted.

    Raises:
        ValueError: attempts or near_duplicate out of range.
    """

    nearest: Nearest | None = None
    refuse: Refuse | None = None
    agrees: Agrees | None = None
    near_duplicate: float | None = None
    keep_truncated: bool = False
    attempts: int = 6

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts {self.attempts!r}; must be 1 or more")
        if self.near_duplicate is not None:
            check_threshold(self.near_duplicate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An accepted answer, with the draft that it refines and the words that it had to avoid, if any.

    ``target`` and ``context`` are the answer's own, its stratum's, or those of the row that it paraphrases.
    """

    slot: Slot
    text: str
    target: str
    context: str | None = None
    seed_ids: tuple[str, ...]
    draft: str | None = None
    avoided: tuple[str, ...] = ()


class AcceptanceFilter:
    """Fills the slots of one batch from the answers known so far.

    Slots are judged in their order in the batch. Each takes its first answer that is usable by itself, equals
    (normalised) no training row and no row of a slot before it, nor nearly where that is asked for, and, if it is a
    paraphrase, is nearer to its source than to any other base row. Of a pair the text is compared. A slot's outcome
    thus depends on the slots before it and on nothing else: not on timing, not on the slots after it, not on other
    batches. Slots are asked for in waves, each of which is settled before the next is begun: what a slot avoids comes
    before it, and base slots (without a parent) come before the first paraphrase. A slot with a draft takes turns: a
    draft until one is usable by itself, then its refinement; where that is rejected, it begins with another draft.
    Drafts become no rows, so they are among the rejected, as such.

    Args:
        slots: base slots first, rounds in their order.
        train: whose rows may not come back.
        writer: of the questions.
        rules: what is accepted.
        least_words: fewer are too short; None is two, or as few as the shortest training row has.

    Raises:
        ConfigError: a slot wants seed examples that its stratum does not have, or drafts of pairs.
    """

    def __init__(
        self, slots: Sequence[Slot], *, train: Corpus, writer: PromptWriter, rules: AcceptanceRules,
        least_words: int | None = None,
    ) -> None:  # fmt: skip
        check_slots(slots, train, writer.strata, writer.writing)
        self._base = [s for s in slots if s.parent is None]
        self._paraphrases = [s for s in slots if s.parent is not None]
        self._waves = settling_waves(slots)
        self._writer = writer
        self._wordings = Wordings(writer)
        self._screen = Screen(rules.refuse, rules.agrees)
        self._known = Known(train.texts, rules.near_duplicate)
        self._rules = rules
        shortest = min((len(normalise_text(text).split()) for text in train.texts), default=2)
        self._least_words = min(2, shortest) if least_words is None else least_words
        self._slots = {slot.key: slot for slot in slots}
        self._asked: dict[str, list[Question]] = {}
        self._parsed: dict[str, list[Parsed]] = {}
        self._is_nearest: dict[tuple[str, str], bool] = {}
        self._typical: dict[tuple[str, tuple[str, ...], int, frozenset[str]], tuple[str, ...]] = {}
        self.rows: dict[str, Row] = {}
        self.rejected: list[Rejected] = []

    def next_questions(self) -> dict[str, Question]:
        """For each slot that needs another answer, what to ask next; empty when all is settled."""
        for wave in self._waves:
            if questions := {slot.key: self._question(slot) for slot in self._open(wave)}:
                return questions
        return {}

    def give(self, *rounds: Mapping[str, tuple[Question, Answer]]) -> None:
        """Take questions with their answers, by slot key, of one round or several, and judge all slots afresh."""
        for key, (question, answer) in chain.from_iterable(answers.items() for answers in rounds):
            self._asked.setdefault(key, []).append(question)
            self._parsed.setdefault(key, []).append(self.parse(key, question, answer))
        keys = dict.fromkeys(chain.from_iterable(rounds))
        usable = [(p.text, self._slots[key].label) for key in keys for p in self._parsed[key] if p.reason is None]
        self._screen.look(usable)
        self.rows, self.rejected = {}, []
        self._known.begin(p.text for parsed in self._parsed.values() for p in parsed if p.reason is None)
        for wave in self._waves:
            if wave[0].parent is not None:
                self._measure_nearest()
            self._settle(wave)
            if self._open(wave):
                break

    def parse(self, key: str, question: Question, answer: Answer) -> Parsed:
        """An answer to a slot's question, judged by itself. A usable draft has that for its reason: it is no row."""
        slot, writing = self._slots[key], self._writer.writing
        wording = self._wordings.runs(slot, question)
        if question.step == "row" and writing.pair:
            return parse_pair(
                answer, writing=writing, shown=question.shown, shown_targets=question.shown_targets,
                avoided=question.avoided, wording=wording, least_words=self._least_words,
                keep_truncated=self._rules.keep_truncated,
            )  # fmt: skip
        parsed = parse_answer(
            answer,
            label=slot.label if writing.kind == "label" else writing.text,
            shown=question.shown,
            avoided=question.avoided,
            wording=wording,
            least_words=self._least_words,
            keep_truncated=self._rules.keep_truncated,
        )
        if question.step != "draft" or parsed.reason is not None:
            return parsed
        return replace(parsed, reason=COPY_OF_TRAINING if self._known.is_training(parsed.text) else DRAFT)

    def asked(self, key: str) -> Sequence[Question]:
        """The questions that were answered for a slot."""
        return self._asked.get(key, ())

    def _open(self, slots: Sequence[Slot]) -> list[Slot]:
        """Slots without a row that may be asked for again."""
        return [
            slot
            for slot in slots
            if slot.key not in self.rows
            and sum(parsed.reason != DRAFT for parsed in self._parsed.get(slot.key, ())) < self._rules.attempts
            and (slot.parent is None or slot.parent in self.rows)
        ]

    def _question(self, slot: Slot) -> Question:
        attempt = len(self.asked(slot.key))
        if slot.parent is not None:
            source = self.rows[slot.parent]
            return self._writer.ask_for_paraphrase(slot, attempt, source.text, source.seed_ids)
        avoided = self._words_to_avoid(slot)
        if slot.draft is None:
            return self._writer.ask_for_row(slot, attempt, avoided)
        latest = self._parsed[slot.key][-1] if attempt else None
        if latest is None or latest.reason != DRAFT:
            return self._writer.ask_for_draft(slot, attempt, avoided)
        seed_ids = self.asked(slot.key)[-1].seed_ids
        return self._writer.ask_for_refinement(slot, attempt, latest.text, seed_ids, avoided)

    def _words_to_avoid(self, slot: Slot) -> tuple[str, ...]:
        """The most characteristic words of each round before the slot's own, but none that says what is wanted."""
        if slot.avoid is None:
            return ()
        about = slot.label if self._writer.writing.kind == "label" else self._writer.strata[slot.label].source
        said = [about or "", slot.topic or "", *(part for pair in slot.attributes for part in pair)]
        wanted = frozenset(word for text in said for word in find_words(text.replace("_", " ")))
        words: dict[str, None] = {}
        for keys in slot.avoid.rounds:
            words |= dict.fromkeys(self._typical_words(slot.label, keys, slot.avoid.words, wanted))
        return tuple(words)

    def _typical_words(self, label: str, keys: tuple[str, ...], count: int, exclude: frozenset[str]) -> tuple[str, ...]:
        known = (label, keys, count, exclude)
        if known not in self._typical:
            texts: dict[str, list[str]] = {}
            for row in (self.rows[key] for key in keys if key in self.rows):
                texts.setdefault(row.slot.label, []).append(row.text)
            self._typical[known] = characteristic_words(texts, label, count, exclude=exclude)
        return self._typical[known]

    def _settle(self, slots: Sequence[Slot]) -> None:
        for slot in slots:
            source = self.rows.get(slot.parent) if slot.parent is not None else None
            if slot.parent is not None and source is None:
                self.rejected.append(Rejected(slot=slot.key, reason=NO_SOURCE, text=""))
                continue
            for question, parsed in zip(self.asked(slot.key), self._parsed.get(slot.key, ()), strict=True):
                reason = parsed.reason or self._objection(parsed.text, slot, source)
                if reason is None:
                    self._known.add(parsed.text)
                    self.rows[slot.key] = self._make_row(slot, question, parsed, source)
                    break
                self.rejected.append(Rejected(slot=slot.key, reason=reason, text=parsed.text or parsed.raw))

    def _make_row(self, slot: Slot, question: Question, parsed: Parsed, source: Row | None) -> Row:
        writing, stratum = self._writer.writing, self._writer.strata[slot.label]
        if source is not None:
            target, context = source.target, source.context
        else:
            target = parsed.target if parsed.target is not None else stratum.source or slot.label
            context = stratum.source if writing.pair else None
        return Row(
            slot=slot,
            text=parsed.text,
            target=target,
            context=context,
            seed_ids=question.seed_ids,
            draft=question.source if question.step == "refinement" else None,
            avoided=question.avoided,
        )

    def _objection(self, text: str, slot: Slot, source: Row | None) -> str | None:
        if source is not None and normalise_text(text) == normalise_text(source.text):
            return COPY_OF_SOURCE
        if (known := self._known.objection(text)) is not None:
            return known
        if (refused := self._screen.objection(text, slot.label)) is not None:
            return refused
        if source is not None and not self._is_nearest.get((text, source.slot.key), True):
            return NOT_NEAREST
        return None

    def _measure_nearest(self) -> None:
        """Find the nearest base row of every usable paraphrase not yet measured, in one call."""
        if self._rules.nearest is None:
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
        found = self._rules.nearest([text for text, _ in queries], [row.text for row in base])
        for (text, parent), index in zip(queries, found, strict=True):
            self._is_nearest[text, parent] = base[int(index)].slot.key == parent
