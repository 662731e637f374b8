"""Replicas of one endpoint: who gets the next request, who is set aside, and when it is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from cuvee.generate.calls import Endpoint
from cuvee.generate.compatibility import Compatibility
from cuvee.generate.exchange import Exchange
from cuvee.generate.pacing import Window
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
        """Lanes that may be opened; below 0, how many are too many. None may while it is away, one on trial."""
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


class Fleet:
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
