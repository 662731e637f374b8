"""How a predictor does on held-out real data."""

from cuvee.evaluate.classification import SCORES, Score, evaluate_model, score_proba

__all__ = ["SCORES", "Score", "evaluate_model", "score_proba"]
