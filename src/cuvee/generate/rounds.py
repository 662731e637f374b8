"""Asking in rounds until every slot has its row or its answers are used up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from cuvee.generate.acceptance import Judge
from cuvee.generate.calls import Answer, Endpoint, Request
from cuvee.generate.client import LLMClient
from cuvee.generate.ledger import Ledger
from cuvee.generate.prompts import Question
from cuvee.records import Usage

Progress = Callable[[int, int], None]


class Rounds:
    """Asks the judges' questions until all are settled; counts what was spent.

    Args:
        endpoint: the LLM.
        ledger: its answers so far.
        total: rows wanted, for progress.
        progress: called with (rows so far, rows wanted).
    """

    def __init__(self, endpoint: Endpoint, ledger: Ledger, *, total: int, progress: Progress | None) -> None:
        self._endpoint = endpoint
        self._ledger = ledger
        self._total = total
        self._progress = progress
        self._shown = -1
        self._answers: dict[Request, Answer] = {}

    def fill(self, judges: Sequence[Judge]) -> None:
        """Ask round after round: all open slots of all judges together, each distinct request once."""
        with LLMClient(self._endpoint, self._ledger) as client:
            while any(asked := [judge.next_questions() for judge in judges]):
                self._ask(client, judges, asked)
                for judge, questions in zip(judges, asked, strict=True):
                    given = {key: (q, self._answers[q.request]) for key, q in questions.items()}
                    judge.give(given)
        self._show({key for judge in judges for key in judge.rows})

    def usage(self, questions: Iterable[Question]) -> Usage:
        """What the distinct requests among these questions cost."""
        spent = Usage()
        for request in {question.request for question in questions}:
            answer = self._answers[request]
            spent = spent.plus(
                Usage(
                    requests=int(not answer.replayed),
                    replayed=int(answer.replayed),
                    prompt_tokens=answer.prompt_tokens,
                    completion_tokens=answer.completion_tokens,
                )
            )
        return spent

    def _ask(self, client: LLMClient, judges: Sequence[Judge], asked: Sequence[Mapping[str, Question]]) -> None:
        filled = {key for judge in judges for key in judge.rows}
        fresh: dict[Request, tuple[Judge, str, Question]] = {}
        for judge, questions in zip(judges, asked, strict=True):
            for key, question in questions.items():
                if question.request not in self._answers:
                    fresh[question.request] = (judge, key, question)

        def look(request: Request, answer: Answer) -> None:
            judge, key, question = fresh[request]
            if judge.parse(key, question, answer).reason is None:
                filled.add(key)
            self._show(filled)

        self._show(filled)
        # prompts that share a prefix stand together: the client gives each run of them to one slot of the endpoint
        ordered = sorted(fresh, key=lambda r: (r.prompt or "", r.messages))
        self._answers.update(zip(ordered, client.answer_requests(ordered, look), strict=True))

    def _show(self, filled: Collection[str]) -> None:
        """Report progress; it never goes back, though an answer that looked usable may turn out a duplicate."""
        if self._progress is not None and len(filled) > self._shown:
            self._shown = len(filled)
            self._progress(self._shown, self._total)
