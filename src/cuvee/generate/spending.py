"""What a ledger's answers cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from cuvee.generate.budgets import Prices
from cuvee.generate.ledger import Ledger, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSummary:
    """All answers a ledger holds: each was paid for once, however often it was used.

    ``cost`` is in the currency of the prices, and None without them. ``failures`` counts requests that failed
    for good, which are not among ``requests``; ``by_failure`` counts them by their reason.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    by_model: Mapping[str, int]
    by_finish_reason: Mapping[str, int]
    failures: int
    by_failure: Mapping[str, int]


def summarise(ledger: Ledger, prices: Mapping[str, Prices] | Prices | None = None) -> LedgerSummary:
    """Count a ledger's answers, tokens and failures.

    Args:
        ledger: to be counted.
        prices: of each model, or one for all; None leaves the cost open.

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
    return LedgerSummary(
        requests=sum(part.requests for part in tallies),
        prompt_tokens=sum(part.prompt_tokens for part in tallies),
        completion_tokens=sum(part.completion_tokens for part in tallies),
        cost=cost,
        by_model=dict(sorted(by_model.items())),
        by_finish_reason=dict(sorted(by_finish_reason.items())),
        failures=failures.total(),
        by_failure=dict(sorted(failures.items())),
    )


def _cost(part: Tally, prices: Mapping[str, Prices] | Prices) -> float:
    price = prices if isinstance(prices, Prices) else prices.get(part.model)
    if price is None:
        raise ValueError(f"prices {prices!r} lack model {part.model!r}, which this ledger paid for")
    return price.cost(part.prompt_tokens, part.completion_tokens)
