"""How long to wait before asking again, and when to give up."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from cuvee.errors import EndpointError, EndpointUnreachable
from cuvee.generate.calls import Endpoint

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
REFUSED_AT_START_S = 3.0
"""How long a connection that never once worked is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A failure that may pass.

    ``first`` is when this request first failed (monotonic seconds), ``after`` what the server
    asked to wait, ``limited`` a 429, ``refused`` a connection that was not made, ``timed_out`` no reply in time,
    ``cut_off`` that the request was sent and may have been worked on.
    """

    reason: str
    first: float
    after: float | None = None
    limited: bool = False
    refused: bool = False
    timed_out: bool = False
    cut_off: bool = False

    def since(self, earlier: Trouble) -> Trouble:
        """This trouble, as the continuation of an earlier one."""
        return replace(self, first=earlier.first)


class Patience:
    """One for all requests to an endpoint: it knows when the endpoint last answered."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._last_success: float | None = None
        self._jitter = random.Random()  # spreads retries; touches no data

    def note_success(self) -> None:
        """The endpoint has just answered."""
        self._last_success = time.monotonic()

    def wait_seconds(self, trouble: Trouble, tries: int) -> float:
        """Seconds to wait before the next try, after ``tries`` earlier waits.

        Raises:
            EndpointUnreachable: the endpoint has not answered anything for too long.
            EndpointError: it answers others, and keeps failing on this request.
        """
        now = time.monotonic()
        silent = now - (trouble.first if self._last_success is None else max(self._last_success, trouble.first))
        limit = self._endpoint.give_up_s
        if trouble.refused and self._last_success is None:
            limit = min(limit, REFUSED_AT_START_S)
        if trouble.after is not None:
            wait = trouble.after + self._jitter.uniform(0, 0.05)
        else:  # the last try comes when the patience ends, not after
            backoff = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**tries) * self._jitter.uniform(0.5, 1.0)
            wait = min(backoff, max(0.05, limit - silent))
        if silent >= limit or (trouble.after is not None and silent + wait > limit):
            raise self._unreachable(trouble, silent)
        if now - trouble.first >= limit and silent < limit / 2 and not trouble.limited:
            raise EndpointError(
                f"{self._endpoint.shown_url} answers other requests and has failed on one for {limit:g} s "
                f"({trouble.reason}); all answers so far are kept"
            )
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
