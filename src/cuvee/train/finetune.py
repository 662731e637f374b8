"""A mean-pooled text classifier, and how the training loop sees it. Imports torch and transformers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from cuvee.errors import ConfigError, InputError
from cuvee.language_models import choose_device, explain_memory, loading_model, quiet_loading
from cuvee.train.schedule import ParameterGroup, Scores
from cuvee.train.settings import read_layer

_HEAD_FILE = "head.npz"
_BACKBONE = "model"
_PREDICT_BATCH = 64
Codes = NDArray[np.int64]


class TextClassifier:
    """A transformer, its tokenizer, and a linear head on the unit vector of its mean-pooled tokens.

    Args:
        backbone: gives ``last_hidden_state``.
        tokenizer: of the backbone.
        head: from the backbone's width to k labels.
        device: where both live.
        max_length: tokens of a text that are read.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        head: torch.nn.Linear,
        device: torch.device,
        max_length: int,
    ) -> None:
        self.backbone = backbone.to(device)
        self.tokenizer = tokenizer
        self.head = head.to(device)
        self.device = device
        self.max_length = max_length

    @classmethod
    def from_pretrained(cls, model: str, k: int, *, device: str, max_length: int) -> TextClassifier:
        """A fresh classifier of ``k`` labels on a copy of ``model`` (a folder, or a name on the hub).

        Raises:
            InputError: the model cannot be loaded. ConfigError: an unknown device, or too large a max_length.
        """
        where = choose_device(device)
        backbone, tokenizer = _load_backbone(model)
        limit = getattr(backbone.config, "max_position_embeddings", max_length)
        if max_length > limit:
            raise ConfigError(f"max_length is {max_length}; model {model!r} reads at most {limit} tokens")
        head = _build_head(torch.zeros(k, int(backbone.config.hidden_size)), torch.zeros(k))
        return cls(copy.deepcopy(backbone), tokenizer, head, where, max_length)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, at most ``max_length``."""
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
        tokens = self.tokenize(texts) if texts else []
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

    def write_weights(self, folder: Path) -> None:
        """Write the backbone and tokenizer to ``folder/model`` and the head to ``folder/head.npz``."""
        with quiet_loading():
            self.backbone.save_pretrained(folder / _BACKBONE)
            self.tokenizer.save_pretrained(str(folder / _BACKBONE))
        weight, bias = (p.detach().cpu().numpy() for p in (self.head.weight, self.head.bias))
        np.savez(folder / _HEAD_FILE, weight=weight, bias=bias)

    @classmethod
    def read_weights(cls, folder: Path, *, labels: int, device: str, max_length: int) -> TextClassifier:
        """What ``write_weights`` wrote.

        Raises:
            InputError: files are missing or broken. ConfigError: an unknown device.
        """
        where = choose_device(device)
        head = _build_head(*map(torch.from_numpy, read_layer(folder / _HEAD_FILE, "weight", labels=labels, axis=0)))
        if not (folder / _BACKBONE).is_dir():  # transformers would take the path for a name on the hub
            raise InputError(f"{folder / _BACKBONE}: no such folder; train again")
        backbone, tokenizer = _load_backbone.__wrapped__(str(folder / _BACKBONE))
        width, limit = backbone.config.hidden_size, getattr(backbone.config, "max_position_embeddings", max_length)
        if head.in_features != width or max_length > limit:
            raise InputError(
                f"{folder}: the head reads {head.in_features} numbers and {max_length} tokens, the model gives {width} "
                f"and reads {limit}; train again"
            )
        return cls(backbone, tokenizer, head, where, max_length)


class ClassifierRows:
    """A classifier with the rows it is trained on, for the training loop.

    Args:
        classifier: what to train.
        texts, codes: n rows: input, and column of the label.
        held_out_texts, held_out_codes: real validation rows of known labels.
        learning_rate, head_learning_rate: peaks, of the backbone and of the head.
    """

    def __init__(
        self, classifier: TextClassifier, texts: Sequence[str], codes: Codes, *, held_out_texts: Sequence[str] = (),
        held_out_codes: Codes | None = None, learning_rate: float, head_learning_rate: float,
    ) -> None:  # fmt: skip
        self._classifier = classifier
        self._tokens = classifier.tokenize(texts)
        self._truth = torch.tensor(codes, device=classifier.device)
        self._held_out = classifier.tokenize(held_out_texts) if held_out_texts else []
        self._held_out_truth = torch.tensor([] if held_out_codes is None else held_out_codes, device=classifier.device)
        self.module = torch.nn.ModuleDict({"backbone": classifier.backbone, "head": classifier.head})
        self.groups = (
            ParameterGroup(tuple(classifier.backbone.parameters()), learning_rate),
            # the head begins at 0 and has far to go: its gradient is large, and to be so
            ParameterGroup(tuple(classifier.head.parameters()), head_learning_rate, clipped=False),
        )

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self._classifier.device

    @property
    def held_out(self) -> int:
        """Validation rows."""
        return len(self._held_out)

    def log_p(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Log probability of each row's label, shape (b,)."""
        return self._log_p(self.scores(rows, held_out=False))

    def scores(self, rows: NDArray[np.int64], *, held_out: bool) -> Scores:
        """Scores of all labels, one line a row."""
        tokens, truth = (self._held_out, self._held_out_truth) if held_out else (self._tokens, self._truth)
        logits = self._classifier.logits([tokens[i] for i in rows])
        return Scores(logits=logits, truth=truth[rows], weights=torch.ones(len(rows), device=self.device))

    @staticmethod
    def _log_p(scores: Scores) -> torch.Tensor:
        return -torch.nn.functional.cross_entropy(scores.logits, scores.truth, reduction="none")

    def validate(self) -> float:
        """Mean log probability of the validation rows' labels."""
        parts = [np.arange(i, min(i + _PREDICT_BATCH, self.held_out)) for i in range(0, self.held_out, _PREDICT_BATCH)]
        return float(torch.cat([self._log_p(self.scores(part, held_out=True)) for part in parts]).cpu().double().mean())


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
    local = Path(model).is_dir()
    with loading_model(model):
        backbone = AutoModel.from_pretrained(
            model, local_files_only=local, trust_remote_code=False, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=local, trust_remote_code=False)
    if tokenizer.pad_token is None:
        raise InputError(f"model {model!r} has no padding token, so it is no encoder; give a sentence encoder")
    return backbone, tokenizer
