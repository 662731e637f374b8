"""Levels of dials, and what generating cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

# The dial of ready-made pools that have no order: no shape is tested over them, the choice is among them.
UNORDERED = "source"


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
class Quarantined(Rejected):
    """A rejected answer as it came, or a request that failed for good: enough to look it up and to ask again.

    ``attempt`` counts the answers to the slot from 0; ``text`` is what the LLM said, before any cleaning (empty where
    nothing came); ``request_key`` is the ledger's (empty where nothing was asked: the slot's source has no row).
    ``failed`` says that the request failed.
    """

    attempt: int
    request_key: str
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a generation cost. ``requests`` were sent now; ``replayed`` came from the ledger."""

    requests: int = 0
    replayed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    def __sub__(self, other: Usage) -> Usage:
        return Usage(**{each.name: getattr(self, each.name) - getattr(other, each.name) for each in fields(self)})

    @property
    def tokens(self) -> int:
        """Those of prompts and completions together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What an endpoint charges for a million tokens."""

    prompt_per_million: float
    completion_per_million: float
    currency: str = "USD"

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """In ``currency``."""
        return (prompt_tokens * self.prompt_per_million + completion_tokens * self.completion_per_million) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most that may be spent on one ledger, in all runs that use it together; None sets no bound.

    ``tokens`` are those of prompts and completions together, ``cost`` is in the currency of the prices.
    """

    requests: int | None = None
    tokens: int | None = None
    cost: float | None = None

    def __str__(self) -> str:
        named = (("requests", self.requests), ("tokens", self.tokens), ("cost", self.cost))
        return ", ".join(f"{name} {value:,.12g}" for name, value in named if value is not None) or "no bound"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationAccount:
    """What generating took in a run folder, over all its runs and folds, and what was noticed on the way.

    ``requests`` were sent and answered, ``replayed`` answers taken from the ledger instead. ``retries`` counts how
    often a request was sent again after trouble, ``unanswered`` requests that were cut off before the answer came.
    ``cost`` is None where prices are not known. ``by_model`` counts the answers by who gave them, ``by_ending`` by how
    they ended (``length``: at the limit of tokens). ``failed`` counts requests that failed for good, ``rejected``
    answers that became no row, each once however many levels share it, by their reason. ``notes`` say what
    was found out about the endpoint.
    """

    requests: int = 0
    replayed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    currency: str = ""
    retries: int = 0
    unanswered: int = 0
    by_model: Mapping[str, int] = field(default_factory=dict)
    by_ending: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def list_rows(self) -> list[tuple[str, str]]:
        """The account as rows of a table; what did not occur is left out."""
        rows = [
            ("requests answered", f"{self.requests:,}"),
            ("answers by model", _list_counts(self.by_model) if self.by_model else ""),
            ("answers by how they ended", _list_counts(self.by_ending) if self.by_ending else ""),
            ("answers replayed from the ledger", f"{self.replayed:,}"),
            ("tokens in", f"{self.prompt_tokens:,}"),
            ("tokens out", f"{self.completion_tokens:,}"),
            ("cost", "" if self.cost is None else f"{self.cost:,.4f} {self.currency}"),
            ("times sent again after trouble", f"{self.retries:,}"),
            ("requests cut off unanswered", f"{self.unanswered:,}" if self.unanswered else ""),
            ("requests failed for good", _list_counts(self.failed)),
            ("answers rejected", _list_counts(self.rejected)),
        ]
        return [row for row in rows if row[1]] + [("note", note) for note in self.notes]


def _list_counts(counts: Mapping[str, int]) -> str:
    parts = ", ".join(f"{n:,} {reason}" for reason, n in counts.items())
    return f"{sum(counts.values()):,} ({parts})" if parts else "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the LLM draws its words. An empty ``stop`` leaves it to the prompt's form.

    ``min_p`` and ``top_k`` are sent only if set: they are no part of OpenAI's protocol, though vLLM, SGLang,
    and llama.cpp know them.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 48
    stop: tuple[str, ...] = ()
    min_p: float | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p {self.min_p!r}; must be from 0 to 1, or None to leave it out")
        if self.top_k is not None and self.top_k < -1:
            raise ValueError(f"top_k {self.top_k!r}; must be 1 or more, 0 or -1 for all, or None to leave it out")
