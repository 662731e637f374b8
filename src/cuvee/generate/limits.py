"""What may be sent: what a budget allows, how many requests at once, and how many a minute."""

from __future__ import annotations

import asyncio
import math
import time
from functools import reduce

from cuvee.errors import BudgetReached
from cuvee.records import Budget, Prices, Usage

PROMPT_OVERHEAD = 64  # tokens that a chat template may add to a prompt, at most


def worst_case(prompt_bytes: int, max_tokens: int) -> Usage:
    """The most one request can cost: no tokeniser in use makes more than one token of a byte."""
    return Usage(requests=1, prompt_tokens=prompt_bytes + PROMPT_OVERHEAD, completion_tokens=max_tokens)


class BudgetGuard:
    """Lets a request be sent only while the worst case of all requests under way stays within the budget.

    ``spent`` is what answers have cost so far, without what was spent before; answers from the ledger cost nothing.
    ``lost`` requests were sent and cut off before the answer came: each counts at its worst case, for which the
    endpoint may charge.

    Args:
        budget: None sets no bound.
        prices: None where they are not known.
        before: what was spent on the same budget before.
        where: the endpoint, for messages.
    """

    def __init__(self, budget: Budget | None, prices: Prices | None, *, before: Usage, where: str) -> None:
        self._budget, self._prices, self._before, self._where = budget or Budget(), prices, before, where
        self.spent = self.lost = self._reserved = Usage()
        self._freed = asyncio.Event()

    async def reserve(self, worst: Usage) -> None:
        """Wait until a request fits, then count it at its worst.

        Raises:
            BudgetReached: it does not fit, and no open request can turn out cheaper than its worst case.
        """
        while not self._fits(worst):
            if self._reserved.requests == 0:
                raise BudgetReached(
                    f"{self._where}: the next request could pass the budget ({self._budget}); spent: "
                    f"{self._tell(self._before.plus(self.spent), self.lost.requests)}; of it before this run: "
                    f"{self._tell(self._before)}; all answers so far are kept and cost nothing again: raise the budget "
                    "to go on"
                )
            self._freed.clear()
            await self._freed.wait()
        self._reserved = self._reserved.plus(worst)

    def settle(self, worst: Usage, actual: Usage | None, *, lost: bool = False) -> None:
        """Replace the worst case by what a request did cost.

        Args:
            worst: what was reserved.
            actual: None if no answer came.
            lost: it was sent and cut off, so it may have cost its worst.
        """
        self._reserved = self._reserved.plus(worst, -1)
        self._freed.set()
        if actual is not None:
            self.spent = self.spent.plus(actual)
        elif lost:
            self.lost = self.lost.plus(worst)

    def _fits(self, worst: Usage) -> bool:
        most = self._budget
        load = reduce(Usage.plus, (self._before, self.spent, self.lost, self._reserved, worst))
        tokens = load.prompt_tokens + load.completion_tokens
        loads = ((load.requests, most.requests), (tokens, most.tokens), (self._cost(load), most.cost))
        return all(bound is None or value <= bound for value, bound in loads)

    def _cost(self, load: Usage) -> float:
        return self._prices.cost(load.prompt_tokens, load.completion_tokens) if self._prices else 0.0

    def _tell(self, load: Usage, lost: int = 0) -> str:
        more = f" ({lost} more cut off unanswered)" if lost else ""
        cost = f", {self._cost(load):.4f} {self._prices.currency}" if self._prices and self._cost(load) else ""
        return f"{load.requests:,} requests{more}, {load.prompt_tokens + load.completion_tokens:,} tokens{cost}"


# --- how many requests may be under way at once, and how many a minute ---
# Requests added for each answer until the first halving: four times as many each round trip.
FIRST_WINDOW = 64
GROWTH = 3
CALM_SHARE = 0.2  # share of failing requests up to which failures are taken for one-offs
_MEMORY = 1 / 64
_SLACK_S = 0.1


class Window:
    """How many requests may be under way: grows while answers come well, halves when the endpoint is overrun.

    Additive increase, multiplicative decrease, as in TCP (Jacobson 1988): it quadruples each round trip until the
    first halving and grows by a sixteenth of its maximum each round trip from then on. One round trip halves it
    once. It halves on a request that timed out, and on a refused one (429, 5xx) when over a fifth of the last 64 or so
    failed: below that they are one-offs, and halving on each would all but stop the run. It stands still
    while answers take over a third of the time limit and twice as long as they once did: they wait in a queue.

    Args:
        most: its maximum.
        timeout_s: of one request.
    """

    def __init__(self, most: int, *, timeout_s: float) -> None:
        self._most = most
        self._timeout_s = timeout_s
        self._size = float(min(most, FIRST_WINDOW))
        self._eager = True
        self._failing = 0.0
        self._latency: float | None = None
        self._shortest = math.inf
        self._halved_at = -math.inf

    @property
    def size(self) -> int:
        """Requests that may be under way, 1 or more."""
        return int(self._size)

    @property
    def latency_s(self) -> float:
        """Seconds an answer has lately taken; 0 before the first."""
        return self._latency or 0.0

    @property
    def calm(self) -> bool:
        """Whether few enough requests fail that a failed one may be set aside while others are sent."""
        return self._failing < CALM_SHARE

    def note_answer(self, sent: float, now: float) -> None:
        """An answer came at ``now`` to a request sent at ``sent``, monotonic seconds."""
        took = now - sent
        self._shortest = min(self._shortest, took)
        self._latency = took if self._latency is None else self._latency + (took - self._latency) / 16
        self._failing *= 1 - _MEMORY
        queued = self._latency > self._timeout_s / 3 and self._latency > 2 * self._shortest
        if not queued and sent >= self._halved_at:
            step = float(GROWTH) if self._eager else max(1.0, self._most / 16) / self._size
            self._size = min(float(self._most), self._size + step)

    def note_trouble(self, sent: float, now: float, *, timed_out: bool) -> None:
        """A request sent at ``sent`` failed at ``now``."""
        self._failing += (1 - self._failing) * _MEMORY
        if (timed_out or not self.calm) and sent >= self._halved_at:
            self._halved_at = now  # what was sent before belongs to the same round trip
            self._eager = False
            self._size = max(1.0, self._size / 2)


class RateLimit:
    """Spreads requests and tokens evenly over time: a token bucket without bursts.

    Each request moves the time from which the next may be sent by its share of a minute (the generic cell rate
    algorithm, ITU-T I.371), so no minute sees more than the limit and one request.

    Args:
        requests_per_minute: None sets no limit.
        tokens_per_minute: of prompts and completions; None sets no limit.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._request_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._requests_at = self._tokens_at = -math.inf
        self._turn = asyncio.Lock()

    async def wait(self, tokens: float) -> None:
        """Return when a request of about so many tokens may be sent; first come, first served."""
        if not (self._request_s or self._token_s):
            return
        async with self._turn:
            while (ahead := max(self._requests_at, self._tokens_at) - time.monotonic()) > 0:
                await asyncio.sleep(min(ahead, 0.2))  # a correction may shorten the wait
            now = time.monotonic()
            # a timer that comes late is made up for, at most by the slack
            self._requests_at = max(self._requests_at, now - _SLACK_S) + self._request_s
            self._tokens_at = max(self._tokens_at, now - _SLACK_S) + tokens * self._token_s

    def correct(self, estimate: float, actual: float) -> None:
        """Replace the estimate of a request by its real number of tokens."""
        self._tokens_at += (actual - estimate) * self._token_s
