"""Fine-tunes a retriever: one sentence encoder for queries and passages, with in-batch negatives.

The model is a ``SentenceTransformer`` and is saved as one, so that sentence-transformers opens it again. The work is
done in ``retriever_model`` (which imports torch); this module is what the table of trainers holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cuvee.corpus import Corpus
from cuvee.encoders import DEFAULT_ENCODER, Encoder, find_minilm
from cuvee.errors import ConfigError, TrainingError
from cuvee.records import Vectors
from cuvee.train.losses import PreparedLoss
from cuvee.train.ready import mark_synthetic
from cuvee.train.settings import Description, Progress, TrainSettings, refuse_idle, require_packages, write_description

if TYPE_CHECKING:
    from cuvee.train.retriever_model import BiEncoder, RankedPairs

STEPS, BATCH_SIZE, _LEARNING_RATE, _TEMPERATURE = 30, 16, 5e-5, 0.05
_LORA_LEARNING_RATE = 5e-4
_MAX_LENGTH = 256


@dataclass(frozen=True, slots=True)
class BiEncoderRanker:
    """A fine-tuned retriever: the score of a passage for a query is the cosine of their vectors."""

    model: BiEncoder
    settings: TrainSettings

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), d)."""
        return self.model.encode(texts, "query")

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), d)."""
        return self.model.encode(texts, "passage")

    def rank_own(self, corpus: Corpus) -> RankedPairs:
        """Where each row's passage stands among the passages of all rows, at the temperature of the training."""
        from cuvee.train.retriever_model import rank_corpus

        return rank_corpus(self.model, corpus, self.settings.temperature or _TEMPERATURE)

    def save(self, folder: Path) -> None:
        """Write the model to ``folder/model`` as sentence-transformers does, and ``predictor.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.write_weights(folder)
        write_description(folder, Description(kind="retriever", labels=(), settings=self.settings, extra={}))


def train_retriever(
    corpus: Corpus, loss: PreparedLoss, settings: TrainSettings, *, encoder: Encoder | None, validation: Corpus | None,
    progress: Progress | None, folder: Path | None,
) -> BiEncoderRanker:  # fmt: skip
    """Fine-tune ``settings.model`` (by default all-MiniLM-L6-v2) for exactly ``settings.steps`` steps.

    The log probability of a row is the log softmax, at its passage, of the cosines of its query with the distinct
    passages of the batch, over ``settings.temperature`` (van den Oord et al. 2018, arXiv 1807.03748). Passages that
    the training rows pair with the same query elsewhere are no negatives of it.

    Raises:
        TrainingError: one passage only, out of memory, or a loss that is not finite.
        MissingDependency, InputError: sentence-transformers or the model cannot be loaded.
        ConfigError: another task, an unknown device, or a setting it has no use for.
    """
    del encoder  # every trainer and loader is given one
    require_packages("retriever", "torch", "sentence_transformers")
    from cuvee.train.loop import train_loop
    from cuvee.train.models import merge_lora, prepare_training
    from cuvee.train.retriever_model import BiEncoder, RetrieverRows
    from cuvee.train.schedule import plan_schedule

    if corpus.task != "retrieval":
        raise ConfigError(f"trainer 'retriever' is for task 'retrieval', not {corpus.task!r}")
    refuse_idle(settings)
    schedule = plan_schedule(settings, corpus, validation, steps=STEPS, batch_size=BATCH_SIZE)
    source = settings.model or DEFAULT_ENCODER
    device, temperature = settings.device or "auto", settings.temperature or _TEMPERATURE
    rate = settings.learning_rate or (_LORA_LEARNING_RATE if settings.lora_rank else _LEARNING_RATE)
    place = find_minilm() if source == DEFAULT_ENCODER else source
    model = BiEncoder.from_pretrained(place, device=device, max_length=settings.max_length, most_length=_MAX_LENGTH)
    model.backbone = prepare_training(model.backbone, settings)
    rows = RetrieverRows(model, corpus, validation, temperature=temperature, learning_rate=rate)
    if rows.passages < 2:
        raise TrainingError("all training rows have the same passage, so there are no negatives; give rows of others")
    train_loop(
        rows, loss, schedule, synthetic=mark_synthetic(corpus), validate=rows.validate if rows.held_out else None,
        progress=progress, folder=folder,
    )  # fmt: skip
    model.backbone = merge_lora(model.backbone)
    filled = dataclasses.replace(
        settings, steps=schedule.steps, batch_size=schedule.batch_size, learning_rate=rate, temperature=temperature,
        model=source, device=device, max_length=model.max_length,
    )  # fmt: skip
    return BiEncoderRanker(model, filled)


def load_retriever(folder: Path, description: Description, encoder: Encoder | None) -> BiEncoderRanker:
    """The retriever that ``BiEncoderRanker.save`` wrote.

    Raises:
        InputError: its files are missing or broken. MissingDependency: sentence-transformers is missing.
    """
    del encoder  # every trainer and loader is given one
    require_packages("retriever", "torch", "sentence_transformers")
    from cuvee.train.retriever_model import BiEncoder

    settings = description.settings
    model = BiEncoder.read_weights(folder, device=settings.device or "auto", max_length=settings.max_length)
    return BiEncoderRanker(model, settings)
