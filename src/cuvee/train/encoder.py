"""Fine-tunes a sentence encoder: the whole model under a linear head on its mean-pooled tokens.

Mean pooling, because all-MiniLM-L6-v2 was trained with it and its CLS token never was. Imports torch and transformers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from cuvee.corpus import Corpus
from cuvee.encoders import DEFAULT_ENCODER, Encoder, find_minilm
from cuvee.errors import ConfigError, InputError
from cuvee.language_models import choose_device, explain_memory, loading_model, quiet_loading
from cuvee.model_files import load_files
from cuvee.records import Codes
from cuvee.train.finetuning import ParameterGroup, merge_lora, prepare_training
from cuvee.train.loop import fine_tune
from cuvee.train.settings import Description, TrainSettings, fill_settings, given, read_layer, write_description
from cuvee.train.weighting import PreparedLoss, Progress

_HEAD_FILE = "head.npz"
_BACKBONE = "model"
_PREDICT_BATCH = 64
_MAX_LENGTH, _HEAD_LEARNING_RATE = 64, 2e-2


def train_encoder(
    corpus: Corpus, loss: PreparedLoss, settings: TrainSettings, *, encoder: Encoder | None, validation: Corpus | None,
    progress: Progress | None, folder: Path | None,
) -> TextClassifier:  # fmt: skip
    """Fine-tune ``settings.model`` (by default all-MiniLM-L6-v2) for exactly ``settings.steps`` steps.

    With ``lora_rank``, adapters and the head are trained, and the adapters then added to the model's weights.
    Validation rows of labels that the training rows lack are left out.

    Raises:
        TrainingError: out of memory, or a loss that is not finite.
        InputError: torch, transformers, peft or the model cannot be loaded.
        ConfigError: an unknown device, or a setting it has no use for.
    """
    del encoder  # every trainer and loader is given one
    filled = fill_settings(
        "encoder", settings, model=DEFAULT_ENCODER, device="auto", max_length=_MAX_LENGTH,
        head_learning_rate=_HEAD_LEARNING_RATE,
    )  # fmt: skip
    classifier = TextClassifier.from_pretrained(tuple(corpus.labels), filled)
    classifier.backbone = prepare_training(classifier.backbone, filled)
    rows = ClassifierRows(classifier, corpus, validation)
    fine_tune(rows, loss, filled, corpus=corpus, validation=validation, progress=progress, folder=folder)
    classifier.backbone = merge_lora(classifier.backbone)
    return classifier


def load_encoder(folder: Path, description: Description, encoder: Encoder | None) -> TextClassifier:
    """The classifier that ``TextClassifier.save`` wrote.

    Raises:
        InputError: files are missing or broken. ConfigError: an unknown device.
    """
    del encoder
    settings, labels = description.settings, description.labels
    where, max_length = choose_device(settings.device or "auto"), settings.max_length or _MAX_LENGTH
    head = _build_head(*map(torch.from_numpy, read_layer(folder / _HEAD_FILE, "weight", labels=len(labels), axis=0)))
    if not (folder / _BACKBONE).is_dir():  # transformers would take the path for a name on the hub
        raise InputError(f"{folder / _BACKBONE}: no such folder; train again")
    backbone, tokenizer = _load_backbone.__wrapped__(str(folder / _BACKBONE))
    width, limit = backbone.config.hidden_size, getattr(backbone.config, "max_position_embeddings", max_length)
    if head.in_features != width or max_length > limit:
        raise InputError(
            f"{folder}: the head reads {head.in_features} numbers and {max_length} tokens, the model gives {width} "
            f"and reads {limit}; train again"
        )
    return TextClassifier((backbone, tokenizer), head, where, labels=labels, settings=settings)


class TextClassifier:
    """A transformer, its tokenizer, and a linear head on the unit vector of its mean-pooled tokens.

    Args:
        loaded: the backbone, which gives ``last_hidden_state``, and its tokenizer.
        head: from the backbone's width to k labels.
        device: where both live.
        labels: of the k columns.
        settings: how it is trained, nothing left open.
    """

    def __init__(
        self, loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase], head: torch.nn.Linear, device: torch.device, *,
        labels: tuple[str, ...], settings: TrainSettings,
    ) -> None:  # fmt: skip
        self.backbone, self.tokenizer = loaded[0].to(device), loaded[1]
        self.head = head.to(device)
        self.device = device
        self.labels, self.settings = labels, settings
        self.max_length = settings.max_length or _MAX_LENGTH

    @classmethod
    def from_pretrained(cls, labels: tuple[str, ...], settings: TrainSettings) -> TextClassifier:
        """A fresh classifier on a copy of the model that ``settings`` name (a folder, or a name on the hub).

        Raises:
            InputError: the model cannot be loaded. ConfigError: an unknown device, or too large a max_length.
        """
        model, max_length = given(settings.model), given(settings.max_length)
        where = choose_device(given(settings.device))
        backbone, tokenizer = _load_backbone(find_minilm() if model == DEFAULT_ENCODER else model)
        limit = getattr(backbone.config, "max_position_embeddings", max_length)
        if max_length > limit:
            raise ConfigError(f"max_length is {max_length}; model {model!r} reads at most {limit} tokens")
        head = _build_head(torch.zeros(len(labels), int(backbone.config.hidden_size)), torch.zeros(len(labels)))
        return cls((copy.deepcopy(backbone), tokenizer), head, where, labels=labels, settings=settings)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, at most ``max_length``."""
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)["input_ids"]
        return found

    def logits(self, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """Scores before softmax, shape (len(tokens), k)."""
        padded = self.tokenizer.pad({"input_ids": list(tokens)}, return_tensors="pt").to(self.device)
        hidden = self.backbone(**padded).last_hidden_state
        mask = padded["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
        scores: torch.Tensor = self.head(torch.nn.functional.normalize(pooled, dim=1))
        return scores

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability of each label, shape (len(texts), k); texts are read in order of length, for speed.

        Raises:
            TrainingError: out of memory.
        """
        tokens = self.tokenize(texts)
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        out = np.zeros((len(tokens), self.head.out_features), dtype=np.float64)
        self.backbone.eval()
        remedy = f"lower max_length (now {self.max_length}), or set device: cpu"
        with explain_memory(self.device, remedy), torch.inference_mode():
            for start in range(0, len(order), _PREDICT_BATCH):
                rows = order[start : start + _PREDICT_BATCH]
                scores = self.logits([tokens[i] for i in rows]).cpu().double()
                out[rows] = torch.softmax(scores, dim=1).numpy()
        return out

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most probable label of each text."""
        return [self.labels[i] for i in self.predict_proba(texts).argmax(axis=1)]

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer as transformers does, the head beside them, and ``predictor.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        with quiet_loading():
            self.backbone.save_pretrained(folder / _BACKBONE)
            self.tokenizer.save_pretrained(str(folder / _BACKBONE))
        weight, bias = (p.detach().cpu().numpy() for p in (self.head.weight, self.head.bias))
        np.savez(folder / _HEAD_FILE, weight=weight, bias=bias)
        write_description(folder, Description(kind="encoder", labels=self.labels, settings=self.settings, extra={}))


class ClassifierRows:
    """A classifier with the rows it is trained on, for the training loop.

    Args:
        classifier: what to train, with the learning rates in its settings.
        corpus: n rows: input and label.
        validation: real rows held out; those of known labels count.
    """

    def __init__(self, classifier: TextClassifier, corpus: Corpus, validation: Corpus | None = None) -> None:
        self._classifier = classifier
        self._tokens, self._truth = self._read(corpus.texts, corpus.targets)
        labels = classifier.labels
        known = None if validation is None else validation.keep([t in labels for t in validation.targets])
        self._held_out, self._held_out_truth = self._read(
            *([[], []] if known is None else [known.texts, known.targets])
        )
        self.module = torch.nn.ModuleDict({"backbone": classifier.backbone, "head": classifier.head})
        settings = classifier.settings
        self.groups = (
            ParameterGroup(tuple(classifier.backbone.parameters()), given(settings.learning_rate)),
            # the head begins at 0 and has far to go: its gradient is large, and to be so
            ParameterGroup(tuple(classifier.head.parameters()), given(settings.head_learning_rate), clipped=False),
        )

    def _read(self, texts: Sequence[str], targets: Sequence[str]) -> tuple[list[list[int]], torch.Tensor]:
        """The tokens of each text, and the column of its label."""
        codes = torch.tensor([self._classifier.labels.index(t) for t in targets], dtype=torch.long)
        return self._classifier.tokenize(texts), codes.to(self._classifier.device)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self._classifier.device

    @property
    def held_out(self) -> int:
        """Validation rows."""
        return len(self._held_out)

    def log_p(self, rows: Codes) -> torch.Tensor:
        """Log probability of each row's label, shape (b,)."""
        return self._log_p([self._tokens[i] for i in rows], self._truth[rows])

    def _log_p(self, tokens: Sequence[Sequence[int]], truth: torch.Tensor) -> torch.Tensor:
        return -torch.nn.functional.cross_entropy(self._classifier.logits(tokens), truth, reduction="none")

    def validate(self) -> float:
        """Mean log probability of the validation rows' labels."""
        parts = [slice(start, start + _PREDICT_BATCH) for start in range(0, self.held_out, _PREDICT_BATCH)]
        found = [self._log_p(self._held_out[part], self._held_out_truth[part]) for part in parts]
        return float(torch.cat(found).cpu().double().mean())


def _build_head(weight: torch.Tensor, bias: torch.Tensor) -> torch.nn.Linear:
    k, width = weight.shape
    # made on no device: its own start would read the global random state
    head = torch.nn.Linear(width, k, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    return head


@lru_cache(maxsize=1)
def _load_backbone(model: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loaded once a process (it takes seconds); callers train a copy."""

    def load(online: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        given = {"local_files_only": not online, "trust_remote_code": False}
        with loading_model(model):
            backbone = AutoModel.from_pretrained(model, **given, dtype=torch.float32)
            return backbone, AutoTokenizer.from_pretrained(model, **given)

    backbone, tokenizer = load_files(f"model {model!r}", load, local=Path(model).is_dir())
    if tokenizer.pad_token is None:
        raise InputError(f"model {model!r} has no padding token, so it is no encoder; give a sentence encoder")
    return backbone, tokenizer
