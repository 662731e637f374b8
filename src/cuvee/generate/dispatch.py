"""Keeps as many requests open as the endpoint can handle."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field

from cuvee.errors import EndpointUnreachable
from cuvee.generate.calls import Answer, Failure, Request
from cuvee.generate.exchange import Refusal, Trouble
from cuvee.generate.replicas import Replica, ReplicaPool, RetryPolicy

# Different requests that are refused, with nothing answered, before the set-up is taken to be wrong.
MOST_REFUSED = 5


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
    """What a dispatch does with requests: ``ask`` sends one, for the first time or again.

    ``keep`` returns when its answer is committed. ``fail`` takes one that failed for good; ``note`` takes a sentence
    about the endpoint. ``probe`` says whether a replica answers a request that the endpoint answered before. ``more``
    gives further requests when nothing is left to be sent now: all are settled, or wait for their next try.
    """

    ask: Callable[[Replica, Request, bool], Awaitable[Answer | Trouble | Refusal]]
    keep: Callable[[Request, Answer], Awaitable[None]]
    fail: Callable[[Request, Failure], None]
    note: Callable[[str], None]
    probe: Callable[[Replica], Awaitable[bool]]
    more: Callable[[], Sequence[Request]]


class Dispatch:
    """Sends requests through lanes until all are answered, or failed for good.

    A lane sends its next request only when its last answer is committed, so a killed process sends again at most the
    requests that were open. A request that fails is set aside until it may be sent again. Its lane goes on while
    few requests fail, or this one fails again and again; otherwise the lane waits. When nothing has been answered for a
    while, one request that was answered before is sent again, cut to one token; after an outage the first answer
    makes all that wait try again at once.

    A refused request has failed if the endpoint is known to answer others. Until it is, refused ones are held back and
    others tried, from elsewhere in the order: after ``MOST_REFUSED`` without an answer, or when none is left, the first
    refusal is raised.

    Each lane belongs to a replica of the endpoint. A replica that fails lastingly while there is another is set aside:
    what it did not answer goes to the others at once, and it is tried again later, one request at first.

    Args:
        queue: the requests.
        pool: the replicas, with how many may be under way at each.
        retry_policy: when to try again, and when to give up.
        ways: what to do with each.
        trusted: the endpoint is known to answer.
    """

    def __init__(
        self, queue: RequestQueue, *, pool: ReplicaPool, retry_policy: RetryPolicy, ways: Ways, trusted: bool
    ) -> None:
        self._queue = queue
        self._pool = pool
        self._retry_policy = retry_policy
        self._ways = ways
        self._trusted = trusted
        self._held: list[tuple[Item, Refusal]] = []
        self._aside: list[Item] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._probes: set[asyncio.Task[None]] = set()
        self._number = 0
        self._is_out = False
        self._awake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Return when all requests are answered or failed; on an error, or when cancelled, stop all lanes."""
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for replica in self._pool.replicas:
            replica.active = 0
            if replica.away:
                self._start(self._probes, self._await_return(replica))
        self._start(self._probes, self._watch())
        self._go_on()
        try:
            await self._finished
        finally:
            if self._timer is not None:
                self._timer.cancel()
            tasks = [*self._tasks, *self._probes]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _stuck(self) -> bool:
        """Whether nothing more is sent because the set-up looks wrong; an answer under way may still prove it right."""
        return not self._trusted and len(self._held) >= MOST_REFUSED

    def _go_on(self) -> None:
        """Open lanes for what may be sent now; where that is nothing, ask for more, wait for what is due, or end."""
        if self._finished.done():
            return
        if not self._tasks and not self._held and not self._ready and (requests := self._ways.more()):
            self._queue = RequestQueue(requests, self._pool.size, len(self._pool.replicas))
        waiting = 0 if self._stuck else self._ready
        while waiting > 0 and (replica := self._choose()) is not None:
            waiting -= 1
            replica.active += 1
            self._start(self._tasks, self._work(replica, self._queue.open(replica.number)))
        if not self._tasks and self._held and (self._stuck or not self._aside):
            self._finished.set_exception(self._held[0][1].error)
        elif not self._tasks and not self._aside:
            self._finished.set_result(None)
        elif self._aside and not self._queue.left:
            if self._timer is not None:
                self._timer.cancel()
            wait = self._aside[0].due - time.monotonic()
            if wait > 0 or not self._tasks:  # else a lane that ends takes it
                self._timer = asyncio.get_running_loop().call_later(max(0.0, wait), self._go_on)

    @property
    def _ready(self) -> int:
        """Requests that may be sent now; lanes that have some take those set aside on their way."""
        now = time.monotonic()
        return self._queue.left or sum(item.due <= now for item in self._aside)

    def _choose(self) -> Replica | None:
        """Who gets the next request: one that failed goes to another replica where there is one."""
        found = self._pool.choose()
        if found is None or self._queue.left or self._is_for(found):
            return found
        others = [r for r in self._pool.replicas if r is not found and r.room > 0]
        return others[0] if others else None

    def _start(self, tasks: set[asyncio.Task[None]], work: Coroutine[None, None, None]) -> None:
        """Run a lane or a probe; an error in it ends the whole dispatch."""

        def end(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None and not self._finished.done():
                self._finished.set_exception(error)
            self._go_on()

        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(end)

    async def _work(self, replica: Replica, lane: int) -> None:
        while (item := self._next(replica, lane)) is not None:
            held = len(self._held)
            await self._settle(replica, item)
            if replica.room < 0:
                break
            if len(self._held) > held:  # its neighbours may be refused for the same reason: go on elsewhere
                lane = self._queue.open(replica.number)
            self._go_on()
        replica.active -= 1
        self._queue.close(lane)
        if replica.away:  # what it leaves behind is for the others
            self._go_on()

    def _next(self, replica: Replica, lane: int) -> Item | None:
        """A request set aside that is due, else the lane's next."""
        if self._stuck:
            return None
        if self._is_for(replica) and self._aside[0].due <= time.monotonic():
            return heapq.heappop(self._aside)
        request = self._queue.take(lane)
        if request is None:
            return None
        self._number += 1
        return Item(0.0, self._number, request)

    def _is_for(self, replica: Replica) -> bool:
        """Whether the earliest request set aside is not better left to another replica than the one it failed at."""
        return bool(self._aside) and (self._aside[0].last != replica.number or not self._pool.has_other(replica))

    async def _settle(self, replica: Replica, item: Item) -> None:
        """Ask once: the request is answered, refused, given up, or set aside."""
        outcome = await self._ways.ask(replica, item.request, item.tries > 0)
        item.tries += 1
        if isinstance(outcome, Answer):
            self._trust()
            self._wake()
            await self._ways.keep(item.request, outcome)
        elif isinstance(outcome, Refusal):
            self._held.append((item, outcome))
            if self._trusted:
                self._trust()
        else:
            await self._postpone(replica, item, outcome)

    async def _postpone(self, replica: Replica, item: Item, outcome: Trouble) -> None:
        """Set a request aside that failed, or give it up; where failures are no one-offs the lane waits as well."""
        item.last, item.due = replica.number, 0.0
        if self._pool.has_other(replica) and self._is_ailing(replica, outcome):  # which says nothing of the request
            self._set_aside(item)
            return
        item.trouble = outcome if item.trouble is None else outcome.since(item.trouble, self._retry_policy.answered)
        wait_s = await self._wait_seconds(item.trouble, item.tries)
        if wait_s is None:
            self._fail(item, item.trouble.kind, item.trouble.reason)
            return
        item.due = time.monotonic() + wait_s
        self._set_aside(item)
        if not replica.window.calm and item.trouble.failures == 1:
            await self._pause(wait_s, item.trouble)

    async def _pause(self, seconds: float, trouble: Trouble) -> None:
        """Wait, unless the endpoint answers again first; what the server asked to wait is waited for."""
        with contextlib.suppress(TimeoutError):
            if trouble.after is not None:
                await asyncio.sleep(seconds)
            else:
                await asyncio.wait_for(self._awake.wait(), seconds)

    def _wake(self) -> None:
        """The endpoint answers: after an outage, try all waiting requests at once."""
        if not self._is_out:
            return
        self._is_out = False
        self._awake.set()
        self._awake.clear()
        for item in self._aside:
            if item.trouble is None or item.trouble.after is None:
                item.due = 0.0
        heapq.heapify(self._aside)
        self._go_on()

    async def _watch(self) -> None:
        """Look whether the endpoint answers, as long as requests fail and nothing is answered."""
        while True:
            probe_s = self._retry_policy.probe_s(self._pool.latency_s)
            await asyncio.sleep(probe_s)
            if self._retry_policy.in_doubt(probe_s):
                await self._look()

    async def _look(self) -> bool:
        """Whether the endpoint answers."""
        here = next((replica for replica in self._pool.replicas if not replica.away), self._pool.replicas[0])
        if await self._ways.probe(here):
            self._wake()
            return True
        self._is_out = True
        return False

    def _set_aside(self, item: Item) -> None:
        heapq.heappush(self._aside, item)
        if self._pool.choose() is not None:  # another replica may be idle
            self._go_on()

    def _is_ailing(self, replica: Replica, trouble: Trouble) -> bool:
        """Whether a replica is away; one that fails lastingly is from now on."""
        if replica.ailing and not replica.away:
            replica.set_aside()
            self._ways.note(f"{replica.name} was set aside ({trouble.kind}); the other replicas took its requests")
            self._start(self._probes, self._await_return(replica))
        return replica.away

    async def _await_return(self, replica: Replica) -> None:
        """Look now and then whether a replica replies again; then it is on trial."""
        while replica.away:
            await asyncio.sleep(replica.probe_s)
            if not replica.away:  # a late answer showed that it is well
                break
            if await replica.exchange.is_up():
                replica.try_again(time.monotonic())
            else:
                replica.put_off()
        self._go_on()

    async def _wait_seconds(self, trouble: Trouble, tries: int) -> float | None:
        """How long to wait before the next try; None to give the request up.

        Nothing may be left beside it whose answers show that it is the request that fails, not the endpoint.
        """
        try:
            return self._retry_policy.wait_seconds(trouble, tries)
        except EndpointUnreachable:
            if not await self._look():
                raise
        return None if trouble.limited else 0.0

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
        self._ways.fail(item.request, Failure(reason=reason, message=message, tries=item.tries))


# --- which request goes next: neighbours one after the other through one lane ---
class RequestQueue:
    """Requests cut into one run for each lane; a lane that is done takes over the end of the longest run.

    An endpoint that keeps the prompts it has computed (llama.cpp, one a slot) frees the slot of a lane just
    when that lane sends its next request, which begins like the last one. So neighbours in a run find
    their common beginning computed, which from 16 slots on is most of the work. Where an endpoint has several replicas
    each replica starts on its own zone, a set of neighbouring runs, and then takes from the other zones.

    Args:
        requests: in an order that has like ones stand together.
        lanes: how many runs to cut them into; :meth:`open` adds more.
        zones: how many replicas there are.
    """

    def __init__(self, requests: Sequence[Request], lanes: int, zones: int = 1) -> None:
        length = max(1, -(-len(requests) // lanes))
        self._runs = [deque(requests[start : start + length]) for start in range(0, len(requests), length)]
        self._zones = [lane * zones // len(self._runs) for lane in range(len(self._runs))]
        self._closed = list(range(len(self._runs)))[::-1]
        self.left = len(requests)

    def open(self, zone: int = 0) -> int:
        """A free lane: of this zone if possible, else of any zone, else a new one with half of the longest run."""
        if self._closed:
            own = (i for i in range(len(self._closed) - 1, -1, -1) if self._zones[self._closed[i]] == zone)
            return self._closed.pop(next(own, -1))
        longest = max(self._runs, key=len, default=deque[Request]())
        self._runs.append(deque([longest.pop() for _ in range(len(longest) // 2)][::-1]))
        self._zones.append(zone)
        return len(self._runs) - 1

    def close(self, lane: int) -> None:
        """Free the lane; the rest of its run is for other lanes."""
        self._closed.append(lane)

    def take(self, lane: int) -> Request | None:
        """The next request of a lane, or from the end of the longest run, of its zone first; None if all are taken."""
        if self.left == 0:
            return None
        self.left -= 1
        if self._runs[lane]:
            return self._runs[lane].popleft()
        zone = self._zones[lane]
        own = max((run for run, of in zip(self._runs, self._zones, strict=True) if of == zone), key=len)
        return (own or max(self._runs, key=len)).pop()
