"""Asking until every slot has its row, its answers are used up, or its request failed for good."""

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
    Where another LLM drafts, it answers the drafts that are wanted before the first one answers the rest.

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
        self._sent: set[tuple[int, Request]] = set()
        self._failures: Mapping[str, Failure] = {}
        self._filled: set[str] = set()

    def fill(self, fillings: Sequence[Filling]) -> None:
        """Ask the open slots of all batches together, each distinct request once; batches wait for each other nowhere.

        While requests wait for their next try, what does not depend on them goes on.
        """
        self._failures = self._ledger.failures()
        with ExitStack() as stack:
            clients = [
                stack.enter_context(llm.open_client(endpoint, self._ledger))
                for llm, endpoint in zip(self._llms, self._endpoints, strict=True)
            ]
            places = list(enumerate(clients))[::-1]
            while any([self._ask(place, client, fillings) for place, client in places]):
                pass
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

    def _find(self, question: Question) -> Outcome | None:
        """What came of a question, now or in an earlier run that it failed in."""
        place = self._place(question)
        outcome = self._outcomes[place].get(question.request)
        if outcome is None and self._failures and (known := self._failures.get(self.key(question))) is not None:
            outcome = self._outcomes[place][question.request] = known
        return outcome

    def _is_sent(self, question: Question) -> bool:
        return (self._place(question), question.request) in self._sent

    def _ask(self, place: int, client: Client, fillings: Sequence[Filling]) -> bool:
        """Ask one LLM whatever can be asked; whether there was anything."""
        outcomes = self._outcomes[place]
        asked: dict[Request, tuple[Filling, str, Question]] = {}

        def look(request: Request, answer: Answer) -> None:
            filling, key, question = asked[request]
            if filling.looks_usable(key, question, answer):
                self._filled.add(key)
            self._show(self._filled)

        def more(found: Mapping[Request, Outcome]) -> list[Request]:
            outcomes.update(found)
            fresh: dict[Request, tuple[Filling, str, Question]] = {}
            for filling in fillings:
                for key, question in filling.next_questions(self._find, self._is_sent).items():
                    if self._place(question) == place:
                        fresh.setdefault(question.request, (filling, key, question))
            asked.update(fresh)
            self._sent.update((place, request) for request in fresh)
            self._filled = {key for filling in fillings for key in filling.rows}
            self._show(self._filled)
            # prompts that share a prefix stand together: the client gives each run of them to one slot of the endpoint
            return sorted(fresh, key=lambda r: (r.prompt or "", r.messages))

        if not (first := more({})):
            return False
        found = dict(zip(first, client.answer_requests(first, look, more), strict=True))
        self._journal(place, {request: o for request, o in found.items() if isinstance(o, Failure)})
        outcomes.update(found)
        return True

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
