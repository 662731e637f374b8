"""What a ledger's answers cost."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from cuvee.generate.budgets import Prices
from cuvee.generate.ledger import KnownAs, Ledger, Tally
from cuvee.generate.masking import LOCAL
from cuvee.records import Usage
from cuvee.records.generation import Generation

RATE_OVER_S = 10.0
"""The last seconds over which requests a second are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """What several endpoints in one ledger charge, in one currency; models on this machine charge nothing.

    ``default`` is for all but ``others``: (identity, model) of an endpoint -> its prices.

    Raises:
        ValueError: the prices are in several currencies.
    """

    default: Prices
    others: Mapping[KnownAs, Prices] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len({self.default.currency, *(prices.currency for prices in self.others.values())}) > 1:
            raise ValueError(f"others {dict(self.others)!r}; give all prices in {self.default.currency}")

    @property
    def currency(self) -> str:
        """Of all prices."""
        return self.default.currency

    def cost(self, endpoint: str, model: str, prompt_tokens: int, completion_tokens: int) -> float:
        """Of these tokens, at the endpoint of this identity."""
        if endpoint.startswith(LOCAL):
            return 0.0
        return self.others.get((endpoint, model), self.default).cost(prompt_tokens, completion_tokens)


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
    model at each endpoint. ``replayed`` answers were taken from it instead of asked for again, ``retries`` sent again
    after trouble that passed; ``unanswered`` requests were cut off. ``notes`` were found out about the endpoint,
    ``unverified`` parameters it may have ignored.
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


Charges = Mapping[str, Prices] | Prices | Tariff
"""Prices of each model, one for all, or those of several endpoints."""


def summarise(ledger: Ledger, prices: Charges | None = None) -> LedgerSummary:
    """Count a ledger's answers, tokens and failures.

    Args:
        ledger: to be counted.
        prices: of each model, one for all, or a tariff; None leaves the cost open.

    Raises:
        ValueError: a model of the ledger has no price, or the prices are in several currencies.
    """
    tallies = ledger.tallies()
    cost = None if prices is None else sum((_cost(part, prices) for part in tallies), start=0.0)
    if isinstance(prices, Mapping) and len({price.currency for price in prices.values()}) > 1:
        raise ValueError(f"prices {prices!r} are in several currencies, which do not add up; give one")
    by_model: Counter[str] = Counter()
    by_finish_reason: Counter[str] = Counter()
    for part in tallies:
        by_model[part.model] += part.requests
        by_finish_reason[part.finish_reason] += part.requests
    failures = Counter(failure.reason for failure in ledger.failures().values())
    sessions = ledger.sessions()
    return LedgerSummary(
        requests=sum(part.requests for part in tallies),
        prompt_tokens=sum(part.prompt_tokens for part in tallies),
        completion_tokens=sum(part.completion_tokens for part in tallies),
        cost=cost,
        by_model=dict(sorted(by_model.items())),
        by_finish_reason=dict(sorted(by_finish_reason.items())),
        failures=failures.total(),
        by_failure=dict(sorted(failures.items())),
        by_endpoint=tuple(_spend_by_endpoint(tallies, prices)),
        replayed=sum(session.replayed for session in sessions),
        retries=sum(session.retries for session in sessions),
        unanswered=sum(session.unanswered for session in sessions),
        notes=tuple(dict.fromkeys(note for session in sessions for note in session.notes)),
        unverified=tuple(dict.fromkeys(name for session in sessions for name in session.unverified)),
    )


def _spend_by_endpoint(tallies: Iterable[Tally], prices: Charges | None) -> Iterator[ModelSpending]:
    parts: dict[KnownAs, list[Tally]] = {}
    for tally in tallies:
        parts.setdefault((tally.endpoint, tally.model), []).append(tally)
    for (endpoint, model), mine in parts.items():
        yield ModelSpending(
            endpoint=endpoint,
            model=model,
            requests=sum(tally.requests for tally in mine),
            prompt_tokens=sum(tally.prompt_tokens for tally in mine),
            completion_tokens=sum(tally.completion_tokens for tally in mine),
            cost=None if prices is None else sum((_cost(tally, prices) for tally in mine), start=0.0),
        )


def account_generation(ledger: Ledger, prices: Prices | Tariff | None, rejected: Iterable[str]) -> Generation:
    """What generating took with a ledger, of which all that is in it is part.

    Args:
        ledger: to be counted.
        prices: None leaves the cost open.
        rejected: the reason of each rejected answer.
    """
    found = summarise(ledger, prices)
    return Generation(
        requests=found.requests,
        replayed=found.replayed,
        prompt_tokens=found.prompt_tokens,
        completion_tokens=found.completion_tokens,
        cost=found.cost,
        currency=prices.currency if prices is not None else "",
        retries=found.retries,
        unanswered=found.unanswered,
        failed=found.by_failure,
        rejected=dict(Counter(rejected).most_common()),
        unverified=found.unverified,
        notes=(*found.notes, *(_tell_spending(found.by_endpoint) if len(found.by_endpoint) > 1 else ())),
    )


def _tell_spending(parts: Iterable[ModelSpending]) -> Iterator[str]:
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
        prices: None leaves the cost out.
        clock: seconds.
    """

    def __init__(
        self, ledger: Ledger, prices: Prices | Tariff | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger = ledger
        self._prices = prices
        self._clock = clock
        self._before = ledger.totals()
        self._cost_before = 0.0 if prices is None else sum((_cost(t, prices) for t in ledger.tallies()), start=0.0)
        self._opened = ledger.counts_by()
        self._seen: deque[tuple[float, int]] = deque([(clock(), ledger.counts().requests)])

    def __call__(self) -> str:
        """``12.3 req/s, 4,567+890 tokens, 0.0123 USD`` (prompts + answers); may be called from any thread."""
        prompt, completion, cost, requests = self._before.prompt_tokens, self._before.completion_tokens, 0.0, 0
        for (endpoint, model), now in self._ledger.counts_by().items():
            then = self._opened.get((endpoint, model), Usage())
            new = (now.prompt_tokens - then.prompt_tokens, now.completion_tokens - then.completion_tokens)
            prompt, completion, requests = prompt + new[0], completion + new[1], requests + now.requests
            cost += 0.0 if self._prices is None else _charge(self._prices, endpoint, model, *new)
        parts = [f"{rate:.1f} req/s"] if (rate := self._rate(requests)) else []
        parts.append(f"{prompt:,}+{completion:,} tokens")
        if self._prices is not None:
            parts.append(f"{self._cost_before + cost:.4f} {self._prices.currency}")
        return ", ".join(parts)

    def _rate(self, requests: int) -> float:
        now = self._clock()
        self._seen.append((now, requests))
        while len(self._seen) > 2 and self._seen[1][0] <= now - RATE_OVER_S:
            self._seen.popleft()
        then, before = self._seen[0]
        return (requests - before) / (now - then) if now > then else 0.0


def _cost(part: Tally, prices: Charges) -> float:
    return _charge(prices, part.endpoint, part.model, part.prompt_tokens, part.completion_tokens)


def _charge(prices: Charges, endpoint: str, model: str, prompt_tokens: int, completion_tokens: int) -> float:
    if isinstance(prices, Tariff):
        return prices.cost(endpoint, model, prompt_tokens, completion_tokens)
    price = prices if isinstance(prices, Prices) else prices.get(model)
    if price is None:
        raise ValueError(f"prices {prices!r} lack model {model!r}, which this ledger paid for")
    return price.cost(prompt_tokens, completion_tokens)
