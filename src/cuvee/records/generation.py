"""Levels of dials, and what generating cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One setting of a dial. ``rank`` 0 is the least diverse as expected, before anything is measured."""

    dial: str
    name: str
    rank: int

    @property
    def key(self) -> str:
        """``dial=name``, unique within a study."""
        return f"{self.dial}={self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """An answer of the LLM that did not become an example, and why."""

    slot: str
    reason: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a generation cost. ``requests`` were sent now; ``replayed`` came from the ledger."""

    requests: int = 0
    replayed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, other: Usage) -> Usage:
        """The sum of two usages."""
        return Usage(
            requests=self.requests + other.requests,
            replayed=self.replayed + other.replayed,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )
