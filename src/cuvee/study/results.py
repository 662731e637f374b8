"""What a study gives: its result, and what became of its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cuvee.characters import to_html
from cuvee.corpus import Corpus
from cuvee.recommend import advice_to_text
from cuvee.records import Advice, Composition, FailedTrials, Measurement, Trial, TrialFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """A finished study: its advice with the evidence, and where everything lies."""

    name: str
    advice: Advice
    measurements: Mapping[str, Measurement]
    pools: Mapping[str, Corpus]
    blend: Corpus
    composition: Composition
    folder: Path
    report: Path
    seconds: Mapping[str, float]
    failed: FailedTrials | None = None

    def __str__(self) -> str:
        lost = () if self.advice.sensitivity is None else self.advice.sensitivity.lost
        lines = [f"{self.name}: {advice_to_text(self.advice)}", *map(str, lost)]
        lines += [] if self.failed is None else [str(self.failed)]
        return "\n".join([*lines, f"report: {self.report}", f"blend: {self.folder / 'blend'}"])

    def _repr_html_(self) -> str:
        return (
            f"<p><b>{to_html(self.name)}</b>: {to_html(self.advice.sentence)}</p>"
            f"<p>report: <code>{to_html(str(self.report))}</code></p>"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """What became of the trials, as far as it is shown.

    Attributes:
        failed: how many failed and why most often; None where none did.
        failures: those that failed.
        trials: those that did not.
    """

    failed: FailedTrials | None = None
    failures: Sequence[TrialFailure] = ()
    trials: Sequence[Trial] = ()
