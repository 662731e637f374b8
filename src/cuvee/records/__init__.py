"""The values that travel between rooms: frozen, slotted, keyword-only.

Corpora themselves are in ``cuvee.corpus``. Nothing here does work beyond deriving a name or a number
from its own fields.
"""

from cuvee.records.advice import Advice, CellSummary, Confirmation, Gain, ManipulationCheck, Shape, ShapeTest
from cuvee.records.collapse import CollapsePlan, CollapseResult, Course, EarlyWarning, name_measure
from cuvee.records.generation import UNORDERED, Budget, Level, Prices, Rejected, Sampling, Usage
from cuvee.records.measurement import (
    Codes,
    Comparison,
    DatasetMap,
    Estimate,
    ExampleScores,
    Finding,
    Floats,
    Ints,
    Measurement,
    MeasurementPage,
    MetricNote,
    PoolRank,
    Profile,
    Progress,
    Ranking,
    SampleRow,
    Shown,
    Vectors,
)
from cuvee.records.trials import (
    Cell,
    Classifier,
    Composition,
    Draw,
    FailedTrials,
    Kind,
    MixKind,
    Outcome,
    PartCounts,
    Ranker,
    Reader,
    Regime,
    Scored,
    Scores,
    Stage,
    Trial,
    TrialFailure,
    Writer,
    count_failed,
    name_score,
)
