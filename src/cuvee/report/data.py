"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cuvee.records import Advice, Cell, Composition, FailedTrials, Level, Measurement, TrialFailure, name_score
from cuvee.records.generation import Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything the page shows; only ``title``, ``advice`` and ``levels`` are needed.

    Levels are keyed ``dial=name`` in ``measurements``, ``samples`` and ``rejected``; the real training data
    is ``real``.
    """

    title: str
    advice: Advice
    levels: Sequence[Level]
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    trainer: str = ""
    """of the grid; the best cell's where left out"""
    shape_share: float | None = None
    """at which levels are compared; the shape tests' where left out"""
    descriptive_shares: Sequence[float] = ()
    delta: float | None = None
    """the smallest gain that counts; the shape tests' where left out"""
    failures: Sequence[TrialFailure] = ()
    failed: FailedTrials | None = None
    """how many trials failed, of how many, and why most often; None where none did"""
    generation: Generation | None = None
    """what generating took in the run folder, over all runs and folds; None where pools were ready-made"""
    crossfit: int = 0
    """folds of a cross-fitted study, whose numbers are of all folds; 0 where there is one split"""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """stage -> seconds of all runs, as they were when the page was written"""
    composition: Composition | None = None
    """of the recommended blend, as realised"""
    samples: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    """level key -> some rows of its pool, label and text"""
    written: Mapping[Cell, Mapping[str, float]] = field(default_factory=dict)
    """cell -> diversity of what its models wrote, and of the real completions (``.real``), as means over its trials"""
    rejected: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """level key -> reason -> rejected answers"""
    settings: Mapping[str, str] = field(default_factory=dict)
    """what was chosen, in words: data, model, seeds"""
    access_log: Sequence[str] = ()
    """who read the locked test, and what the leak guard removed"""
    notes: Mapping[str, str] = field(default_factory=dict)
    """level key -> a remark on its pool"""
    study_yaml: str = ""
    """the resolved study, to run it again"""
    version: str = ""

    @property
    def score(self) -> str:
        """What cells are compared by, in words."""
        return name_score(self.advice.score)

    @property
    def rows_unit(self) -> str:
        """What the number of real rows of a cell counts: tasks other than classification have no labels."""
        return "real rows a label" if self.advice.score == "accuracy" else "real rows"

    @property
    def folds(self) -> int:
        """In how many folds rows were held out; 0 where there is one split with a locked test."""
        return self.crossfit or (0 if self.advice.confirmation is None else self.advice.confirmation.folds)

    @property
    def level_ranks(self) -> dict[str, list[str]]:
        """Dial -> its level names from least to most diverse as expected, dials as they first come."""
        ranks: dict[str, list[str]] = {}
        for level in sorted(self.levels, key=lambda level: level.rank):
            ranks.setdefault(level.dial, []).append(level.name)
        dials = dict.fromkeys(level.dial for level in self.levels)
        return {dial: ranks[dial] for dial in dials}

    @property
    def grid_trainer(self) -> str:
        """The trainer that the choice was made with."""
        best = self.advice.best
        return self.trainer or (best.cell.trainer if best is not None else "probe")

    def is_compared(self, cell: Cell) -> bool:
        """Whether a cell has the trainer, the loss and the number of real rows that the choice was made with."""
        best = self.advice.best
        if cell.trainer != self.grid_trainer or best is None:
            return cell.trainer == self.grid_trainer
        own = cell.loss == best.cell.loss or (cell.loss == "ce" and cell.kind in ("real-only", "real-duplicated"))
        return own and cell.rows_per_label == best.cell.rows_per_label

    @property
    def tested_share(self) -> float:
        """The share at which levels are compared."""
        if self.shape_share is not None:
            return self.shape_share
        shapes, best = self.advice.shapes, self.advice.best
        return shapes[0].share if shapes else best.cell.share if best is not None else 0.75

    @property
    def counts_from(self) -> float:
        """The smallest gain that counts, as a fraction."""
        if self.delta is not None:
            return self.delta
        return self.advice.shapes[0].delta if self.advice.shapes else 0.01
