"""Replicas of one endpoint: who gets the next request, who is set aside, and when it is tried again."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import replace

from cuvee.generate.calls import Endpoint
from cuvee.generate.compatibility import Compatibility
from cuvee.generate.exchange import Exchange
from cuvee.generate.retries import Trouble

AILING_FAILURES = 3
AILING_S = 5.0
"""A replica that fails so often in a row, for so long, is set aside if another is there; one that refuses a connection
at once."""
FIRST_PROBE_S = 1.0
LONGEST_PROBE_S = 30.0
"""A replica that was set aside is tried again after the first of these, then ever later, up to the second."""


class Replica:
    """One address of an endpoint, with what it takes at once, and how it does.

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
        self._probe_s = FIRST_PROBE_S
        self._trial_since: float | None = None
        self._failures = 0
        self._since: float | None = None  # its last answer, or when the first request was sent that failed

    @property
    def name(self) -> str:
        """Its address, without what is secret."""
        return self._endpoint.shown_url

    @property
    def room(self) -> int:
        """RequestQueue that may be opened; below 0, how many are too many. None may while it is away, one on trial."""
        most = 0 if self.away else 1 if self._trial_since is not None else self.window.size
        return most - self.active

    @property
    def probe_s(self) -> float:
        """Seconds to wait before it is tried again."""
        return self._probe_s

    def note_answer(self, sent: float, now: float) -> None:
        """It answered at ``now`` what was sent at ``sent``, monotonic seconds."""
        self.window.note_answer(sent, now)
        self.away, self.ailing, self._trial_since = False, False, None
        self._failures, self._since = 0, now
        self._probe_s = FIRST_PROBE_S

    def note_trouble(self, trouble: Trouble, sent: float, now: float) -> None:
        """What was sent at ``sent`` came to nothing at ``now``. Limits say that it is well."""
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
        self._probe_s = min(LONGEST_PROBE_S, 2 * self._probe_s)

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
        """Open all exchanges; one that is out now is met later.

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
        """Of those with room the replica with the fewest requests under way; None where there is none."""
        return min((r for r in self.replicas if r.room > 0), key=lambda r: (r.active, r.number), default=None)

    def has_other(self, replica: Replica) -> bool:
        """Whether another replica is not away."""
        return any(not other.away for other in self.replicas if other is not replica)


# --- how many requests may be under way at once, and how many a minute ---
FIRST_WINDOW = 64
GROWTH = 3
"""Requests added for each answer until the first halving: four times as many each round trip."""
CALM_SHARE = 0.2
"""Share of failing requests up to which failures are taken for one-offs."""
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
