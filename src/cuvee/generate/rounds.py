"""Asking in rounds until every slot has its row, its answers are used up, or its request failed for good."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack

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
    Where another LLM drafts, it answers the drafts of a round before the first one answers the rest.

    Args:
        llm: what writes rows.
        ledger: its answers and failures so far.
        total: rows wanted, for progress.
        progress: called with (rows so far, rows wanted).
        drafter: what writes drafts; None is the same.
    """

    def __init__(
        self, llm: OpenedLLM, ledger: Ledger, *, total: int, progress: Progress | None = None,
        drafter: OpenedLLM | None = None,
    ) -> None:  # fmt: skip
        self._llms = [llm] if drafter is None else [llm, drafter]
        self._endpoints = [settle_identity(each.endpoint, ledger) for each in self._llms]
        self._ledger = ledger
        self._total = total
        self._progress = progress
        self._shown = -1
        self._outcomes: list[dict[Request, Outcome]] = [{} for _ in self._llms]

    def fill(self, fillings: Sequence[Filling]) -> None:
        """Ask round after round: all open slots of all batches together, each distinct request once."""
        failures = self._ledger.failures()
        with ExitStack() as stack:
            clients = [
                stack.enter_context(llm.open_client(endpoint, self._ledger))
                for llm, endpoint in zip(self._llms, self._endpoints, strict=True)
            ]
            while any(asked := [filling.next_questions() for filling in fillings]):
                for place in reversed(range(len(clients))):
                    self._ask(place, clients[place], fillings, asked, failures)
                for filling, questions in zip(fillings, asked, strict=True):
                    filling.give({key: (q, self._outcome(q)) for key, q in questions.items()})
        self._show({key for filling in fillings for key in filling.rows})

    def key(self, question: Question) -> str:
        """What the ledger knows a question's request by."""
        return request_key(self._endpoints[self._place(question)], question.request)

    def model(self, question: Question) -> str:
        """The name of the model that a question is for."""
        return self._endpoints[self._place(question)].model

    def answer(self, question: Question) -> Answer:
        """The answer to a question that was answered.

        Raises:
            KeyError: it was not.
        """
        outcome = self._outcome(question)
        if isinstance(outcome, Failure):
            raise KeyError(question.request)
        return outcome

    def usage(self, questions: Iterable[Question], *, drafter: bool | None = None) -> Usage:
        """What the distinct answered requests among these questions cost.

        Args:
            questions: that were asked.
            drafter: only what another LLM drafted, or only the rest; None is all.
        """
        spent = Usage()
        for place, request in {(self._place(question), question.request) for question in questions}:
            answer = self._outcomes[place][request]
            if not isinstance(answer, Failure) and drafter in (None, place == 1):
                spent = spent.plus(
                    Usage(
                        requests=int(not answer.replayed),
                        replayed=int(answer.replayed),
                        prompt_tokens=answer.prompt_tokens,
                        completion_tokens=answer.completion_tokens,
                    )
                )
        return spent

    def _place(self, question: Question) -> int:
        """Which of the LLMs a question is for."""
        return 1 if question.step == "draft" and len(self._llms) > 1 else 0

    def _outcome(self, question: Question) -> Outcome:
        return self._outcomes[self._place(question)][question.request]

    def _ask(
        self, place: int, client: Client, fillings: Sequence[Filling], asked: Sequence[Mapping[str, Question]],
        failures: Mapping[str, Failure],
    ) -> None:  # fmt: skip
        filled = {key for filling in fillings for key in filling.rows}
        outcomes = self._outcomes[place]
        fresh: dict[Request, tuple[Filling, str, Question]] = {}
        for filling, questions in zip(fillings, asked, strict=True):
            for key, question in questions.items():
                if self._place(question) != place or question.request in outcomes:
                    continue
                if failures and (known := failures.get(self.key(question))) is not None:
                    outcomes[question.request] = known
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
        found = dict(zip(ordered, client.answer_requests(ordered, look), strict=True))
        self._journal(place, {request: o for request, o in found.items() if isinstance(o, Failure)})
        outcomes.update(found)

    def _journal(self, place: int, failures: Mapping[Request, Failure]) -> None:
        """Commit failures that the client did not."""
        known = self._ledger.failures() if failures else {}
        endpoint = self._endpoints[place]
        for request, failure in failures.items():
            if (key := request_key(endpoint, request)) not in known:
                self._ledger.record_failure(key, request_json(endpoint, request), failure)

    def _show(self, filled: Collection[str]) -> None:
        """Report progress; it never goes back, though an answer that looked usable may turn out a duplicate."""
        if self._progress is not None and len(filled) > self._shown:
            self._shown = len(filled)
            self._progress(self._shown, self._total)
