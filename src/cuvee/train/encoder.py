"""Fine-tunes a sentence encoder: the whole model under a linear head on its vectors. Imports torch.

The vectors are those of the model's own pooling (the mean of tokens for all-MiniLM-L6-v2, whose CLS token was never
trained), of length 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.encoders import DEFAULT_ENCODER, Encoder
from cuvee.errors import InputError
from cuvee.probe import ProbeModel
from cuvee.records import Codes
from cuvee.train.finetuning import ParameterGroup, merge_lora, prepare_training
from cuvee.train.loop import fine_tune
from cuvee.train.probe import read_head, write_head
from cuvee.train.retriever import BiEncoder, load_body
from cuvee.train.settings import Description, Training, TrainSettings, fill_settings, given, write_description

_PREDICT_BATCH = 64
_MAX_LENGTH, _HEAD_LEARNING_RATE = 64, 2e-2


def train_encoder(training: Training) -> TunedClassifier:
    """Fine-tune ``settings.model`` (by default all-MiniLM-L6-v2) for exactly ``settings.steps`` steps.

    With ``lora_rank``, adapters and the head are trained, and the adapters then added to the model's weights.
    Validation rows of labels that the training rows lack are left out.

    Raises:
        TrainingError: out of memory, or a loss that is not finite.
        MissingDependency, InputError: sentence-transformers, peft or the model cannot be loaded.
        ConfigError: an unknown device, or a setting it has no use for.
    """
    settings = fill_settings(
        "encoder", training.settings, model=DEFAULT_ENCODER, device="auto", max_length=_MAX_LENGTH,
        head_learning_rate=_HEAD_LEARNING_RATE,
    )  # fmt: skip
    body = BiEncoder.from_pretrained(settings)
    body.backbone = prepare_training(body.backbone, settings)
    rows = ClassifierRows(body, training.corpus, training.validation)
    fine_tune(rows, replace(training, settings=settings))
    body.backbone = merge_lora(body.backbone)
    weight, bias = (p.detach().cpu().numpy() for p in (rows.head.weight, rows.head.bias))
    return TunedClassifier(body, ProbeModel(rows.labels, np.ascontiguousarray(weight.T), bias))


def load_encoder(folder: Path, description: Description, encoder: Encoder | None) -> TunedClassifier:
    """The classifier that ``TunedClassifier.save`` wrote.

    Raises:
        InputError: files are missing or broken. ConfigError: an unknown device.
    """
    del encoder
    body, head = load_body(folder, description), read_head(folder, description.labels)
    if len(head.weights) != (width := body.encode(["x"], "passage").shape[1]):
        raise InputError(
            f"{folder}: the head is for {len(head.weights)} dimensions, the model gives {width}; train again"
        )
    return TunedClassifier(body, head)


@dataclass(frozen=True, slots=True)
class TunedClassifier:
    """A tuned sentence encoder and the head on its vectors."""

    body: BiEncoder
    head: ProbeModel

    @property
    def settings(self) -> TrainSettings:
        """How it was trained, nothing left open."""
        return self.body.settings

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels it knows, in the order of its probabilities."""
        return self.head.labels

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability of each label, shape (len(texts), k); rows sum to 1."""
        return self.head.proba(self.body.encode(texts, "passage"))

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most probable label of each text."""
        return self.head.predict(self.body.encode(texts, "passage"))

    def save(self, folder: Path) -> None:
        """Write the model as sentence-transformers does, ``probe.npz`` of the head, and ``predictor.json``."""
        self.body.save_model(folder)
        write_head(self.head, folder)
        kind = self.settings.trainer
        write_description(folder, Description(kind=kind, labels=self.labels, settings=self.settings, extra={}))


class ClassifierRows:
    """A sentence encoder and a head that begins at 0, with the rows they are trained on, for the training loop.

    Args:
        body: what to train, with the learning rates in its settings.
        corpus: n rows: input and label.
        validation: real rows held out; those of known labels count.
    """

    def __init__(self, body: BiEncoder, corpus: Corpus, validation: Corpus | None = None) -> None:
        self._body, self.device, self.labels = body, body.device, tuple(corpus.labels)
        self._texts, self._truth = corpus.texts, self._code(corpus.targets)
        held_out = corpus.take([]) if validation is None else validation
        known = held_out.keep([target in self.labels for target in held_out.targets])
        self._held_out, self._held_out_truth, self.held_out = known.texts, self._code(known.targets), len(known)
        width = body.encode(["x"], "passage").shape[1]
        # made on no device: its own start would read the global random state
        self.head = torch.nn.Linear(width, len(self.labels), device="meta").to_empty(device=body.device)
        for parameter in self.head.parameters():
            torch.nn.init.zeros_(parameter)
        self.module = torch.nn.ModuleDict({"backbone": body.model, "head": self.head})
        self.groups = (
            ParameterGroup(tuple(body.model.parameters()), given(body.settings.learning_rate)),
            # the head begins at 0 and has far to go: its gradient is large, and to be so
            ParameterGroup(tuple(self.head.parameters()), given(body.settings.head_learning_rate), clipped=False),
        )

    def _code(self, targets: Sequence[str]) -> torch.Tensor:
        """The column of each label."""
        return torch.tensor([self.labels.index(t) for t in targets], dtype=torch.long, device=self.device)

    def log_p(self, rows: Codes) -> torch.Tensor:
        """Log probability of each row's label, shape (b,)."""
        return self._log_p([self._texts[i] for i in rows], self._truth[rows])

    def _log_p(self, texts: Sequence[str], truth: torch.Tensor) -> torch.Tensor:
        logits = self.head(self._body.embed(texts, "passage"))
        return -torch.nn.functional.cross_entropy(logits, truth, reduction="none")

    def validate(self) -> float:
        """Mean log probability of the validation rows' labels."""
        parts = [slice(start, start + _PREDICT_BATCH) for start in range(0, self.held_out, _PREDICT_BATCH)]
        found = [self._log_p(self._held_out[part], self._held_out_truth[part]) for part in parts]
        return float(torch.cat(found).cpu().double().mean())
