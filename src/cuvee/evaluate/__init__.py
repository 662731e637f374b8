"""How a predictor does on held-out real data."""

from cuvee.evaluate.classification import (
    SCORES,
    ClassificationReport,
    ClassifiedItems,
    Classifier,
    Confusion,
    LabelScores,
    Score,
    report_labels,
    score_proba,
)
from cuvee.evaluate.comparing import PairedScores, compare_predictors
from cuvee.evaluate.generation import (
    Diversity,
    Watch,
    Writer,
    Writing,
    WrittenItems,
    compare_diversity,
    write_texts,
)
from cuvee.evaluate.judged import ITEM_SCORES, Judged, score_items
from cuvee.evaluate.model import evaluate_model, judge_model
from cuvee.evaluate.retrieval import RankedItems, Ranker, Ranking, rank_passages

__all__ = [
    "ITEM_SCORES",
    "SCORES",
    "ClassificationReport",
    "ClassifiedItems",
    "Classifier",
    "Confusion",
    "Diversity",
    "Judged",
    "LabelScores",
    "PairedScores",
    "RankedItems",
    "Ranker",
    "Ranking",
    "Score",
    "Watch",
    "Writer",
    "Writing",
    "WrittenItems",
    "compare_diversity",
    "compare_predictors",
    "evaluate_model",
    "judge_model",
    "rank_passages",
    "report_labels",
    "score_items",
    "score_proba",
    "write_texts",
]
