"""How a predictor does on held-out real data."""

from cuvee.evaluate.classification import SCORES, Score, score_proba

__all__ = ["SCORES", "Score", "score_proba"]
