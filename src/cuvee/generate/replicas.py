"""How much is asked at once, of whom, and when again: budget, the window of each replica, retries."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace

from cuvee.errors import BudgetReached, EndpointUnreachable
from cuvee.generate.calls import Endpoint
from cuvee.generate.exchange import Compatibility, Exchange, Trouble
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
                    f"{self._tell(self._before + self.spent, self.lost.requests)}; of it before this run: "
                    f"{self._tell(self._before)}; all answers so far are kept and cost nothing again: raise the budget "
                    "to go on"
                )
            self._freed.clear()
            await self._freed.wait()
        self._reserved += worst

    def settle(self, worst: Usage, actual: Usage | None, *, lost: bool = False) -> None:
        """Replace the worst case by what a request did cost.

        Args:
            worst: what was reserved.
            actual: None if no answer came.
            lost: it was sent and cut off, so it may have cost its worst.
        """
        self._reserved -= worst
        self._freed.set()
        if actual is not None:
            self.spent += actual
        elif lost:
            self.lost += worst

    def _fits(self, worst: Usage) -> bool:
        most = self._budget
        load = self._before + self.spent + self.lost + self._reserved + worst
        loads = ((load.requests, most.requests), (load.tokens, most.tokens), (self._cost(load), most.cost))
        return all(bound is None or value <= bound for value, bound in loads)

    def _cost(self, load: Usage) -> float:
        return self._prices.cost(load.prompt_tokens, load.completion_tokens) if self._prices else 0.0

    def _tell(self, load: Usage, lost: int = 0) -> str:
        more = f" ({lost} more cut off unanswered)" if lost else ""
        cost = f", {self._cost(load):.4f} {self._prices.currency}" if self._prices and self._cost(load) else ""
        return f"{load.requests:,} requests{more}, {load.tokens:,} tokens{cost}"


# --- how many requests may be under way at once ---
# Requests added for each answer until the first halving: four times as many each round trip.
FIRST_WINDOW = 64
GROWTH = 3
CALM_SHARE = 0.2  # share of failing requests up to which failures are taken for one-offs
_MEMORY = 1 / 64


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


# A replica that fails so often in a row, for so long, is set aside if another is there; one that refuses a connection
# at once.
AILING_FAILURES = 3
AILING_S = 5.0
# A replica that was set aside is tried again after the first of these, then ever later, up to the second.
FIRST_PROBE_S = 1.0
LONGEST_PROBE_S = 30.0


class Replica:
    """One address of an endpoint, with how many requests it takes at once, and whether it fails.

    Args:
        number: its place among the replicas.
        endpoint: with this one address.
        compatibility: what is learned of the endpoint; all replicas share it, for they run the same model.
    """

    def __init__(self, number: int, endpoint: Endpoint, compatibility: Compatibility) -> None:
        self.number = number
        self.exchange = Exchange(endpoint, compatibility)
        self.window = Window(endpoint.most_at_once, timeout_s=endpoint.timeout_s)
        self.active = 0
        self.away = False
        self.ailing = False
        self._endpoint = endpoint
        self._patience_s = min(AILING_S, endpoint.give_up_s / 10)
        self.probe_s = FIRST_PROBE_S
        """Seconds to wait before it is tried again."""
        self._trial_since: float | None = None
        self._failures = 0
        self._since: float | None = None  # its last answer, or when the first request was sent that failed

    @property
    def name(self) -> str:
        """Its address, without what is secret."""
        return self._endpoint.shown_url

    @property
    def room(self) -> int:
        """Lanes that may be opened; below 0, how many are too many. 0 while it is away, 1 while it is on trial."""
        most = 0 if self.away else 1 if self._trial_since is not None else self.window.size
        return most - self.active

    def note_answer(self, sent: float, now: float) -> None:
        """It answered at ``now`` what was sent at ``sent``, monotonic seconds."""
        self.window.note_answer(sent, now)
        self.away, self.ailing, self._trial_since = False, False, None
        self._failures, self._since = 0, now
        self.probe_s = FIRST_PROBE_S

    def note_trouble(self, trouble: Trouble, sent: float, now: float) -> None:
        """A request sent at ``sent`` failed at ``now``. A limit (429) is no failure: the replica answers."""
        self.window.note_trouble(sent, now, timed_out=trouble.timed_out)
        if trouble.limited or (self._trial_since is not None and sent < self._trial_since):
            return
        self._failures += 1
        self._since = sent if self._since is None else self._since
        lasting = self._failures >= AILING_FAILURES and now - self._since >= self._patience_s
        self.ailing = self.ailing or trouble.refused or lasting or self._trial_since is not None

    def set_aside(self) -> None:
        """Send it nothing more until it is tried again."""
        self.away = True
        if self._trial_since is not None:
            self.put_off()

    def put_off(self) -> None:
        """It is still out: wait longer before the next trial."""
        self.probe_s = min(LONGEST_PROBE_S, 2 * self.probe_s)

    def try_again(self, now: float) -> None:
        """Give it one request at a time, until one is answered."""
        self.window = Window(self._endpoint.most_at_once, timeout_s=self._endpoint.timeout_s)
        self.away, self.ailing, self._trial_since = False, False, now
        self._failures, self._since = 0, None


class ReplicaPool:
    """The replicas of an endpoint; at least one of them is not away.

    Args:
        endpoint: with all its addresses.
        compatibility: what is learned of it.
    """

    def __init__(self, endpoint: Endpoint, compatibility: Compatibility) -> None:
        alone = [replace(endpoint, base_url=url, replicas=()) for url in endpoint.urls]
        self.replicas: Sequence[Replica] = [Replica(i, one, compatibility) for i, one in enumerate(alone)]

    async def open(self) -> None:
        """Open all exchanges; one that does not answer now is found out later.

        Raises:
            ModelNotFound, AuthenticationError, EndpointUnreachable: as :meth:`Exchange.open`.
        """
        opening = (replica.exchange.open() for replica in self.replicas)
        for outcome in await asyncio.gather(*opening, return_exceptions=True):  # none is left behind half open
            if isinstance(outcome, BaseException):
                raise outcome

    async def close(self) -> None:
        """Close the connections."""
        for replica in self.replicas:
            await replica.exchange.close()

    @property
    def size(self) -> int:
        """Requests that may be under way at once, at all replicas that are not away."""
        return sum(replica.window.size for replica in self.replicas if not replica.away)

    @property
    def latency_s(self) -> float:
        """Seconds an answer of the slowest replica has lately taken; 0 before the first."""
        return max(replica.window.latency_s for replica in self.replicas)

    def choose(self) -> Replica | None:
        """The replica with room that has the fewest requests under way; None if no replica has room."""
        return min((r for r in self.replicas if r.room > 0), key=lambda r: (r.active, r.number), default=None)

    def has_other(self, replica: Replica) -> bool:
        """Whether another replica is not away."""
        return any(not other.away for other in self.replicas if other is not replica)


# --- how long to wait before asking again, and when to give up ---
# How long a connection that never once worked is tried.
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
REFUSED_AT_START_S = 3.0
MOST_TRIES = 8  # how often a request is sent that fails while the endpoint answers others
# After so long without an answer, with requests failing, the endpoint is asked for a sign of life; and so often.
PROBE_S = 2.0


class RetryPolicy:
    """One for all requests to an endpoint: it knows when the endpoint last answered.

    A request is given up after ``MOST_TRIES`` failures of its own, or after two when it has failed for ``give_up_s``.
    The endpoint is given up when it has answered nothing for ``give_up_s``.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._last_success: float | None = None
        self._failing_since: float | None = None
        self._jitter = random.Random()  # spreads retries; touches no data
        self.answered = -math.inf
        """When the latest request was sent that was answered, monotonic seconds."""

    def note_success(self, sent: float) -> None:
        """The endpoint has just answered a request sent at ``sent``, monotonic seconds."""
        self._last_success, self._failing_since = time.monotonic(), None
        self.answered = max(self.answered, sent)

    def note_trouble(self, trouble: Trouble) -> None:
        """A request has just failed; a limit says that the endpoint is well."""
        if self._failing_since is None and not trouble.limited:
            self._failing_since = time.monotonic()

    def probe_s(self, latency_s: float) -> float:
        """Seconds between two looks whether the endpoint answers, whose answers take ``latency_s``."""
        return min(max(PROBE_S, 2 * latency_s), self._endpoint.give_up_s / MOST_TRIES)

    def in_doubt(self, probe_s: float) -> bool:
        """Whether requests have failed for ``probe_s`` with nothing answered since."""
        return self._failing_since is not None and time.monotonic() - self._failing_since >= probe_s

    def wait_seconds(self, trouble: Trouble, tries: int) -> float | None:
        """Seconds to wait before a request is tried again; None where it has failed often enough, by itself.

        Args:
            trouble: its last one.
            tries: how often it has been sent.

        Raises:
            EndpointUnreachable: the endpoint has not answered anything for too long.
        """
        now, limit = time.monotonic(), self._endpoint.give_up_s
        if trouble.failures >= MOST_TRIES or (trouble.failures > 1 and now - trouble.first >= limit):
            return None
        silent = now - (trouble.first if self._last_success is None else max(self._last_success, trouble.first))
        if trouble.refused and self._last_success is None:
            limit = min(limit, REFUSED_AT_START_S)
        if trouble.after is not None:
            wait = trouble.after + self._jitter.uniform(0, 0.05)
        else:  # the last try comes when the patience ends, not after
            longest = min(LONGEST_BACKOFF_S, limit / MOST_TRIES)  # short patience takes as many tries
            backoff = min(longest, FIRST_BACKOFF_S * 2 ** (tries - 1)) * self._jitter.uniform(0.5, 1.0)
            wait = min(backoff, max(0.05, limit - silent))
        if silent >= limit or (trouble.after is not None and silent + wait > limit):
            raise self._unreachable(trouble, silent)
        return wait

    def _unreachable(self, trouble: Trouble, silent: float) -> EndpointUnreachable:
        asked = f", asks to wait {trouble.after:g} s" if trouble.after else ""
        advice = "lower concurrency, or raise give_up_s" if trouble.limited else "is the server up, and base_url right?"
        return EndpointUnreachable(
            f"no usable answer from {self._endpoint.shown_url} for {silent:.0f} s ({trouble.reason}{asked}); "
            f"{advice} (all answers so far are kept)"
        )
