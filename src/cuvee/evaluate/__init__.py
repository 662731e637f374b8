"""How a predictor does on held-out real data."""

from cuvee.evaluate.classification import SCORES, ClassificationReport, judge_proba, report_labels
from cuvee.evaluate.generation import Diversity, Writing, compare_diversity, write_texts
from cuvee.evaluate.judged import ITEM_SCORES, compare_predictors, score_items
from cuvee.evaluate.model import evaluate_model, judge_model
from cuvee.evaluate.retrieval import rank_passages
