"""Filling the slots of a batch, where a slot may also end because its request failed for good."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from cuvee.generate.acceptance import AcceptanceFilter, Row
from cuvee.generate.calls import Answer
from cuvee.generate.dials.protocol import Slot
from cuvee.generate.failures import Failure, Outcome
from cuvee.generate.prompts import Question
from cuvee.records import Rejected

Find = Callable[[Question], Outcome | None]
"""``find(question)``: what came of it; None where nothing has yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedSlot:
    """A slot that got no row because a request failed; ``rejected`` are the answers that came before."""

    question: Question
    failure: Failure
    rejected: tuple[Rejected, ...]


class Filling:
    """A batch being filled: a filter of its answers, and the slots whose requests failed.

    Its slots are asked for in rounds: one begins when all requests of the one before are settled, so that its outcome
    depends on the answers alone. While requests of a round wait, what other slots will most likely be asked next is
    asked ahead; the rounds find those answers there when they come to them.

    A failed slot has no row and is asked for no more: the filter goes on with the other slots, on which it has no
    influence, since only rows have any. Its paraphrases have no source.

    Args:
        slots: of the batch, base slots first.
        make_filter: a filter of the slots it is given.
        name: tells apart slots of several dials, whose keys may be the same.
    """

    def __init__(
        self, slots: Sequence[Slot], make_filter: Callable[[Sequence[Slot]], AcceptanceFilter], name: str = ""
    ) -> None:
        self.name = name
        self._slots = tuple(slots)
        self._make_filter = make_filter
        self._filter = make_filter(self._slots)
        self._given: list[dict[str, tuple[Question, Answer]]] = []
        self._round: Mapping[str, Question] = {}
        self._asked: dict[str, list[Question]] = {}
        self.failed: dict[str, FailedSlot] = {}

    @property
    def rows(self) -> Mapping[str, Row]:
        """The row of each filled slot, by key."""
        return self._filter.rows

    @property
    def rejected(self) -> list[Rejected]:
        """Every answer that became no row, and every paraphrase without a source."""
        return [*self._filter.rejected, *(r for slot in self.failed.values() for r in slot.rejected)]

    def asked(self, key: str) -> Sequence[Question]:
        """The questions that were answered for a slot, in order."""
        return self._asked.get(key, ())

    def next_questions(self, find: Find, is_sent: Callable[[Question], bool]) -> Mapping[str, Question]:
        """What to ask now, by slot: the next round, or, while that waits, what can be asked ahead.

        Args:
            find: what came of a question so far.
            is_sent: whether a question is under way or waits to be tried again.
        """
        while True:
            self._round = self._round or self._filter.next_questions()
            found = {key: (q, outcome) for key, q in self._round.items() if (outcome := find(q)) is not None}
            waiting = {key: q for key, q in self._round.items() if key not in found}
            fresh = {key: q for key, q in waiting.items() if not is_sent(q)}
            if fresh or not self._round:
                return fresh
            if waiting:
                return self._without(waiting, found).next_questions(find, is_sent)
            self.give(found)

    def _without(self, waiting: Collection[str], found: Mapping[str, tuple[Question, Outcome]]) -> Filling:
        """This filling, as if the slots that wait, and those that avoid words of theirs, were not wanted."""
        gone = set(waiting)
        for slot in self._slots:
            if slot.avoid is not None and any(key in gone for keys in slot.avoid.rounds for key in keys):
                gone.add(slot.key)
        gone |= self.failed.keys()
        ahead = Filling([slot for slot in self._slots if slot.key not in gone], self._make_filter)
        ahead._given = [{key: pair for key, pair in given.items() if key not in gone} for given in self._given]
        ahead._filter.give(*ahead._given)
        ahead.give({key: pair for key, pair in found.items() if key not in gone})
        return ahead

    def looks_usable(self, key: str, question: Question, answer: Answer) -> bool:
        """Whether an answer may become a row, judged by itself."""
        return self._filter.parse(key, question, answer).reason is None

    def give(self, outcomes: Mapping[str, tuple[Question, Outcome]]) -> None:
        """Take what came of the questions, by slot key."""
        self._round = {}
        answers: dict[str, tuple[Question, Answer]] = {}
        failures: dict[str, tuple[Question, Failure]] = {}
        for key, (question, outcome) in outcomes.items():
            if isinstance(outcome, Failure):
                failures[key] = (question, outcome)
            else:
                answers[key] = (question, outcome)
                self._asked.setdefault(key, []).append(question)
        self._given.append(answers)
        if failures:
            self._close(failures)
        else:
            self._filter.give(answers)

    def _close(self, failures: Mapping[str, tuple[Question, Failure]]) -> None:
        """AcceptanceFilter the other slots afresh, as if the failed ones had never been wanted."""
        for key, (question, failure) in failures.items():
            before = tuple(r for r in self._filter.rejected if r.slot == key)
            self.failed[key] = FailedSlot(question=question, failure=failure, rejected=before)
        self._filter = self._make_filter([slot for slot in self._slots if slot.key not in self.failed])
        self._filter.give(*({k: pair for k, pair in given.items() if k not in self.failed} for given in self._given))
