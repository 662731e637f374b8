"""Fine-tunes a sentence encoder: the whole model under a linear head on its mean-pooled tokens.

Mean pooling, because all-MiniLM-L6-v2 was trained with it and its CLS token never was. The work is done in
``finetune`` (which imports torch); this module is what the table of trainers holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.encoders import DEFAULT_ENCODER, Encoder, find_minilm
from cuvee.train.losses import PreparedLoss
from cuvee.train.ready import mark_synthetic
from cuvee.train.settings import Description, Progress, TrainSettings, refuse_idle, require_packages, write_description

if TYPE_CHECKING:
    from cuvee.train.finetune import TextClassifier

STEPS, _BATCH_SIZE, _MAX_LENGTH = 30, 16, 64
_LEARNING_RATE, _HEAD_LEARNING_RATE = 1e-4, 2e-2
_LORA_LEARNING_RATE = 1e-3  # adapters begin at no change and stand a rate ten times that of full fine-tuning


@dataclass(frozen=True, slots=True)
class EncoderPredictor:
    """A fine-tuned encoder with its head."""

    classifier: TextClassifier
    labels: tuple[str, ...]
    settings: TrainSettings

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability of each label, shape (len(texts), k); rows sum to 1."""
        return self.classifier.predict_proba(texts)

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most probable label of each text."""
        return [self.labels[i] for i in self.predict_proba(texts).argmax(axis=1)]

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer as transformers does, the head beside them, and ``predictor.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.classifier.write_weights(folder)
        write_description(folder, Description(kind="encoder", labels=self.labels, settings=self.settings, extra={}))


def train_encoder(
    corpus: Corpus, loss: PreparedLoss, settings: TrainSettings, *, encoder: Encoder | None, validation: Corpus | None,
    progress: Progress | None, folder: Path | None,
) -> EncoderPredictor:  # fmt: skip
    """Fine-tune ``settings.model`` (by default all-MiniLM-L6-v2) for exactly ``settings.steps`` steps.

    With ``lora_rank``, adapters and the head are trained, and the adapters then added to the model's weights.
    Validation rows of labels that the training rows lack are left out.

    Raises:
        TrainingError: out of memory, or a loss that is not finite.
        InputError: torch, transformers, peft or the model cannot be loaded.
        ConfigError: an unknown device, or a setting it has no use for.
    """
    del encoder  # every trainer and loader is given one
    require_packages("encoder", "torch", "transformers", remedy=", or set trainer: probe")
    from cuvee.train.finetune import ClassifierRows, TextClassifier
    from cuvee.train.loop import train_loop
    from cuvee.train.models import merge_lora, prepare_training
    from cuvee.train.schedule import plan_schedule

    refuse_idle(settings)
    schedule = plan_schedule(settings, corpus, validation, steps=STEPS, batch_size=_BATCH_SIZE)
    model, device = settings.model or DEFAULT_ENCODER, settings.device or "auto"
    max_length = settings.max_length or _MAX_LENGTH
    rate = settings.learning_rate or (_LORA_LEARNING_RATE if settings.lora_rank else _LEARNING_RATE)
    head_rate = settings.head_learning_rate or _HEAD_LEARNING_RATE
    labels = tuple(corpus.labels)
    source = find_minilm() if model == DEFAULT_ENCODER else model
    classifier = TextClassifier.from_pretrained(source, len(labels), device=device, max_length=max_length)
    classifier.backbone = prepare_training(classifier.backbone, settings)
    known = None if validation is None else validation.keep([t in labels for t in validation.targets])
    rows = ClassifierRows(
        classifier, corpus.texts, _codes(corpus, labels), held_out_texts=[] if known is None else known.texts,
        held_out_codes=None if known is None else _codes(known, labels), learning_rate=rate,
        head_learning_rate=head_rate,
    )  # fmt: skip
    train_loop(
        rows, loss, schedule, synthetic=mark_synthetic(corpus), validate=rows.validate if rows.held_out else None,
        progress=progress, folder=folder,
    )  # fmt: skip
    classifier.backbone = merge_lora(classifier.backbone)
    filled = dataclasses.replace(
        settings, steps=schedule.steps, batch_size=schedule.batch_size, learning_rate=rate,
        head_learning_rate=head_rate, model=model, device=device, max_length=max_length,
    )  # fmt: skip
    return EncoderPredictor(classifier, labels, filled)


def load_finetuned(folder: Path, description: Description, encoder: Encoder | None) -> EncoderPredictor:
    """The predictor that ``EncoderPredictor.save`` wrote.

    Raises:
        InputError: its files are missing or broken. MissingDependency: torch or transformers are missing.
    """
    del encoder  # every trainer and loader is given one
    require_packages("encoder", "torch", "transformers", remedy=", or set trainer: probe")
    from cuvee.train.finetune import TextClassifier

    settings = description.settings
    classifier = TextClassifier.read_weights(
        folder, labels=len(description.labels), device=settings.device or "auto",
        max_length=settings.max_length or _MAX_LENGTH,
    )  # fmt: skip
    return EncoderPredictor(classifier, description.labels, settings)


def _codes(corpus: Corpus, labels: tuple[str, ...]) -> NDArray[np.int64]:
    """The column of each row's label."""
    return np.array([labels.index(t) for t in corpus.targets], dtype=np.int64)
