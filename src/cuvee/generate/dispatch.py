"""Keeping as many requests under way as the endpoint takes well."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from cuvee.generate.calls import Answer, Request
from cuvee.generate.lanes import Lanes
from cuvee.generate.pacing import Window
from cuvee.generate.retries import Patience, Trouble

Ask = Callable[[Request], Awaitable[Answer | Trouble]]
Keep = Callable[[Request, Answer], Awaitable[None]]


@dataclass(slots=True, order=True)
class Item:
    """A request and its history; ordered by when it may be sent, monotonic seconds."""

    due: float
    number: int
    request: Request = field(compare=False)
    trouble: Trouble | None = field(default=None, compare=False)
    tries: int = field(default=0, compare=False)


class Dispatch:
    """Sends requests through lanes until all are answered.

    A lane asks nothing more before its answer is safe, so a killed process re-sends at most what was under way. A
    request that fails is set aside until it may be sent again and its lane goes on, as long as failures
    are one-offs; once they are not, lanes wait.

    Args:
        lanes: the requests.
        window: how many may be under way.
        patience: when to try again, and when to give up.
        ask: sends a request.
        keep: returns when an answer is safe.
    """

    def __init__(self, lanes: Lanes, *, window: Window, patience: Patience, ask: Ask, keep: Keep) -> None:
        self._lanes = lanes
        self._window = window
        self._patience = patience
        self._ask = ask
        self._keep = keep
        self._aside: list[Item] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._active = 0  # lanes at work; the tasks of those that have just stopped may still be listed
        self._number = 0

    async def run(self) -> None:
        """Return when all requests are answered; on an error, or when cancelled, stop all lanes."""
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open_lanes()
        try:
            await self._finished
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _open_lanes(self) -> None:
        waiting = self._lanes.left + len(self._aside)
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
        if error is not None:
            self._finished.set_exception(error)
        elif not self._tasks:
            self._finished.set_result(None)

    async def _work(self, lane: int) -> None:
        while (item := self._next(lane)) is not None:
            await self._settle(item)
            if self._active > self._window.size:
                break
            self._open_lanes()
        self._active -= 1
        self._lanes.close(lane)

    def _next(self, lane: int) -> Item | None:
        """A request set aside that is due, else the lane's next, else the earliest set aside."""
        if self._aside and self._aside[0].due <= time.monotonic():
            return heapq.heappop(self._aside)
        request = self._lanes.take(lane)
        if request is not None:
            self._number += 1
            return Item(0.0, self._number, request)
        return heapq.heappop(self._aside) if self._aside else None

    async def _settle(self, item: Item) -> None:
        """Ask until the request is answered, or set aside."""
        while True:
            if (wait := item.due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            outcome = await self._ask(item.request)
            if isinstance(outcome, Answer):
                self._patience.note_success()
                await self._keep(item.request, outcome)
                return
            item.trouble = outcome if item.trouble is None else outcome.since(item.trouble)
            item.due = time.monotonic() + self._patience.wait_seconds(item.trouble, item.tries)
            item.tries += 1
            if self._window.calm:
                heapq.heappush(self._aside, item)
                return
