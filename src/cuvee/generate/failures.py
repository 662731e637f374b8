"""Requests that failed for good: a value beside the answers, never a row that is silently missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cuvee.generate.calls import Answer, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What came of a request that the endpoint refuses for good, or keeps failing on while it answers others.

    ``reason`` is short and the same for all failures of a kind ("HTTP 400"), so that it can be counted; ``message`` is
    the last thing the endpoint said, with no key in it. ``tries`` counts how often the request was sent.
    ``replayed`` failures come from the ledger.
    """

    reason: str
    message: str = ""
    tries: int = 1
    replayed: bool = field(default=False, compare=False)


Outcome = Answer | Failure
"""What comes of a request."""
OnAnswer = Callable[[Request, Answer], None]
"""Is told of each answer."""
More = Callable[[Mapping[Request, Outcome]], Sequence[Request]]
"""``more(outcomes)``: what to ask beside, given all that has come so far."""
