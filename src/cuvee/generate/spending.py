"""What a ledger's answers cost."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from cuvee.generate.budgets import Prices
from cuvee.generate.ledger import KnownAs, Ledger, Tally

RATE_OVER_S = 10.0
"""The last seconds over which requests a second are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpending:
    """What one model at one endpoint answered, and what it cost (None without prices)."""

    endpoint: str
    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSummary:
    """All answers a ledger holds: each was paid for once, however often it was used.

    ``cost`` is in the currency of the prices, and None without them. ``failures`` counts requests that failed
    for good, which are not among ``requests``; ``by_failure`` counts them by their reason. ``by_endpoint`` has each
    model at each endpoint. ``replayed`` answers were taken from it instead of asked for again, ``retries`` counts how
    often a request was sent again after trouble; ``unanswered`` requests were cut off. ``notes`` were found out about
    the endpoint, ``unverified`` parameters it may have ignored. ``rejected`` counts answers that became no row, each
    once, by their reason, where the pools are known.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    by_model: Mapping[str, int]
    by_finish_reason: Mapping[str, int]
    failures: int
    by_failure: Mapping[str, int]
    by_endpoint: tuple[ModelSpending, ...] = ()
    replayed: int = 0
    retries: int = 0
    unanswered: int = 0
    notes: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    rejected: Mapping[str, int] = field(default_factory=dict)


def summarise(*ledgers: Ledger, prices: Prices | None = None) -> LedgerSummary:
    """Count the answers, tokens and failures of a ledger, or of several together.

    Args:
        ledgers: to be counted.
        prices: of all that was answered; None leaves the cost open.
    """
    tallies = [tally for ledger in ledgers for tally in ledger.tallies()]
    by_endpoint = tuple(_spend_by_endpoint(tallies, prices))
    by_model: Counter[str] = Counter()
    by_finish_reason: Counter[str] = Counter()
    for part in tallies:
        by_model[part.model] += part.requests
        by_finish_reason[part.finish_reason] += part.requests
    failures = Counter(failure.reason for ledger in ledgers for failure in ledger.failures().values())
    sessions = [session for ledger in ledgers for session in ledger.sessions()]
    return LedgerSummary(
        requests=sum(part.requests for part in by_endpoint),
        prompt_tokens=sum(part.prompt_tokens for part in by_endpoint),
        completion_tokens=sum(part.completion_tokens for part in by_endpoint),
        cost=None if prices is None else sum((part.cost or 0.0 for part in by_endpoint), start=0.0),
        by_model=dict(sorted(by_model.items())),
        by_finish_reason=dict(sorted(by_finish_reason.items())),
        failures=failures.total(),
        by_failure=dict(sorted(failures.items())),
        by_endpoint=by_endpoint,
        replayed=sum(session.replayed for session in sessions),
        retries=sum(session.retries for session in sessions),
        unanswered=sum(session.unanswered for session in sessions),
        notes=tuple(dict.fromkeys(note for session in sessions for note in session.notes)),
        unverified=tuple(dict.fromkeys(name for session in sessions for name in session.unverified)),
    )


def _spend_by_endpoint(tallies: Iterable[Tally], prices: Prices | None) -> Iterator[ModelSpending]:
    parts: dict[KnownAs, list[Tally]] = {}
    for tally in tallies:
        parts.setdefault((tally.endpoint, tally.model), []).append(tally)
    for (endpoint, model), mine in parts.items():
        prompt, completion = sum(t.prompt_tokens for t in mine), sum(t.completion_tokens for t in mine)
        yield ModelSpending(
            endpoint=endpoint,
            model=model,
            requests=sum(tally.requests for tally in mine),
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost=None if prices is None else prices.cost(prompt, completion),
        )


def tell_spending(parts: Iterable[ModelSpending]) -> Iterator[str]:
    """One sentence for each of several models."""
    for part in parts:
        cost = f", {part.cost:.4f}" if part.cost else ""
        tokens = f"{part.prompt_tokens:,}+{part.completion_tokens:,} tokens"
        yield f"{part.model} at {part.endpoint} answered {part.requests:,} of the requests ({tokens}{cost})"


def list_notes(notes: Iterable[str], unverified: Iterable[str]) -> list[str]:
    """What a reader should know of an endpoint, one sentence each."""
    names = ", ".join(unverified)
    return [
        *notes,
        *([f"nothing shows that the endpoint heeds {names}: it may ignore what it does not know"] if names else []),
    ]


class Meter:
    """Says what is being spent while a ledger is written: requests a second, and all tokens and cost so far.

    Args:
        ledger: whose totals count, with what was in it before.
        part: what the numbers are of, where that is not all: ``fold 2``.
        prices: None leaves the cost out.
        clock: seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        prices: Prices | None = None,
        clock: Callable[[], float] = time.monotonic,
        part: str = "",
    ) -> None:
        self._ledger = ledger
        self._prices = prices
        self._part = f"{part}: " if part else ""
        self._clock = clock
        self._before = ledger.totals()
        self._opened = ledger.counts()
        self._seen: deque[tuple[float, int]] = deque([(clock(), self._opened.requests)])

    def __call__(self) -> str:
        """``12.3 req/s, 4,567+890 tokens, 0.0123 USD`` (prompts + answers); may be called from any thread."""
        now, then, before = self._ledger.counts(), self._opened, self._before
        prompt = before.prompt_tokens + now.prompt_tokens - then.prompt_tokens
        completion = before.completion_tokens + now.completion_tokens - then.completion_tokens
        parts = [f"{rate:.1f} req/s"] if (rate := self._rate(now.requests)) else []
        parts.append(f"{prompt:,}+{completion:,} tokens")
        if self._prices is not None:
            parts.append(f"{self._prices.cost(prompt, completion):.4f} {self._prices.currency}")
        return self._part + ", ".join(parts)

    def _rate(self, requests: int) -> float:
        now = self._clock()
        self._seen.append((now, requests))
        while len(self._seen) > 2 and self._seen[1][0] <= now - RATE_OVER_S:
            self._seen.popleft()
        then, before = self._seen[0]
        return (requests - before) / (now - then) if now > then else 0.0
