"""Answering requests in batches with a model in this process, journalled after every batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from cuvee.errors import GenerationError
from cuvee.generate.budgets import Spent
from cuvee.generate.calls import Answer, Endpoint, Request, request_json, request_key
from cuvee.generate.failures import Failure, More, OnAnswer, Outcome
from cuvee.generate.ledger import Ledger


class OutOfMemory(GenerationError):
    """The device has no room for a batch of this size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A request as the model reads it: ``ids`` are the prompt's tokens, ``most`` is the longest answer in tokens."""

    request: Request
    ids: tuple[int, ...]
    most: int


class Decoder(Protocol):
    """A language model in this process."""

    @property
    def limit(self) -> int:
        """Tokens of prompt and answer together that it can read."""

    @property
    def device_name(self) -> str:
        """Where it runs, for messages."""

    def tokenize(self, request: Request) -> tuple[int, ...]:
        """The tokens of a request's prompt."""

    def decode(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """The answers, in the order of the prompts. Raises OutOfMemory if the batch is too large."""

    def free_memory(self) -> None:
        """Give back what a batch that ran out of memory left behind."""


class BatchClient:
    """Answers requests from the ledger, else with a model in this process; a context manager.

    The longest prompts go first, in batches of neighbours in length: little is padded, and memory runs short at once or
    never. A batch is committed to the ledger before the next one begins. When memory runs out the batch is halved, for
    good.

    Args:
        decoder: the model.
        endpoint: what the ledger knows it by.
        ledger: what was asked before, and where new answers go.
        batch: requests answered at once, at most.
        context: tokens of prompt and answer together, at most.
    """

    def __init__(self, decoder: Decoder, endpoint: Endpoint, ledger: Ledger, *, batch: int, context: int) -> None:
        self._decoder = decoder
        self._endpoint = endpoint
        self._ledger = ledger
        self._batch = batch
        self._context = min(context, decoder.limit)
        self._notes: list[str] = []
        self._spent = Spent()

    def __enter__(self) -> BatchClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ledger.flush()

    @property
    def batch(self) -> int:
        """Requests answered at once, as memory now allows."""
        return self._batch

    @property
    def spent(self) -> Spent:
        """What this client's answers took so far; those from the ledger took nothing."""
        return self._spent

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found out, one sentence each."""
        return tuple(self._notes)

    @property
    def unverified(self) -> tuple[str, ...]:
        """Parameters that may have been ignored: none."""
        return ()

    def answer_requests(
        self, requests: Sequence[Request], on_answer: OnAnswer | None = None, more: More | None = None
    ) -> list[Outcome]:
        """What came of each request, in their order; equal requests are answered once.

        Args:
            requests: in any order.
            on_answer: called with each answer as it is committed, or is found in the ledger.
            more: what to ask beside requests that wait for their next try; here none does, so it is not called.

        Raises:
            ConfigError: a chat request, and the model has no chat template.
            GenerationError: out of memory with a single request, or the model gives no numbers.
            RunFolderError: the ledger cannot be written.
        """
        del more
        tell = on_answer or _tell_nobody
        outcomes: dict[Request, Outcome] = {}
        missing: dict[Request, str] = {}
        for request in dict.fromkeys(requests):
            key = request_key(self._endpoint, request)
            known = self._ledger.lookup(key, self._endpoint.known_as)
            if known is None:
                missing[request] = key
            else:
                outcomes[request] = known
                tell(request, known)
        waiting: list[Prompt] = []
        for request in missing:
            ready = self._prepare(request)
            if isinstance(ready, Failure):
                outcomes[request] = ready
            else:
                waiting.append(ready)
        waiting.sort(key=lambda prompt: (-len(prompt.ids), missing[prompt.request]))
        self._answer_all(waiting, missing, outcomes, tell)
        return [outcomes[r] for r in requests]

    def _prepare(self, request: Request) -> Prompt | Failure:
        if request.schema is not None:
            self._note("structured output: the prompt alone asks for JSON")
        ids = self._decoder.tokenize(request)
        if not ids:
            return Failure(reason="empty prompt", message="the prompt has no token; write some text to go on from")
        room = self._context - len(ids)
        if room < 1:
            where = "raise context" if self._context < self._decoder.limit else "shorten it: the model reads no more"
            return Failure(
                reason="prompt too long",
                message=f"the prompt has {len(ids)} tokens and context is {self._context}; {where}",
            )
        return Prompt(request=request, ids=ids, most=min(request.sampling.max_tokens, room))

    def _answer_all(
        self, waiting: list[Prompt], keys: Mapping[Request, str], outcomes: dict[Request, Outcome],
        tell: OnAnswer,
    ) -> None:  # fmt: skip
        done = 0
        while done < len(waiting):
            part = waiting[done : done + self._batch]
            answers = self._try(part)
            if answers is None:
                self._shrink(len(part))
                continue
            done += len(part)
            for prompt, answer in zip(part, answers, strict=True):
                request = prompt.request
                text = request_json(self._endpoint, request)
                self._ledger.record(keys[request], text, answer, self._endpoint.known_as)
            self._ledger.flush()
            for prompt, answer in zip(part, answers, strict=True):
                self._count(answer)
                outcomes[prompt.request] = answer
                tell(prompt.request, answer)

    def _try(self, part: Sequence[Prompt]) -> list[Answer] | None:
        try:
            return self._decoder.decode(part)
        except OutOfMemory:
            if len(part) > 1:
                return None
            raise

    def _shrink(self, tried: int) -> None:
        # only here, where no traceback holds on to the tensors of the batch any more
        self._decoder.free_memory()
        self._batch = max(1, tried // 2)
        self._note(f"out of memory on {self._decoder.device_name}: batch lowered to {self._batch}")

    def _count(self, answer: Answer) -> None:
        before = self._spent
        self._spent = Spent(
            requests=before.requests + 1,
            prompt_tokens=before.prompt_tokens + answer.prompt_tokens,
            completion_tokens=before.completion_tokens + answer.completion_tokens,
        )

    def _note(self, sentence: str) -> None:
        if sentence not in self._notes:
            self._notes.append(sentence)


def _tell_nobody(request: Request, answer: Answer) -> None:
    del request, answer
