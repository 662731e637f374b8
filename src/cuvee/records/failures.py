"""How many trials failed, and why most often."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cuvee.records.trials import Stage, TrialFailure

LONGEST = 300
"""Letters of a reason that are shown beside a count; the report has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTrials:
    """Failed trials among all that were run.

    Attributes:
        failed: trials that failed.
        trials: that were run, those among them.
        reason: why most of them failed, as the first of these said it.
        stage: where that was.
        times: how many failed there for this reason, whatever the numbers in it.
    """

    failed: int
    trials: int
    reason: str
    stage: Stage
    times: int

    def __str__(self) -> str:
        count = f"{self.failed} of {self.trials} trial{'' if self.trials == 1 else 's'} failed"
        if self.failed == 1:
            return f"{count}: {self.said} ({self.stage})"
        return f"{count}; most often: {self.said} ({self.stage}, {self.times} times)"

    @property
    def said(self) -> str:
        """The reason as one line that is not too long."""
        line = " ".join(self.reason.split())
        return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def count_failed(failures: Sequence[TrialFailure], *, trials: int) -> FailedTrials | None:
    """Count failures; None where there are none.

    Reasons that differ in their numbers only are one: ``took 1.3 GB`` and ``took 0.9 GB``. Of several that are equally
    frequent it is the first.

    Args:
        failures: of failed trials.
        trials: how many were run, these among them.
    """
    if not failures:
        return None
    kinds = [(each.stage, re.sub(r"\d+", "0", each.reason)) for each in failures]
    kind, times = Counter(kinds).most_common(1)[0]
    first = failures[kinds.index(kind)]
    return FailedTrials(failed=len(failures), trials=trials, reason=first.reason, stage=first.stage, times=times)
