"""Keeping as many requests under way as the endpoint takes well."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from cuvee.errors import EndpointUnreachable
from cuvee.generate.calls import Answer, Request
from cuvee.generate.failures import Failure
from cuvee.generate.lanes import Lanes
from cuvee.generate.refusals import Refusal
from cuvee.generate.replicas import Fleet, Replica
from cuvee.generate.retries import Patience, Trouble

Ask = Callable[[Replica, Request], Awaitable[Answer | Trouble | Refusal]]
Keep = Callable[[Request, Answer], Awaitable[None]]
Fail = Callable[[Request, Failure], None]
Tell = Callable[[str], None]

MOST_REFUSED = 5
"""Different requests that are refused, with nothing answered, before the set-up is taken to be wrong."""


@dataclass(slots=True, order=True)
class Item:
    """A request and its history; ordered by when it may be sent, monotonic seconds.

    ``tries`` counts sendings, ``last`` is the number of the replica that was last asked.
    """

    due: float
    number: int
    request: Request = field(compare=False)
    trouble: Trouble | None = field(default=None, compare=False)
    tries: int = field(default=0, compare=False)
    last: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Ways:
    """What a dispatch does with requests: ``ask`` sends one, ``keep`` returns when its answer is safe.

    ``fail`` takes one that failed for good; ``note`` hears what was found out about the endpoint.
    """

    ask: Ask
    keep: Keep
    fail: Fail
    note: Tell


class Dispatch:
    """Sends requests through lanes until all are answered, or failed for good.

    A lane asks nothing more before its answer is safe, so a killed process re-sends at most what was under way. A
    request that fails is set aside until it may be sent again and its lane goes on, as long as failures
    are one-offs; once they are not, lanes wait.

    A refused request has failed if the endpoint is known to answer others. Until it is, refused ones are held back and
    others tried, from elsewhere in the order: after ``MOST_REFUSED`` without an answer, or when none is left, the first
    refusal is raised.

    Each lane belongs to a replica of the endpoint. A replica that fails lastingly while there is another is set aside:
    what it did not answer goes to the others at once, and it is tried again later, one request at first.

    Args:
        lanes: the requests.
        fleet: the replicas, with how many may be under way at each.
        patience: when to try again, and when to give up.
        ways: what to do with each.
        trusted: the endpoint is known to answer.
    """

    def __init__(self, lanes: Lanes, *, fleet: Fleet, patience: Patience, ways: Ways, trusted: bool) -> None:
        self._lanes = lanes
        self._fleet = fleet
        self._patience = patience
        self._ways = ways
        self._trusted = trusted
        self._held: list[tuple[Item, Refusal]] = []
        self._open = lanes.left  # requests neither answered nor failed
        self._aside: list[Item] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._probes: set[asyncio.Task[None]] = set()
        self._number = 0

    async def run(self) -> None:
        """Return when all requests are answered or failed; on an error, or when cancelled, stop all lanes."""
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for replica in self._fleet.replicas:
            replica.active = 0
            if replica.away:
                self._probe(replica)
        self._open_lanes()
        try:
            await self._finished
        finally:
            tasks = [*self._tasks, *self._probes]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _stuck(self) -> bool:
        """Whether no more is sent, for the set-up looks wrong; an answer that is under way may still show otherwise."""
        return not self._trusted and len(self._held) >= MOST_REFUSED

    def _open_lanes(self) -> None:
        waiting = 0 if self._stuck else self._lanes.left + len(self._aside)
        while waiting > 0 and (replica := self._fleet.choose()) is not None:
            waiting -= 1
            replica.active += 1
            task = asyncio.create_task(self._work(replica, self._lanes.open(replica.number)))
            self._tasks.add(task)
            task.add_done_callback(self._lane_ended)

    def _lane_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if self._finished.done():
            return
        if error is None and not self._tasks and self._held:
            error = self._held[0][1].error
        if error is not None:
            self._finished.set_exception(error)
        elif not self._tasks:
            self._finished.set_result(None)

    async def _work(self, replica: Replica, lane: int) -> None:
        while (item := self._next(replica, lane)) is not None:
            held = len(self._held)
            await self._settle(replica, item)
            if replica.room < 0:
                break
            if len(self._held) > held:  # its neighbours may be refused for the same reason: go on elsewhere
                lane = self._lanes.open(replica.number)
            self._open_lanes()
        replica.active -= 1
        self._lanes.close(lane)
        if replica.away:  # what it leaves behind is for the others
            self._open_lanes()

    def _next(self, replica: Replica, lane: int) -> Item | None:
        """A request set aside that is due, else the lane's next, else the earliest set aside."""
        if self._stuck:
            return None
        if self._is_for(replica) and self._aside[0].due <= time.monotonic():
            return heapq.heappop(self._aside)
        request = self._lanes.take(lane)
        if request is not None:
            self._number += 1
            return Item(0.0, self._number, request)
        return heapq.heappop(self._aside) if self._is_for(replica) else None

    def _is_for(self, replica: Replica) -> bool:
        """Whether the earliest request set aside is not better left to another replica than the one it failed at."""
        return bool(self._aside) and (self._aside[0].last != replica.number or not self._fleet.has_other(replica))

    async def _settle(self, replica: Replica, item: Item) -> None:
        """Ask until the request is answered, refused, given up, or set aside."""
        while True:
            if (wait := item.due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            outcome = await self._ways.ask(replica, item.request)
            item.tries += 1
            if isinstance(outcome, Answer):
                self._open -= 1
                self._trust()
                await self._ways.keep(item.request, outcome)
                return
            if isinstance(outcome, Refusal):
                self._held.append((item, outcome))
                if self._trusted:
                    self._trust()
                return
            item.last = replica.number
            other = self._fleet.has_other(replica)
            if other and self._is_out(replica, outcome):  # which says nothing of the request
                item.due = 0.0
                self._set_aside(item)
                return
            item.trouble = outcome if item.trouble is None else outcome.since(item.trouble)
            wait_s = await self._wait_seconds(replica, item.trouble, item.tries)
            if wait_s is None:
                self._fail(item, item.trouble.kind, item.trouble.reason)
                return
            item.due = time.monotonic() + wait_s
            if replica.window.calm or other:
                self._set_aside(item)
                if not replica.window.calm:
                    await asyncio.sleep(wait_s)
                return

    def _set_aside(self, item: Item) -> None:
        heapq.heappush(self._aside, item)
        if self._fleet.choose() is not None:  # another replica may be idle
            self._open_lanes()

    def _is_out(self, replica: Replica, trouble: Trouble) -> bool:
        """Whether a replica is away; one that fails lastingly is from now on."""
        if replica.ailing and not replica.away:
            replica.set_aside()
            self._ways.note(f"{replica.name} was set aside ({trouble.kind}); the other replicas took its requests")
            self._probe(replica)
        return replica.away

    def _probe(self, replica: Replica) -> None:
        task = asyncio.create_task(self._await_return(replica))
        self._probes.add(task)
        task.add_done_callback(self._probe_ended)

    def _probe_ended(self, task: asyncio.Task[None]) -> None:
        self._probes.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._finished.done():
            self._finished.set_exception(error)

    async def _await_return(self, replica: Replica) -> None:
        """Look now and then whether a replica replies again; then it is on trial."""
        while replica.away:
            await asyncio.sleep(replica.probe_s)
            if not replica.away:  # a late answer showed that it is well
                break
            if await replica.exchange.is_back():
                replica.try_again(time.monotonic())
            else:
                replica.put_off()
        self._open_lanes()

    async def _wait_seconds(self, replica: Replica, trouble: Trouble, tries: int) -> float | None:
        """How long to wait before the next try; None to give the request up.

        The last requests of a run have no others beside them whose answers show that it is they who fail. If they are
        few and the endpoint replies to something, they are given up; else it is an outage.
        """
        try:
            return self._patience.wait_seconds(trouble, tries)
        except EndpointUnreachable:
            last = self._trusted and self._open < MOST_REFUSED and trouble.failures > 1 and not trouble.limited
            if not (last and await replica.exchange.is_up()):
                raise
        return None

    def _trust(self) -> None:
        """The endpoint answers, so those it refused have failed; what may have been a wrong set-up is tried again."""
        self._trusted = True
        held, self._held = self._held, []
        for item, refusal in held:
            if refusal.again:
                heapq.heappush(self._aside, item)
            else:
                self._fail(item, refusal.reason, refusal.message)

    def _fail(self, item: Item, reason: str, message: str) -> None:
        self._open -= 1
        self._ways.fail(item.request, Failure(reason=reason, message=message, tries=item.tries))
