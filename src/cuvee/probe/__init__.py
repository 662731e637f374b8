"""Multinomial logistic regression on vectors: label agreement, checkers, the cheap trainer.

Trained by mini-batch gradient descent with Nesterov momentum for a *fixed number of steps*, so that "equal
optimiser steps" means the same thing here as for a fine-tuned model, and so that training draws differ by
their seed alone. numpy only; the same arguments give the same bits.
"""

from cuvee.probe.descent import Objective, Stage
from cuvee.probe.fit import encode_targets, fit_objective, fit_probe
from cuvee.probe.folds import cross_validated_proba, stratified_folds
from cuvee.probe.model import ProbeModel

__all__ = [
    "Objective",
    "ProbeModel",
    "Stage",
    "cross_validated_proba",
    "encode_targets",
    "fit_objective",
    "fit_probe",
    "stratified_folds",
]
