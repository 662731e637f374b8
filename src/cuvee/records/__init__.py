"""The values that travel between rooms: frozen, slotted, keyword-only.

Corpora themselves are in ``cuvee.corpus``. Nothing here does work beyond deriving a name or a number
from its own fields.
"""

from cuvee.records.advice import (
    Advice,
    CellSummary,
    Confirmation,
    Gain,
    ManipulationCheck,
    Optimism,
    Shape,
    ShapeTest,
    TwoLines,
)
from cuvee.records.generation import Budget, Level, Prices, Rejected, Sampling, Usage
from cuvee.records.measurement import Estimate, Measurement, Vectors
from cuvee.records.parts import (
    Added,
    Comparison,
    DatasetMap,
    Decomposition,
    ExampleScores,
    MeasurementPage,
    MetricNote,
    Profile,
    SampleRow,
)
from cuvee.records.trials import (
    Cell,
    Composition,
    Draw,
    FailedTrials,
    Kind,
    PartCounts,
    Regime,
    Scores,
    Stage,
    Trial,
    TrialFailure,
    count_failed,
    name_score,
)

__all__ = [
    "Added", "Advice", "Budget", "Cell", "CellSummary", "Comparison", "Composition", "Confirmation", "DatasetMap",
    "Decomposition", "Draw", "Estimate", "ExampleScores", "FailedTrials", "Gain", "Kind", "Level", "ManipulationCheck",
    "Measurement", "MeasurementPage", "MetricNote", "Optimism", "PartCounts", "Prices", "Profile", "Regime", "Rejected",
    "SampleRow", "Sampling", "Scores", "Shape", "ShapeTest", "Stage", "Trial", "TrialFailure", "TwoLines", "Usage",
    "Vectors", "count_failed", "name_score",
]  # fmt: skip
