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
"""How often a request is sent that fails while others are answered, unless that takes less than its patience."""
OWN_PATIENCE_S = 60.0
"""How long a request must have failed before it is given up, with others being answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A failure that may pass.

    ``kind`` is the same for all of a kind. ``first`` is when this request first failed (monotonic seconds), ``after``
    what the server asked to wait, ``limited`` a 429, ``refused`` a connection that was not made, ``timed_out`` no
    reply in time, ``cut_off`` that the request was sent and may have been worked on. ``failures`` counts the request's
    troubles so far, limits aside: they say nothing of it.
    """

    kind: str
    reason: str
    first: float
    after: float | None = None
    limited: bool = False
    refused: bool = False
    timed_out: bool = False
    cut_off: bool = False
    failures: int = 1

    def since(self, earlier: Trouble) -> Trouble:
        """This trouble, as the continuation of an earlier one."""
        return replace(self, first=earlier.first, failures=earlier.failures + (not self.limited))


class Patience:
    """One for all requests to an endpoint: it knows when the endpoint last answered."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._last_success: float | None = None
        self._last_good = -math.inf
        self._jitter = random.Random()  # spreads retries; touches no data

    def note_success(self, sent: float) -> None:
        """The endpoint has just answered a request sent at ``sent``, monotonic seconds."""
        self._last_success = time.monotonic()
        self._last_good = max(self._last_good, sent)

    def wait_seconds(self, trouble: Trouble, tries: int) -> float | None:
        """Seconds to wait before a request is tried again; None if the endpoint answers others and it is given up.

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
        return None if self._is_hopeless(trouble, now - trouble.first, silent) else wait

    def _is_hopeless(self, trouble: Trouble, failing_s: float, silent: float) -> bool:
        """Whether a request has failed often and long enough, while others sent well after it were, and are, answered.

        Answers to what was sent before it say nothing: an outage may have begun in between.
        """
        patience = min(self._endpoint.give_up_s, OWN_PATIENCE_S)
        if trouble.limited or self._last_good - trouble.first < patience / 2 or silent >= patience / 2:
            return False
        if failing_s >= self._endpoint.give_up_s:
            return trouble.failures > 1
        return failing_s >= patience and trouble.failures >= MOST_TRIES

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
