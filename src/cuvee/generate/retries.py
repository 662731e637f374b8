"""How long to wait before asking again, and when to give up."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from cuvee.errors import EndpointUnreachable
from cuvee.generate.calls import Endpoint

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
REFUSED_AT_START_S = 3.0
"""How long a connection that never once worked is tried."""
MOST_TRIES = 8
"""How often a request is sent that fails while the endpoint answers others."""
PROBE_S = 2.0
"""After so long without an answer, with requests failing, the endpoint is asked for a sign of life; and so often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A failure that may pass.

    ``kind`` is the same for all of a kind. ``first`` is when this request was first sent (monotonic seconds), ``sent``
    when it was last sent, if that was later, ``after`` what the server asked to wait, ``limited`` a 429, ``refused`` a
    connection that was not made, ``timed_out`` no reply in time, ``cut_off`` that the request was sent and may have
    been worked on. ``failures`` counts the request's own: the endpoint answered another request in between.
    """

    kind: str
    reason: str
    first: float
    sent: float | None = None
    after: float | None = None
    limited: bool = False
    refused: bool = False
    timed_out: bool = False
    cut_off: bool = False
    failures: int = 1

    def since(self, earlier: Trouble, answered: float) -> Trouble:
        """This trouble, as the continuation of an earlier one.

        Args:
            earlier: of the same request.
            answered: when the latest request was sent that the endpoint answered.
        """
        own = answered > (earlier.sent or earlier.first) and not self.limited
        return replace(self, first=earlier.first, sent=self.first, failures=earlier.failures + own)


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

    def is_hopeless(self, trouble: Trouble) -> bool:
        """Whether a request has failed often enough, by itself, to be given up."""
        failing_s = time.monotonic() - trouble.first
        return trouble.failures >= MOST_TRIES or (trouble.failures > 1 and failing_s >= self._endpoint.give_up_s)

    def wait_seconds(self, trouble: Trouble, tries: int) -> float:
        """Seconds to wait before a request is tried again.

        Args:
            trouble: its last one.
            tries: how often it has been sent.

        Raises:
            EndpointUnreachable: the endpoint has not answered anything for too long.
        """
        now = time.monotonic()
        silent = now - (trouble.first if self._last_success is None else max(self._last_success, trouble.first))
        limit = self._endpoint.give_up_s
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
        advice = (
            "lower concurrency, or raise give_up_s" if trouble.limited else "is the server running, and base_url right?"
        )
        return EndpointUnreachable(
            f"no usable answer from {self._endpoint.shown_url} for {silent:.0f} s ({trouble.reason}{asked}); "
            f"{advice} (all answers so far are kept)"
        )


def retry_after_seconds(header: str | None, date: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or an HTTP date.

    Args:
        header: the header's value.
        date: the reply's Date header; a Retry-After date is measured against it, so clocks need not agree.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        then, now = _http_date(header), _http_date(date)
    if then is None:
        return None
    return max(0.0, (then - (now or datetime.now(UTC))).total_seconds())


def _http_date(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
