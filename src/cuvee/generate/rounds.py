"""Asking until every slot has its row, its answers are used up, or its request failed for good."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from cuvee.generate.calls import Answer, Request, request_json, request_key
from cuvee.generate.failures import Failure, Outcome
from cuvee.generate.filling import Filling
from cuvee.generate.identities import settle_identity
from cuvee.generate.ledger import Ledger
from cuvee.generate.opened import Client, OpenedLLM
from cuvee.generate.prompts import Question
from cuvee.records import Usage

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
