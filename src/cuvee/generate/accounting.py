"""What became of every slot and every answer: requested = accepted + quarantined + failed. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCounts:
    """Answers that were judged for the slots of a pool; ``received`` is ``accepted`` plus ``rejected``.

    Levels share answers, so the sum over pools counts some of them twice; the ledger has the total.

    Raises:
        ValueError: the numbers do not add up.
    """

    received: int
    accepted: int
    rejected: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.received != self.accepted + sum(self.rejected.values()):
            raise ValueError(
                f"{self.received} answers are not {self.accepted} accepted and {dict(self.rejected)!r} rejected"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """What became of the slots of a pool; ``requested`` is ``accepted`` plus ``quarantined`` plus ``failed``.

    ``accepted`` slots have a row, their own or their substitute's. ``quarantined`` slots have none although answers
    came, for them or for the source they were to paraphrase; ``failed`` ones because a request failed
    for good. ``by_reason`` counts the slots without a row by what was last wrong with them.

    Raises:
        ValueError: the numbers do not add up.
    """

    requested: int
    accepted: int
    quarantined: int
    failed: int
    by_reason: Mapping[str, int]
    answers: AnswerCounts

    def __post_init__(self) -> None:
        without = self.quarantined + self.failed
        if self.requested != self.accepted + without or without != sum(self.by_reason.values()):
            raise ValueError(
                f"{self.requested} requested slots are not {self.accepted} accepted, {self.quarantined} quarantined "
                f"and {self.failed} failed, for the reasons {dict(self.by_reason)!r}"
            )

    def __str__(self) -> str:
        reasons = ", ".join(f"{n} {why}" for why, n in Counter(self.by_reason).most_common())
        return (
            f"{self.requested} requested = {self.accepted} accepted + {self.quarantined} quarantined + "
            f"{self.failed} failed{f' ({reasons})' if reasons else ''}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotEnd:
    """How a slot ended. ``reason`` is None where it has a row; ``failed`` says that a request failed for good."""

    reason: str | None = None
    failed: bool = False


def count_slots(ends: Iterable[SlotEnd], answers: AnswerCounts) -> Accounting:
    """Add up how slots ended."""
    ended = list(ends)
    without = [end for end in ended if end.reason is not None]
    failed = sum(end.failed for end in without)
    return Accounting(
        requested=len(ended),
        accepted=len(ended) - len(without),
        quarantined=len(without) - failed,
        failed=failed,
        by_reason=dict(sorted(Counter(str(end.reason) for end in without).items())),
        answers=answers,
    )


def add_answers(counts: Iterable[AnswerCounts]) -> AnswerCounts:
    """The sum of several counts, reasons in alphabetical order."""
    parts = list(counts)
    rejected: Counter[str] = Counter()
    for part in parts:
        rejected.update(part.rejected)
    return AnswerCounts(
        received=sum(part.received for part in parts),
        accepted=sum(part.accepted for part in parts),
        rejected=dict(sorted(rejected.items())),
    )
