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
from cuvee.generate.pacing import Window
from cuvee.generate.refusals import Refusal
from cuvee.generate.retries import Patience, Trouble

Ask = Callable[[Request], Awaitable[Answer | Trouble | Refusal]]
Keep = Callable[[Request, Answer], Awaitable[None]]
Fail = Callable[[Request, Failure], None]
IsUp = Callable[[], Awaitable[bool]]

MOST_REFUSED = 5
"""Different requests that are refused, with nothing answered, before the set-up is taken to be wrong."""


@dataclass(slots=True, order=True)
class Item:
    """A request and its history; ordered by when it may be sent, monotonic seconds. ``tries`` counts sendings."""

    due: float
    number: int
    request: Request = field(compare=False)
    trouble: Trouble | None = field(default=None, compare=False)
    tries: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Ways:
    """What a dispatch does with requests: ``ask`` sends one, ``keep`` returns when its answer is safe.

    ``fail`` takes one that failed for good; ``is_up`` says whether the endpoint replies to anything.
    """

    ask: Ask
    keep: Keep
    fail: Fail
    is_up: IsUp


class Dispatch:
    """Sends requests through lanes until all are answered, or failed for good.

    A lane asks nothing more before its answer is safe, so a killed process re-sends at most what was under way. A
    request that fails is set aside until it may be sent again and its lane goes on, as long as failures
    are one-offs; once they are not, lanes wait.

    A refused request has failed if the endpoint is known to answer others. Until it is, refused ones are held back and
    others tried, from elsewhere in the order: after ``MOST_REFUSED`` without an answer, or when none is left, the first
    refusal is raised.

    Args:
        lanes: the requests.
        window: how many may be under way.
        patience: when to try again, and when to give up.
        ways: what to do with each.
        trusted: the endpoint is known to answer.
    """

    def __init__(self, lanes: Lanes, *, window: Window, patience: Patience, ways: Ways, trusted: bool) -> None:
        self._lanes = lanes
        self._window = window
        self._patience = patience
        self._ways = ways
        self._trusted = trusted
        self._held: list[tuple[Item, Refusal]] = []
        self._open = lanes.left  # requests neither answered nor failed
        self._aside: list[Item] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._active = 0  # lanes at work; the tasks of those that have just stopped may still be listed
        self._number = 0

    async def run(self) -> None:
        """Return when all requests are answered or failed; on an error, or when cancelled, stop all lanes."""
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open_lanes()
        try:
            await self._finished
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def _stuck(self) -> bool:
        """Whether no more is sent, for the set-up looks wrong; an answer that is under way may still show otherwise."""
        return not self._trusted and len(self._held) >= MOST_REFUSED

    def _open_lanes(self) -> None:
        waiting = 0 if self._stuck else self._lanes.left + len(self._aside)
        for _ in range(min(self._window.size - self._active, waiting)):
            self._active += 1
            task = asyncio.create_task(self._work(self._lanes.open()))
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

    async def _work(self, lane: int) -> None:
        while (item := self._next(lane)) is not None:
            held = len(self._held)
            await self._settle(item)
            if self._active > self._window.size:
                break
            if len(self._held) > held:  # its neighbours may be refused for the same reason: go on elsewhere
                lane = self._lanes.open()
            self._open_lanes()
        self._active -= 1
        self._lanes.close(lane)

    def _next(self, lane: int) -> Item | None:
        """A request set aside that is due, else the lane's next, else the earliest set aside."""
        if self._stuck:
            return None
        if self._aside and self._aside[0].due <= time.monotonic():
            return heapq.heappop(self._aside)
        request = self._lanes.take(lane)
        if request is not None:
            self._number += 1
            return Item(0.0, self._number, request)
        return heapq.heappop(self._aside) if self._aside else None

    async def _settle(self, item: Item) -> None:
        """Ask until the request is answered, refused, given up, or set aside."""
        while True:
            if (wait := item.due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            outcome = await self._ways.ask(item.request)
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
            item.trouble = outcome if item.trouble is None else outcome.since(item.trouble)
            wait_s = await self._wait_seconds(item.trouble, item.tries)
            if wait_s is None:
                self._fail(item, item.trouble.kind, item.trouble.reason)
                return
            item.due = time.monotonic() + wait_s
            if self._window.calm:
                heapq.heappush(self._aside, item)
                return

    async def _wait_seconds(self, trouble: Trouble, tries: int) -> float | None:
        """How long to wait before the next try; None to give the request up.

        The last requests of a run have no others beside them whose answers show that it is they who fail. If they are
        few and the endpoint replies to something, they are given up; else it is an outage.
        """
        try:
            return self._patience.wait_seconds(trouble, tries)
        except EndpointUnreachable:
            last = self._trusted and self._open < MOST_REFUSED and trouble.failures > 1 and not trouble.limited
            if not (last and await self._ways.is_up()):
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
