"""SetFit: a sentence encoder is tuned on pairs of rows by their labels, then a probe is fitted to its vectors.

Tunstall et al. 2022 (arXiv 2209.11055): rows of one label are to have a cosine of 1, rows of different labels one of 0.
Each row of a batch is set against one row of its own label and one of another, so that both kinds of pairs are as many.
Imports torch and sentence-transformers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from cuvee.corpus import Corpus
from cuvee.encoders import DEFAULT_ENCODER
from cuvee.errors import ConfigError
from cuvee.probe import DEFAULT_L2, fit_objective
from cuvee.records import Codes, Floats
from cuvee.train.encoder import TunedClassifier, load_encoder
from cuvee.train.finetuning import ParameterGroup, merge_lora, prepare_training
from cuvee.train.loop import fine_tune
from cuvee.train.retriever import BiEncoder
from cuvee.train.settings import Training, fill_settings, given

load_setfit = load_encoder  # both trainers make the same kind of classifier


def train_setfit(training: Training) -> TunedClassifier:
    """Tune ``settings.model`` (by default all-MiniLM-L6-v2) for exactly ``settings.steps`` steps, then fit its head.

    The loss of a row is (1 - cos(row, one of its label))^2 + cos(row, one of another label)^2. A row's weight counts
    in that loss, in how often the row is drawn for a pair, and in the head.

    Raises:
        TrainingError: out of memory, or a loss that is not finite.
        MissingDependency, InputError: sentence-transformers or the model cannot be loaded.
        ConfigError: an unknown device, or a setting it has no use for.
    """
    corpus = training.corpus
    settings = fill_settings("setfit", training.settings, model=DEFAULT_ENCODER, device="auto", l2=DEFAULT_L2)
    body = BiEncoder.from_pretrained(settings)
    body.backbone = prepare_training(body.backbone, settings)
    rows = PairedRows(body, corpus, training.loss.weights)
    fine_tune(rows, replace(training, settings=settings, validation=None))  # it stops at no row
    body.backbone = merge_lora(body.backbone)
    head = fit_objective(body.encode(corpus.texts, "passage"), corpus.targets, training.loss, l2=given(settings.l2))
    return TunedClassifier(body, head)


class PairedRows:
    """A sentence encoder with the rows whose pairs it is tuned on, for the training loop.

    Args:
        body: what to tune, with the learning rate in its settings.
        corpus: n rows: text and label, of at least two labels.
        weights: how much more often a row is drawn for a pair, shape (n,), above 0.
    """

    held_out = 0

    def __init__(self, body: BiEncoder, corpus: Corpus, weights: Floats) -> None:
        self._body, self.device, self._texts = body, body.device, corpus.texts
        codes = np.unique(np.array(corpus.targets), return_inverse=True)[1]
        self._order: Codes = np.argsort(codes, kind="stable")  # the rows of a label, one after another, on a line
        ends = np.cumsum(weights[self._order])
        self._ends, self._total = ends, float(ends[-1])
        self._weights = weights
        self._starts = np.zeros(len(codes))  # where each row's stretch of the line begins
        self._starts[self._order] = ends - weights[self._order]
        sizes = np.bincount(codes, weights=weights)
        self._lengths, self._firsts = sizes[codes], (np.cumsum(sizes) - sizes)[codes]  # those of each row's label
        self.module: torch.nn.Module = body.model
        self.groups = (ParameterGroup(tuple(body.model.parameters()), given(body.settings.learning_rate)),)

    def log_p(self, rows: Codes) -> torch.Tensor:
        """Minus the squared errors of each row's two cosines, shape (b,)."""
        alike, other = self.draw_partners(rows)
        wanted, places = np.unique(np.concatenate([rows, alike, other]), return_inverse=True)
        vectors = self._body.embed([self._texts[i] for i in wanted], "passage")
        with torch.autocast(self.device.type, enabled=False):
            own, same, different = vectors[torch.from_numpy(places).to(self.device)].chunk(3)
            return -((1.0 - (own * same).sum(dim=1)) ** 2) - (own * different).sum(dim=1) ** 2

    def draw_partners(self, rows: Codes) -> tuple[Codes, Codes]:
        """For each row another one of its label, and one of another label, shape (b,) each.

        They are drawn from torch's random state, as dropout is. The only row of a label is its own partner.
        """
        u = torch.rand((2, len(rows)), dtype=torch.float64).numpy()
        first, length, weight = self._firsts[rows], self._lengths[rows], self._weights[rows]
        at = first + u[0] * (length - weight)
        at += np.where(at >= self._starts[rows], weight, 0.0)  # past the row itself
        alike = np.where(length > weight * (1 + 1e-9), self._find(at), rows)
        at = u[1] * (self._total - length)
        return alike, self._find(at + np.where(at >= first, length, 0.0))

    def _find(self, at: Floats) -> Codes:
        """The rows whose stretches these places lie in."""
        return self._order[np.minimum(np.searchsorted(self._ends, at, side="right"), len(self._order) - 1)]

    def validate(self) -> float:
        """There are no rows to stop at.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("trainer 'setfit' has no early stopping; leave patience out")
