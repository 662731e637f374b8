"""Filling the slots of a batch, where a slot may also end because its request failed for good."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cuvee.generate.acceptance import AcceptanceFilter, Row
from cuvee.generate.calls import Answer, Failure, Outcome, Request, request_json, request_key
from cuvee.generate.client import Client, OpenedLLM
from cuvee.generate.dials.slots import Slot
from cuvee.generate.ledger import Ledger, settle_identity
from cuvee.generate.prompts import Question
from cuvee.records import Rejected, Usage

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


# --- asking until every slot has its row, its answers are used up, or its request failed for good ---
Progress = Callable[[int, int], None]


class Rounds:
    """Asks the questions of batches until all are settled; counts what was spent.

    A request that failed for good, now or in an earlier run, is not sent again until the ledger forgets its failure.

    Args:
        llm: what is asked.
        ledger: its answers and failures so far.
        total: rows wanted, for progress.
        progress: called with (rows so far, rows wanted).
    """

    def __init__(self, llm: OpenedLLM, ledger: Ledger, *, total: int, progress: Progress | None = None) -> None:
        self._llm = llm
        self._endpoint = settle_identity(llm.endpoint, ledger)
        self._ledger = ledger
        self._total = total
        self._progress = progress
        self._shown = -1
        self._outcomes: dict[Request, Outcome] = {}
        self._sent: set[Request] = set()
        self._failures: Mapping[str, Failure] = {}
        self._filled: set[tuple[str, str]] = set()

    def fill(self, fillings: Sequence[Filling]) -> None:
        """Ask the open slots of all batches together, each distinct request once; batches wait for each other nowhere.

        While requests wait for their next try, what does not depend on them goes on.
        """
        self._failures = self._ledger.failures()
        with self._llm.open_client(self._endpoint, self._ledger) as client:
            while self._ask(client, fillings):
                pass
        self._show(_filled(fillings))

    def key(self, question: Question) -> str:
        """What the ledger knows a question's request by."""
        return request_key(self._endpoint, question.request)

    def model(self, question: Question) -> str:
        """The name of the model that a question is for."""
        return question.request.model or self._endpoint.model

    def answer(self, question: Question) -> Answer:
        """The answer to a question that was answered.

        Raises:
            KeyError: it was not.
        """
        outcome = self._outcomes[question.request]
        if isinstance(outcome, Failure):
            raise KeyError(question.request)
        return outcome

    def usage(self, questions: Iterable[Question]) -> Usage:
        """What the distinct answered requests among these questions cost."""
        spent = Usage()
        for request in {question.request for question in questions}:
            answer = self._outcomes[request]
            if not isinstance(answer, Failure):
                spent = spent.plus(
                    Usage(
                        requests=int(not answer.replayed),
                        replayed=int(answer.replayed),
                        prompt_tokens=answer.prompt_tokens,
                        completion_tokens=answer.completion_tokens,
                    )
                )
        return spent

    def _find(self, question: Question) -> Outcome | None:
        """What came of a question, now or in an earlier run that it failed in."""
        outcome = self._outcomes.get(question.request)
        if outcome is None and self._failures and (known := self._failures.get(self.key(question))) is not None:
            outcome = self._outcomes[question.request] = known
        return outcome

    def _is_sent(self, question: Question) -> bool:
        return question.request in self._sent

    def _ask(self, client: Client, fillings: Sequence[Filling]) -> bool:
        """Ask whatever can be asked; whether there was anything."""
        asked: dict[Request, tuple[Filling, str, Question]] = {}

        def look(request: Request, answer: Answer) -> None:
            filling, key, question = asked[request]
            if filling.looks_usable(key, question, answer):
                self._filled.add((filling.name, key))
            self._show(self._filled)

        def more(found: Mapping[Request, Outcome]) -> list[Request]:
            self._outcomes.update(found)
            fresh: dict[Request, tuple[Filling, str, Question]] = {}
            for filling in fillings:
                for key, question in filling.next_questions(self._find, self._is_sent).items():
                    fresh.setdefault(question.request, (filling, key, question))
            asked.update(fresh)
            self._sent.update(fresh)
            self._filled = _filled(fillings)
            self._show(self._filled)
            # prompts that share a prefix stand together: the client gives each run of them to one slot of the endpoint
            return sorted(fresh, key=lambda r: (r.model or "", r.prompt or "", r.messages))

        if not (first := more({})):
            return False
        found = dict(zip(first, client.answer_requests(first, look, more), strict=True))
        self._journal({request: o for request, o in found.items() if isinstance(o, Failure)})
        self._outcomes.update(found)
        return True

    def _journal(self, failures: Mapping[Request, Failure]) -> None:
        """Commit failures that the client did not."""
        known = self._ledger.failures() if failures else {}
        for request, failure in failures.items():
            if (key := request_key(self._endpoint, request)) not in known:
                self._ledger.record_failure(key, request_json(self._endpoint, request), failure)

    def _show(self, filled: Collection[tuple[str, str]]) -> None:
        """Report progress; it never goes back, though an answer that looked usable may turn out a duplicate."""
        if self._progress is not None and len(filled) > self._shown:
            self._shown = len(filled)
            self._progress(self._shown, self._total)


def _filled(fillings: Iterable[Filling]) -> set[tuple[str, str]]:
    return {(filling.name, key) for filling in fillings for key in filling.rows}
