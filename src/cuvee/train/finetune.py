"""A mean-pooled text classifier and the loop that fine-tunes it. Imports torch and transformers.

A loop of our own and not ``transformers.Trainer``: a study trains hundreds of small models for 30 steps, and
needs batches that straddle epochs, weights of rows, a separate rate for the head, and random streams that are
the training draw's alone. Trainer would need a subclass, a sampler, an optimiser and callbacks for these, sets
the global seeds of random, numpy and torch, and takes 5 seconds to import. All arithmetic is in float32: at
16 short rows a step, bfloat16 gains nothing on a CPU.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from cuvee.errors import ConfigError, InputError, TrainingError
from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.train.settings import Progress

_HEAD_FILE = "head.npz"
_BACKBONE = "model"
_WARM_UP = 0.1  # fraction of the steps over which the learning rates rise
_WEIGHT_DECAY = 0.01
_CLIP = 1.0  # largest norm of a gradient
_PREDICT_BATCH = 64
_MEMORY_MARKS = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How to fine-tune: ``steps`` optimiser steps of ``batch_size`` rows; the head has its own peak rate."""

    steps: int
    batch_size: int
    learning_rate: float
    head_learning_rate: float
    seed: int


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
        where = _choose_device(device)
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
        with _explain_memory(self.device, remedy), torch.inference_mode():
            for start in range(0, len(order), _PREDICT_BATCH):
                rows = order[start : start + _PREDICT_BATCH]
                scores = self.logits([tokens[i] for i in rows]).cpu().double()
                out[rows] = torch.softmax(scores, dim=1).numpy()
        return out

    def write_weights(self, folder: Path) -> None:
        """Write the backbone and tokenizer to ``folder/model`` and the head to ``folder/head.npz``."""
        with _quiet():
            self.backbone.save_pretrained(folder / _BACKBONE)
            self.tokenizer.save_pretrained(str(folder / _BACKBONE))
        weight, bias = (p.detach().cpu().numpy() for p in (self.head.weight, self.head.bias))
        np.savez(folder / _HEAD_FILE, weight=weight, bias=bias)

    @classmethod
    def read_weights(cls, folder: Path, *, device: str, max_length: int) -> TextClassifier:
        """What ``write_weights`` wrote.

        Raises:
            InputError: files are missing or broken. ConfigError: an unknown device.
        """
        where = _choose_device(device)
        try:
            with np.load(folder / _HEAD_FILE) as stored:
                weight, bias = torch.from_numpy(stored["weight"]), torch.from_numpy(stored["bias"])
        except (OSError, ValueError, KeyError) as exc:
            raise InputError(f"{folder / _HEAD_FILE}: cannot be read ({exc}); train again") from exc
        if not (folder / _BACKBONE).is_dir():  # transformers would take the path for a name on the hub
            raise InputError(f"{folder / _BACKBONE}: no such folder; train again")
        backbone, tokenizer = _load_backbone.__wrapped__(str(folder / _BACKBONE))
        return cls(backbone, tokenizer, _build_head(weight, bias), where, max_length)


def fine_tune(
    classifier: TextClassifier,
    texts: Sequence[str],
    codes: NDArray[np.int64],
    weights: NDArray[np.float64],
    schedule: Schedule,
    progress: Progress | None = None,
) -> None:
    """Train ``classifier`` in place for exactly ``schedule.steps`` steps.

    On a CPU, equal arguments and an equal number of torch threads give equal bits.

    Batches are cut from seeded permutations of the rows, one after another, and may straddle two of them.
    AdamW; both learning rates rise over the first tenth of the steps and fall to 0 linearly.

    Args:
        classifier: what to train.
        texts, codes, weights: n rows: input, column of the label, weight above 0.
        schedule: steps, batch size, rates, seed.
        progress: called after each step.

    Raises:
        TrainingError: out of memory, or a loss that is not finite.
    """
    tokens = classifier.tokenize(texts)
    relative = torch.tensor(weights / weights.mean(), dtype=torch.float32, device=classifier.device)
    truth = torch.tensor(codes, device=classifier.device)
    optimizer, scheduler = _build_optimizer(classifier, schedule)
    classifier.backbone.train()
    remedy = f"lower batch_size (now {schedule.batch_size}) or max_length, or set device: cpu"
    stream = _own_random_stream(classifier.device, derive_seed(schedule.seed, "train", "dropout"))
    with _explain_memory(classifier.device, remedy), stream:
        for step, rows in enumerate(draw_batches(len(tokens), schedule)):
            loss = batch_loss(classifier.logits([tokens[i] for i in rows]), truth[rows], relative[rows])
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss is {value} at step {step + 1} of {schedule.steps}; "
                    f"lower learning_rate (now {schedule.learning_rate:g})"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(classifier.backbone.parameters(), _CLIP)
            optimizer.step()
            scheduler.step()
            if progress is not None:
                progress(step + 1, schedule.steps, value)
    classifier.backbone.eval()


def batch_loss(logits: torch.Tensor, truth: torch.Tensor, relative: torch.Tensor) -> torch.Tensor:
    """Weighted cross-entropy of a batch: sum of weight times loss, over the number of rows.

    ``relative`` are weights divided by the mean weight of *all* rows, so that a weight means the same in
    every batch; over the full batch it is the weighted mean.
    """
    losses = torch.nn.functional.cross_entropy(logits, truth, reduction="none")
    return (losses * relative).sum() / len(relative)


def draw_batches(rows: int, schedule: Schedule) -> NDArray[np.int64]:
    """Row numbers of each batch, shape (steps, batch_size): seeded permutations, one after another."""
    rng = derive_rng(schedule.seed, "train", "batches")
    length = schedule.steps * schedule.batch_size
    passes = [rng.permutation(rows) for _ in range(-(-length // rows))]
    return np.concatenate(passes)[:length].reshape(schedule.steps, schedule.batch_size)


def _build_optimizer(
    classifier: TextClassifier, schedule: Schedule
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    groups = [
        {"params": list(classifier.backbone.parameters()), "lr": schedule.learning_rate},
        {"params": list(classifier.head.parameters()), "lr": schedule.head_learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=_WEIGHT_DECAY, fused=True)
    warm = max(1.0, _WARM_UP * schedule.steps)

    def factor(step: int) -> float:
        if step + 1 < warm:
            return (step + 1) / warm
        return max(0.0, (schedule.steps - step) / max(1.0, schedule.steps - warm + 1))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


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
    try:
        # a layer that the files lack (BERT's unused pooler) starts at random
        with _quiet(), _own_random_stream(torch.device("cpu"), 0):
            backbone = AutoModel.from_pretrained(model, local_files_only=local, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=local)
    except (OSError, ValueError, SafetensorError) as exc:
        raise InputError(
            f"model {model!r} cannot be loaded ({str(exc).splitlines()[0]}); give a folder or a name on the hub"
        ) from exc
    if tokenizer.pad_token is None:
        raise InputError(f"model {model!r} has no padding token, so it is no encoder; give a sentence encoder")
    return backbone, tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bars and load reports, and put them back as they were."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def _explain_memory(device: torch.device, remedy: str) -> Iterator[None]:
    """Out of memory becomes one line; torch has a class for it on GPUs and bare RuntimeErrors elsewhere."""
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        if isinstance(exc, RuntimeError) and not any(mark in str(exc).casefold() for mark in _MEMORY_MARKS):
            raise
        raise TrainingError(f"out of memory on {device}; {remedy}") from exc


@contextmanager
def _own_random_stream(device: torch.device, seed: int) -> Iterator[None]:
    """Torch's random state (dropout reads it) is ours inside, and untouched outside."""
    accelerators = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(accelerators, device_type=device.type if accelerators else None):
        torch.manual_seed(seed)
        yield


def _choose_device(name: str) -> torch.device:
    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if found[kind]))
    if name not in found or not found[name]:
        valid = ["auto", *(kind for kind, there in found.items() if there)]
        raise ConfigError(f"device {name!r} is not here; valid on this machine: {', '.join(valid)}")
    return torch.device(name)
