"""The cheap trainer: logistic regression on the vectors of a frozen encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cuvee.encoders import BUILT_IN, Encoder, load_encoder, split_name
from cuvee.errors import ConfigError, InputError
from cuvee.inputs import bounded_memory, explain_damage, whole_file
from cuvee.probe import DEFAULT_L2, ProbeModel, fit_objective
from cuvee.train.settings import PREDICTOR_FILE, Description, Training, TrainSettings, write_description

_WEIGHTS_FILE = "probe.npz"


@dataclass(frozen=True, slots=True)
class ProbePredictor:
    """A trained probe and the encoder it stands on."""

    model: ProbeModel
    encoder: Encoder
    settings: TrainSettings

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels it knows, in the order of its probabilities."""
        return self.model.labels

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability of each label, shape (len(texts), k); rows sum to 1."""
        return self.model.proba(self.encoder.encode(texts))

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most probable label of each text."""
        return self.model.predict(self.encoder.encode(texts))

    def save(self, folder: Path) -> None:
        """Write ``probe.npz`` and ``predictor.json``; the encoder is named by its hash, not copied."""
        write_head(self.model, folder)
        extra = {"encoder": self.encoder.name, "encoder_hash": self.encoder.hash}
        write_description(folder, Description(kind="probe", labels=self.labels, settings=self.settings, extra=extra))


def write_head(model: ProbeModel, folder: Path) -> None:
    """Write ``probe.npz``."""
    with whole_file(folder / _WEIGHTS_FILE) as temporary, temporary.open("wb") as stream:
        np.savez(stream, weights=model.weights, bias=model.bias)


def read_head(folder: Path, labels: tuple[str, ...]) -> ProbeModel:
    """What ``write_head`` wrote.

    Raises:
        InputError: the file is missing or damaged, or holds something else.
    """
    path = folder / _WEIGHTS_FILE
    with bounded_memory(path), explain_damage(str(path), "train again"), path.open("rb") as stream:
        stored = np.load(stream, allow_pickle=False)
        weights, bias = stored["weights"], stored["bias"]
    fits = weights.ndim == 2 and weights.size and (weights.shape[1], *bias.shape) == (len(labels), len(labels))
    if not fits or weights.dtype != np.float32 or bias.dtype != np.float32:
        raise InputError(
            f"{path}: holds {weights.dtype} {weights.shape} and {bias.dtype} {bias.shape}, not the float32 of "
            f"{len(labels)} labels; train again"
        )
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise InputError(f"{path}: holds numbers that are not finite; train again")
    return ProbeModel(labels, weights, bias)


def load_probe(folder: Path, description: Description, encoder: Encoder | None) -> ProbePredictor:
    """The probe that ``ProbePredictor.save`` wrote.

    Raises:
        InputError: the weights are missing or broken, or ``encoder`` is not the one it was trained on.
    """
    name, expected = (description.tell(folder, key) for key in ("encoder", "encoder_hash"))
    if encoder is None and split_name(name)[0] not in BUILT_IN:
        raise InputError(
            f"{folder / PREDICTOR_FILE}: encoder is {name!r}; a model folder may name {' or '.join(BUILT_IN)} only; if "
            f"you know this one, give it yourself: --encoder {name!r}"
        )
    used = encoder or load_encoder(name)
    if used.hash != expected:
        raise InputError(
            f"{folder}: trained on encoder {name!r} ({expected[:12]}), not on {used.name!r} ({used.hash[:12]}); "
            "give that one"
        )
    model = read_head(folder, description.labels)
    if len(model.weights) != used.dim:
        raise InputError(
            f"{folder / _WEIGHTS_FILE}: is for {len(model.weights)} dimensions, not {used.dim}; train again"
        )
    return ProbePredictor(model, used, description.settings)


def train_probe(training: Training) -> ProbePredictor:
    """Fit a probe to the vectors of ``encoder`` (by default all-MiniLM-L6-v2): to its optimum, so nothing is drawn.

    Raises:
        ConfigError: a folder for checkpoints, which a probe has none of.
        TrainingError: a vector is not finite, or the loss has no optimum that is found.
    """
    corpus, loss, progress = training.corpus, training.loss, training.progress
    if training.folder is not None:
        raise ConfigError(
            f"folder is {str(training.folder)!r}, but trainer 'probe' writes no checkpoints; leave it out"
        )
    filled = replace(training.settings, l2=training.settings.l2 or DEFAULT_L2, synthetic_share=None)
    used = training.encoder or load_encoder()
    vectors = used.encode(corpus.texts)
    model = fit_objective(vectors, corpus.targets, loss, l2=filled.l2 or DEFAULT_L2)
    if progress is not None:
        columns = [model.labels.index(t) for t in corpus.targets]
        log_p = model.log_proba(vectors)[np.arange(len(columns)), columns]
        progress(1, 1, float(loss.values(np.arange(len(columns)), log_p).mean()))
    return ProbePredictor(model, used, filled)
