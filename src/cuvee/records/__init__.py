"""The values that travel between rooms: frozen, slotted, keyword-only.

Corpora themselves are in ``cuvee.corpus``. Nothing here does work beyond deriving a name or a number
from its own fields.
"""

from cuvee.records.advice import Advice, CellSummary, Confirmation, Gain, ManipulationCheck, Shape, ShapeTest, TwoLines
from cuvee.records.collapse import CollapsePlan, CollapseResult, Course, EarlyWarning, name_measure
from cuvee.records.generation import UNORDERED, Budget, Level, Prices, Rejected, Sampling, Usage
from cuvee.records.measurement import Codes, Estimate, Finding, Floats, Ints, Measurement, Shown, Vectors
from cuvee.records.models import Classifier, Ranker, Reader, Scored, Writer
from cuvee.records.parts import (
    Comparison,
    DatasetMap,
    ExampleScores,
    MeasurementPage,
    MetricNote,
    PoolRank,
    Profile,
    Ranking,
    SampleRow,
)
from cuvee.records.trials import (
    Cell,
    Composition,
    Draw,
    FailedTrials,
    Kind,
    MixKind,
    PartCounts,
    Regime,
    Scope,
    Scores,
    Stage,
    Trial,
    TrialFailure,
    count_failed,
    name_score,
)
