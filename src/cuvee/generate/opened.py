"""An LLM that is ready to be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from cuvee.generate.calls import Endpoint, Request
from cuvee.generate.client import LLMClient
from cuvee.generate.failures import More, OnAnswer, Outcome
from cuvee.generate.ledger import Ledger


class Client(Protocol):
    """What answers requests: each with an answer, or with the failure it ended in."""

    def answer_requests(
        self, requests: Sequence[Request], on_answer: OnAnswer | None = None, more: More | None = None
    ) -> Sequence[Outcome]:
        """What came of each request, in their order.

        Args:
            requests: to answer.
            on_answer: called with each answer as it comes.
            more: called with all outcomes so far when nothing is left to be sent now; what it returns is asked too.
        """


OpenClient = Callable[[Endpoint, Ledger], AbstractContextManager[Client]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedLLM:
    """What answers: the endpoint the ledger knows it by, and what asks it (over HTTP, unless said otherwise)."""

    endpoint: Endpoint
    open_client: OpenClient = LLMClient
