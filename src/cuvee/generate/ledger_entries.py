"""What a ledger holds besides answers and failures."""

from __future__ import annotations

from dataclasses import dataclass

KnownAs = tuple[str, str]
"""Identity of an endpoint and its model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a client met from its first request to its end, beside answers and failures.

    ``replayed`` answers were taken from the ledger, ``retries`` sent again after trouble that passed; ``unanswered``
    requests were sent and cut off. ``notes`` were found out about the endpoint, ``unverified`` parameters it may have
    ignored.
    """

    endpoint: str
    model: str
    replayed: int = 0
    retries: int = 0
    unanswered: int = 0
    notes: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Answers of one model at one endpoint that ended for one reason, and their tokens."""

    endpoint: str
    model: str
    finish_reason: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
