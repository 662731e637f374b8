"""Asking in rounds until every slot has its row, its answers are used up, or its request failed for good."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from cuvee.generate.calls import Answer, Endpoint, Request, request_json, request_key
from cuvee.generate.client import LLMClient
from cuvee.generate.failures import Failure, Outcome
from cuvee.generate.filling import Filling
from cuvee.generate.ledger import Ledger
from cuvee.generate.prompts import Question
from cuvee.records import Usage

Progress = Callable[[int, int], None]


class Client(Protocol):
    """What answers requests: each with an answer, or with the failure it ended in."""

    def answer_requests(
        self, requests: Sequence[Request], on_answer: Callable[[Request, Answer], None] | None = None
    ) -> Sequence[Outcome]:
        """What came of each request, in their order."""


OpenClient = Callable[[Endpoint, Ledger], AbstractContextManager[Client]]


class Rounds:
    """Asks the questions of batches until all are settled; counts what was spent.

    A request that failed for good, now or in an earlier run, is not sent again until the ledger forgets its failure.

    Args:
        endpoint: the LLM.
        ledger: its answers and failures so far.
        total: rows wanted, for progress.
        progress: called with (rows so far, rows wanted).
        open_client: what asks the endpoint.
    """

    def __init__(
        self, endpoint: Endpoint, ledger: Ledger, *, total: int, progress: Progress | None = None,
        open_client: OpenClient = LLMClient,
    ) -> None:  # fmt: skip
        self._endpoint = endpoint
        self._ledger = ledger
        self._total = total
        self._progress = progress
        self._open_client = open_client
        self._shown = -1
        self._outcomes: dict[Request, Outcome] = {}

    def fill(self, fillings: Sequence[Filling]) -> None:
        """Ask round after round: all open slots of all batches together, each distinct request once."""
        failures = self._ledger.failures()
        with self._open_client(self._endpoint, self._ledger) as client:
            while any(asked := [filling.next_questions() for filling in fillings]):
                self._ask(client, fillings, asked, failures)
                for filling, questions in zip(fillings, asked, strict=True):
                    filling.give({key: (q, self._outcomes[q.request]) for key, q in questions.items()})
        self._show({key for filling in fillings for key in filling.rows})

    def key(self, question: Question) -> str:
        """What the ledger knows a question's request by."""
        return request_key(self._endpoint, question.request)

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

    def _ask(
        self, client: Client, fillings: Sequence[Filling], asked: Sequence[Mapping[str, Question]],
        failures: Mapping[str, Failure],
    ) -> None:  # fmt: skip
        filled = {key for filling in fillings for key in filling.rows}
        fresh: dict[Request, tuple[Filling, str, Question]] = {}
        for filling, questions in zip(fillings, asked, strict=True):
            for key, question in questions.items():
                if question.request in self._outcomes:
                    continue
                if failures and (known := failures.get(self.key(question))) is not None:
                    self._outcomes[question.request] = known
                else:
                    fresh[question.request] = (filling, key, question)

        def look(request: Request, answer: Answer) -> None:
            filling, key, question = fresh[request]
            if filling.looks_usable(key, question, answer):
                filled.add(key)
            self._show(filled)

        self._show(filled)
        # prompts that share a prefix stand together: the client gives each run of them to one slot of the endpoint
        ordered = sorted(fresh, key=lambda r: (r.prompt or "", r.messages))
        outcomes = dict(zip(ordered, client.answer_requests(ordered, look), strict=True))
        self._journal({request: o for request, o in outcomes.items() if isinstance(o, Failure)})
        self._outcomes.update(outcomes)

    def _journal(self, failures: Mapping[Request, Failure]) -> None:
        """Commit failures that the client did not."""
        known = self._ledger.failures() if failures else {}
        for request, failure in failures.items():
            if (key := request_key(self._endpoint, request)) not in known:
                self._ledger.record_failure(key, request_json(self._endpoint, request), failure)

    def _show(self, filled: Collection[str]) -> None:
        """Report progress; it never goes back, though an answer that looked usable may turn out a duplicate."""
        if self._progress is not None and len(filled) > self._shown:
            self._shown = len(filled)
            self._progress(self._shown, self._total)
