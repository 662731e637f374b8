"""Sends many requests at once to an OpenAI-compatible endpoint, and commits every answer to the ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from cuvee.generate.calls import Answer, Endpoint, Failure, More, OnAnswer, Outcome, Request, request_json, request_key
from cuvee.generate.dispatch import Dispatch, RequestQueue, Ways
from cuvee.generate.exchange import Compatibility, Refusal, Trouble
from cuvee.generate.ledger import Ledger, settle_identity
from cuvee.generate.replicas import BudgetGuard, Replica, ReplicaPool, RetryPolicy, worst_case
from cuvee.records import Usage

T = TypeVar("T")

# Answers wait for others to share a commit: this share of the time an answer takes, and never longer.
GATHER_SHARE = 0.01
LONGEST_GATHER_S = 0.02
SHORTEST_GATHER_S = 0.002  # A shorter wait is none: the commit before gathers enough
LONGEST_PROBE_S = 10.0  # how long the answer to a probe is waited for, unless answers take longer


class LLMClient:
    """Answers requests from the ledger, else from the endpoint; a context manager.

    Whatever has been answered, or has failed for good, is committed to the ledger before :meth:`answer_requests` is
    left, by an exception too (Ctrl-C included). What was found out about the endpoint is noted there. The endpoint's
    budget is that of the ledger: the answers that it holds count as spent.

    Args:
        endpoint: where to ask. With replicas each gets what it takes well, the idlest first; one that fails lastingly
            is set aside and tried again later, while the others take its requests. An outage is one of all of them.
        ledger: has the answers so far, and takes new ones.
    """

    def __init__(self, endpoint: Endpoint, ledger: Ledger) -> None:
        endpoint = settle_identity(endpoint, ledger)
        self._endpoint = endpoint
        self._ledger = ledger
        self._compatibility = Compatibility(endpoint, ledger.met.notes)
        self._pool = ReplicaPool(endpoint, self._compatibility)
        self._retry_policy = RetryPolicy(endpoint)
        self._budget_guard = BudgetGuard(
            endpoint.budget, endpoint.prices, before=ledger.totals(), where=endpoint.shown_url
        )
        self._known: Request | None = None  # that the endpoint has answered
        self._runner = asyncio.Runner()
        self._task: asyncio.Task[object] | None = None

    def __enter__(self) -> LLMClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._pool.close())
        self._call(self._runner.close)

    def answer_requests(
        self, requests: Sequence[Request], on_answer: OnAnswer | None = None, more: More | None = None
    ) -> list[Outcome]:
        """An answer or a failure for each request, in their order; equal requests are sent once.

        A request fails for good if the endpoint refuses it, or keeps failing on it, and answers others, now or in the
        ledger. While nothing has been answered, refusals are taken for a wrong set-up and end in an error.

        Args:
            requests: neighbours go one after the other through one lane.
            on_answer: called with each answer as it arrives, or is found in the ledger.
            more: called with all outcomes so far when nothing is left to be sent now, for all are settled or wait for
                their next try; what it returns is asked too.

        Raises:
            EndpointUnreachable: no usable answer for ``give_up_s`` seconds, or a refused connection at the start.
            BudgetReached: the next request could pass the endpoint's budget.
            AuthenticationError, ModelNotFound: the endpoint says so.
            EndpointError: it refuses a parameter or path, or all of the first requests.
            RunFolderError: the ledger cannot be written.
        """
        tell = on_answer or (lambda _request, _answer: None)
        outcomes: dict[Request, Outcome] = {}
        if missing := self._find_missing(requests, outcomes, tell):
            if outcomes or self._endpoint.identity in self._ledger.answered(self._endpoint.model):
                self._compatibility.worked = True
            self._run(self._send_all(missing, outcomes, tell, more))
        return [outcomes[r] for r in requests]

    def _find_missing(
        self, requests: Sequence[Request], outcomes: dict[Request, Outcome], tell: OnAnswer
    ) -> dict[Request, str]:
        """Those that the ledger has no answer to, with their keys; the answers of the others go to ``outcomes``."""
        missing: dict[Request, str] = {}
        for request in dict.fromkeys(requests):
            key = request_key(self._endpoint, request)
            known = self._ledger.lookup(key)
            if known is None:
                missing[request] = key
            else:
                outcomes[request] = known
                self._known = request
                tell(request, known)
        return missing

    def _run(self, work: Coroutine[None, None, T]) -> T:
        return self._call(lambda: self._runner.run(work))

    def _call(self, job: Callable[[], T]) -> T:
        """Do a job of this client's loop here, or in a thread where the caller (a notebook) is inside a loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return job()
        with ThreadPoolExecutor(max_workers=1) as pool:
            future = pool.submit(job)
            try:
                return future.result()
            except BaseException:
                if self._task is not None:
                    self._task.get_loop().call_soon_threadsafe(self._task.cancel)
                raise

    async def _send_all(
        self, keys: dict[Request, str], outcomes: dict[Request, Outcome], tell: OnAnswer, more: More | None
    ) -> None:
        self._task = asyncio.current_task()
        await self._pool.open()
        failures: dict[Request, Failure] = {}
        try:
            async with Journal(self._ledger, self._gather_s) as journal:

                async def keep(request: Request, answer: Answer) -> None:
                    await journal.keep(keys[request], request_json(self._endpoint, request), answer)
                    outcomes[request] = answer
                    self._known = request
                    tell(request, answer)

                def fail(request: Request, failure: Failure) -> None:
                    outcomes[request] = failures[request] = failure

                def further() -> list[Request]:
                    """More requests to send; as no lane is open, no answer is being committed."""
                    while more is not None:
                        wanted = [r for r in more(outcomes) if r not in keys and r not in outcomes]
                        if missing := self._find_missing(wanted, outcomes, tell):
                            keys.update(missing)
                            return list(missing)
                        if not wanted:
                            break
                    return []

                queue = RequestQueue(list(keys), self._pool.size, len(self._pool.replicas))
                ways = Ways(
                    ask=self._ask, keep=keep, fail=fail, note=self._compatibility.note, probe=self._probe, more=further,
                )  # fmt: skip
                policy, trusted = self._retry_policy, self._compatibility.worked
                await Dispatch(queue, pool=self._pool, retry_policy=policy, ways=ways, trusted=trusted).run()
        finally:  # once the journal is left, the ledger is free
            for request, failure in failures.items():
                self._ledger.record_failure(keys[request], request_json(self._endpoint, request), failure)

    async def _ask(self, replica: Replica, request: Request, again: bool = False) -> Answer | Trouble | Refusal:
        """Send a request, for the first time or ``again``, when the budget allows, and note how it went."""
        worst = worst_case(request.prompt_bytes, request.sampling.max_tokens)
        await self._budget_guard.reserve(worst)
        actual: Usage | None = None
        lost = False
        try:
            sent, lost = time.monotonic(), True
            self._ledger.met.retries += again
            outcome = await replica.exchange.ask(request)
            now = time.monotonic()
            lost = isinstance(outcome, Trouble) and outcome.cut_off
            if isinstance(outcome, Trouble):
                replica.note_trouble(outcome, sent, now)
                self._retry_policy.note_trouble(outcome)
            elif isinstance(outcome, Answer):
                replica.note_answer(sent, now)
                self._retry_policy.note_success(sent)
                actual = self._cost(outcome, worst)
            return outcome
        finally:
            self._ledger.met.unanswered += lost
            self._budget_guard.settle(worst, actual, lost=lost)

    async def _probe(self, replica: Replica) -> bool:
        """Whether a replica answers a request that was answered before, cut to one token; False if none was."""
        if self._known is None:
            return False
        sign = replace(self._known, sampling=replace(self._known.sampling, max_tokens=1))
        try:
            async with asyncio.timeout(max(LONGEST_PROBE_S, 4 * self._pool.latency_s)):
                return not isinstance(await self._ask(replica, sign), Trouble)
        except TimeoutError:
            return False

    def _gather_s(self) -> float:
        wait = min(LONGEST_GATHER_S, GATHER_SHARE * self._pool.latency_s)
        return wait if wait >= SHORTEST_GATHER_S else 0.0

    def _cost(self, answer: Answer, worst: Usage) -> Usage:
        if answer.usage.tokens:
            return answer.usage
        self._compatibility.note("the endpoint reports no usage: tokens are counted at their worst case")
        return worst


# --- committing answers to the ledger while the client goes on asking ---
class Journal:
    """Groups answers into commits; a context manager that commits the rest when it is left.

    A commit lasts as long as the disk needs to make it durable, some milliseconds. Meanwhile the loop goes on, and the
    answers that come are the next commit: one thread, one commit at a time. Only that thread uses the ledger
    until the block is left.

    Args:
        ledger: where answers go.
        gather_s: how long to wait for more answers before a commit, in seconds; asked before each. A commit costs as
            much CPU as sending a request, so it pays to wait a little where answers are slow anyway.
    """

    def __init__(self, ledger: Ledger, gather_s: Callable[[], float]) -> None:
        self._ledger, self._gather_s = ledger, gather_s
        self._held: list[tuple[str, str, Answer]] = []
        self._commits: list[asyncio.Task[None]] = []  # the last one takes what is held
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")

    async def __aenter__(self) -> Journal:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.gather(*self._commits, return_exceptions=True)
        finally:
            self._thread.shutdown()

    async def keep(self, key: str, request_json: str, answer: Answer) -> None:
        """Return when the answer is committed.

        Raises:
            RunFolderError: the ledger cannot be written.
        """
        if not self._held:
            self._commits = [each for each in self._commits if not each.done()]
            self._commits.append(asyncio.create_task(self._commit()))
        self._held.append((key, request_json, answer))
        await asyncio.shield(self._commits[-1])

    async def _commit(self) -> None:
        async with self._turn:
            await asyncio.sleep(self._gather_s())  # whoever has an answer in hand by then joins
            entries, self._held = self._held, []
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, entries)

    def _write(self, entries: Sequence[tuple[str, str, Answer]]) -> None:
        for key, text, answer in entries:
            self._ledger.record(key, text, answer)
        self._ledger.flush()


# --- an LLM that is ready to be asked ---
class Client(Protocol):
    """A client of an LLM: it gives each request an answer, or the failure that it ended in, and journals both."""

    def answer_requests(
        self, requests: Sequence[Request], on_answer: OnAnswer | None = None, more: More | None = None
    ) -> Sequence[Outcome]:
        """The answer to each request, or its failure, in their order.

        Args:
            requests: to answer.
            on_answer: called with each answer as it comes.
            more: called with all outcomes so far when nothing is left to be sent now; what it returns is asked too.
        """


OpenClient = Callable[[Endpoint, Ledger], AbstractContextManager[Client]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedLLM:
    """An LLM that is ready: the endpoint that the ledger knows it by, and the client that asks it (HTTP by default)."""

    endpoint: Endpoint
    open_client: OpenClient = LLMClient


# ``find(request)``: its answer, or its failure in this run or an earlier one; None if there is neither yet.
Find = Callable[[Request], Outcome | None]


def answer_all(
    llm: OpenedLLM, ledger: Ledger, wanted: Callable[[Find], Iterable[Request]], on_answer: OnAnswer | None = None
) -> None:
    """Ask what ``wanted(find)`` names, each request once, until it names nothing new.

    Raises:
        EndpointError: the endpoint failed; the ledger keeps all answers.
    """
    outcomes, failures = dict[Request, Outcome](), ledger.failures()
    asked = set[Request]()

    def find(request: Request) -> Outcome | None:
        known = outcomes.get(request)
        return failures.get(request_key(llm.endpoint, request)) if known is None and failures else known

    def more(found: Mapping[Request, Outcome]) -> list[Request]:
        outcomes.update(found)
        fresh = [request for request in dict.fromkeys(wanted(find)) if request not in asked]
        asked.update(fresh)
        return fresh

    with llm.open_client(llm.endpoint, ledger) as client:
        while first := more({}):
            outcomes.update(zip(first, client.answer_requests(first, on_answer, more), strict=True))
