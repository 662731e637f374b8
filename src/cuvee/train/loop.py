"""The one training loop of all fine-tuned models, and its checkpoints. Imports torch.

A loop of our own and not ``transformers.Trainer``: a study trains hundreds of small models for 30 steps, and
needs batches that straddle epochs, losses as slopes of log probabilities, phases, rates by group, and random
streams that are the training draw's alone. Trainer would need a subclass, a sampler, an optimiser and callbacks
for these, sets the global seeds of random, numpy and torch, and takes 5 seconds to import.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cuvee.errors import ConfigError, TrainingError
from cuvee.fingerprint import derive_seed, hash_value
from cuvee.inputs import explain_damage, whole_file
from cuvee.language_models import choose_dtype, explain_memory, own_random_stream
from cuvee.records import Floats
from cuvee.train import finetuning
from cuvee.train.finetuning import Rows, Trainable
from cuvee.train.settings import Training, TrainSettings, given
from cuvee.train.weighting import OnStep, PreparedLoss

CHECKPOINT_FILE = "checkpoint.pt"
_CLIP = 1.0  # largest norm of a gradient
_EVALUATIONS = 10  # and checkpoints, over a training where evaluate_every or checkpoint_every is not given
Tensors = list[torch.Tensor]


def train_loop(
    model: Trainable,
    loss: PreparedLoss,
    settings: TrainSettings,
    *,
    key: str = "",
    keep_last: bool = False,
    progress: OnStep | None = None,
    folder: Path | None = None,
) -> TrainingCourse:
    """Train ``model`` in place; it is in eval mode afterwards.

    On a CPU, equal arguments and an equal number of torch threads give equal bits, and so does a training that
    was killed and taken up from a checkpoint. AdamW; learning rates rise over the first tenth of the steps and
    fall to 0 linearly.

    Args:
        model: what to train.
        loss: of the kept rows.
        settings: with ``steps`` and ``batch_size`` filled in. Exactly so many steps are taken, fewer only where
            ``patience`` stops early and goes back to the best weights. ``accumulate`` computes a step's batch in
            pieces: the batch, and so the result but for rounding, stays what it is; only the memory shrinks. With
            more than one piece, log probabilities of the whole batch are computed first (slopes may depend on all of
            them), which costs a third more time.
        key: what else makes this training what it is (rows, model); a checkpoint of another is not taken up.
        keep_last: with ``patience``: stay with the last weights; the best ones are scored and not kept.
        progress: called after each step.
        folder: of checkpoints; one of this very training is taken up. The caller deletes it when it is of no more
            use.

    Raises:
        TrainingError: out of memory, a loss that is not finite, or a checkpoint of another training.
        ConfigError: patience without real validation rows.
    """
    if settings.patience is not None and model.held_out == 0:
        raise ConfigError(f"patience is {settings.patience}, but there are no validation rows; give some or leave it")
    remedy = f"lower batch_size (now {settings.batch_size}) or max_length, raise accumulate, or set device: cpu"
    seed = derive_seed(settings.seed, "train", "dropout")
    with explain_memory(model.device, remedy), own_random_stream(model.device, seed):
        run = _Run(model, loss, settings, key=key, keep_last=keep_last)
        steps, every = run.steps, settings.checkpoint_every or max(1, run.steps // _EVALUATIONS)
        if folder is not None:
            run.take_up(folder)
        model.module.train()
        while run.state.step < steps and not run.stopped:
            value = run.take_step()
            if progress is not None:
                progress(run.state.step, steps, value)
            if settings.patience is not None and run.is_evaluation_due:
                run.note_score()
            if folder is not None and run.state.step % every == 0:
                run.write(folder)
        run.finish()
    model.module.eval()
    return run.state


def fine_tune(rows: Trainable, training: Training, *, keep_last: bool = False) -> TrainingCourse:
    """``train_loop`` of a training in whose settings nothing is left open.

    Args:
        rows: the model with the rows of the training.
        training: what is asked for.
        keep_last: the model keeps its last weights, though ``patience`` asks for the best ones: both are scored.
    """
    settings, held_out = training.settings, training.validation
    # how often a checkpoint is written does not change what is trained
    parts = [held_out and held_out.fingerprint, replace(settings, checkpoint_every=None)]
    return train_loop(
        rows, training.loss, settings, key=hash_value([training.corpus.fingerprint, *parts]), keep_last=keep_last,
        progress=training.progress, folder=training.folder,
    )  # fmt: skip


@dataclass(kw_only=True)
class TrainingCourse:
    """What a training has seen so far, beside weights and optimiser: all of it stands in a checkpoint.

    Attributes:
        step: steps done.
        losses: of each step.
        scores: of each evaluation on real validation rows; empty without ``patience``.
        anchor: the weights at the start of a phase with a pull.
        best: the best weights on validation rows.
        best_score: theirs.
        best_step: the step that they are of; at the end, that of the weights which the model has.
        bad: evaluations in a row without a gain.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    anchor: Tensors = field(default_factory=list)
    best: Tensors = field(default_factory=list)
    best_score: float = -math.inf
    best_step: int = 0
    bad: int = 0


class _Run:
    """A training under way: all that changes from step to step."""

    def __init__(
        self, model: Trainable, loss: PreparedLoss, settings: TrainSettings, *, key: str, keep_last: bool
    ) -> None:
        self._model, self._loss, self._settings, self._keep_last = model, loss, settings, keep_last
        self.steps = given(settings.steps)
        self._batches = finetuning.draw_batches(loss.phases, settings)
        self._starts = finetuning.phase_starts(loss.phases, self.steps)
        self._names = [name for name, p in model.module.named_parameters() if p.requires_grad]
        self._trained = [p for p in model.module.parameters() if p.requires_grad]
        self._clipped = [p for group in model.groups if group.clipped for p in group.parameters if p.requires_grad]
        self._optimizer, self._scheduler = finetuning.build_optimizer(model.groups, self.steps)
        self._precision = choose_dtype(settings.precision or "auto", model.device)
        self._key = self._name_training(key)  # now: a loss may change its weights as it learns
        self.state = TrainingCourse()

    @property
    def stopped(self) -> bool:
        """Whether patience has ended."""
        return self._settings.patience is not None and self.state.bad >= self._settings.patience

    @property
    def is_evaluation_due(self) -> bool:
        """Whether to look at the model on validation rows after this step."""
        every = self._settings.evaluate_every or max(1, self.steps // _EVALUATIONS)
        return self.state.step % every == 0 or self.state.step == self.steps

    def take_step(self) -> float:
        """One optimiser step; gives its loss."""
        rows = self._batches[self.state.step]
        phase = max(i for i, start in enumerate(self._starts) if start <= self.state.step)
        pull = self._loss.phases[phase].pull
        if pull > 0 and (self.state.step in self._starts or not self.state.anchor):
            self.state.anchor = [p.detach().clone() for p in self._trained]
        self._optimizer.zero_grad(set_to_none=True)
        value = self._add_gradients(rows)
        if pull > 0:
            self._pull_back(pull)
        torch.nn.utils.clip_grad_norm_(self._clipped, _CLIP)
        self._optimizer.step()
        self._scheduler.step()
        self.state.step += 1
        self.state.losses.append(value)
        return value

    def _add_gradients(self, rows: Rows) -> float:
        """Compute the batch's gradient, in pieces; gives the mean loss."""
        pieces = [piece for piece in np.array_split(rows, self._settings.accumulate or 1) if len(piece)]
        slopes: Floats | None = None
        if len(pieces) > 1:
            states = finetuning.random_state(self._model.device)
            with torch.no_grad():
                whole = np.concatenate([_numbers(self._log_p(piece)) for piece in pieces])
            value, slopes = self._read_loss(rows, whole)
            finetuning.restore_random_state(self._model.device, states)  # the same dropout in both passes
        at = 0
        for piece in pieces:
            log_p = self._log_p(piece)
            if slopes is None:
                value, found = self._read_loss(rows, _numbers(log_p))
            else:
                found = slopes[at : at + len(piece)]
            at += len(piece)
            surrogate = (torch.as_tensor(found, dtype=log_p.dtype, device=log_p.device) * log_p).sum() / len(rows)
            torch.autograd.backward(surrogate)
        return value

    def _log_p(self, rows: Rows) -> torch.Tensor:
        is_short = self._precision != torch.float32
        with torch.autocast(self._model.device.type, dtype=torch.bfloat16, enabled=is_short):
            return self._model.log_p(rows).float()

    def _read_loss(self, rows: Rows, log_p: Floats) -> tuple[float, Floats]:
        """The mean loss and the slopes of a batch.

        Raises:
            TrainingError: they are not finite.
        """
        if np.isfinite(log_p).all():
            value = float(self._loss.values(rows, log_p).mean())
            slopes = self._loss.slopes(rows, log_p)
            if math.isfinite(value) and np.isfinite(slopes).all():
                return value, slopes
        else:
            value = float(-log_p.sum())
        rate, step = self._model.groups[0].learning_rate, self.state.step + 1
        raise TrainingError(f"the loss is {value} at step {step} of {self.steps}; lower learning_rate (now {rate:g})")

    def _pull_back(self, pull: float) -> None:
        """The gradient of pull/2 times the squared distance from where the phase began."""
        for parameter, start in zip(self._trained, self.state.anchor, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - start, alpha=pull)

    def note_score(self) -> None:
        """Look at the model on validation rows; keep its weights if they are the best, else lose patience."""
        state = self.state
        self._model.module.eval()
        with torch.no_grad():
            score = self._model.validate()
        self._model.module.train()
        state.scores.append(score)
        if score > state.best_score:
            state.best_score, state.best_step, state.bad = score, state.step, 0
            state.best = [] if self._keep_last else [p.detach().clone() for p in self._trained]
        else:
            state.bad += 1

    def finish(self) -> None:
        """Go back to the best weights, if any were kept."""
        if self.state.best:
            copy_all(self.state.best, self._trained)
        else:
            self.state.best_step = self.state.step
        self.state.best, self.state.anchor = [], []  # as large as the model, and of no more use

    def _name_training(self, key: str) -> str:
        """A hash of all that makes this training what it is."""
        own = self._settings
        shapes = [[name, *p.shape] for name, p in zip(self._names, self._trained, strict=True)]
        parts = [self.steps, own.batch_size, own.seed, own.accumulate or 1, own.precision or "auto", own.patience]
        weights = np.asarray(self._loss.weights, dtype=np.float64).tobytes()
        kept = ["last"] if self._keep_last else []
        return hash_value([*parts, own.evaluate_every, key, shapes, weights, self._batches.tobytes(), *kept])

    def write(self, folder: Path) -> None:
        """Write all that this training consists of to ``folder``."""
        parts = {
            "key": self._key,
            "weights": [p.detach() for p in self._trained],
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "random": finetuning.random_state(self._model.device),
            "state": vars(self.state),
        }
        write_checkpoint(folder, parts)

    def take_up(self, folder: Path) -> None:
        """Go on where the checkpoint in ``folder`` was written, if there is one."""
        if not (folder / CHECKPOINT_FILE).is_file():
            return
        found, device = read_checkpoint(folder / CHECKPOINT_FILE, self._key), self._model.device
        copy_all(found["weights"], self._trained)
        self._optimizer.load_state_dict(found["optimizer"])
        self._scheduler.load_state_dict(found["scheduler"])
        finetuning.restore_random_state(device, found["random"])
        self.state = state = found["state"]
        state.anchor, state.best = ([t.to(device) for t in part] for part in (state.anchor, state.best))


def _numbers(log_p: torch.Tensor) -> Floats:
    return np.asarray(log_p.detach().cpu().double().numpy())


def write_checkpoint(folder: Path, parts: Mapping[str, object]) -> None:
    """Write ``checkpoint.pt``: a kill at any instant leaves a whole one.

    Raises:
        TrainingError: the disk refuses.
    """
    try:
        with whole_file(folder / CHECKPOINT_FILE) as temporary, temporary.open("wb") as stream:
            torch.save(parts, stream)
    except OSError as exc:
        raise TrainingError(
            f"{folder}: the checkpoint cannot be written ({exc}); free some disk, or leave checkpoint_every out"
        ) from exc


def read_checkpoint(path: Path, key: str) -> dict[str, Any]:
    """What ``write_checkpoint`` was given, its state as a ``TrainingCourse``. Tensors and values are read, no code.

    Raises:
        InputError: it is broken.
        TrainingError: it is of another training than ``key`` names.
    """
    with explain_damage(str(path), "delete it to train from the start"):
        if not zipfile.is_zipfile(path):  # what torch writes is one
            raise zipfile.BadZipFile("cut short, or not written by torch")
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if found["key"] != key:
            raise TrainingError(f"{path}: of a training on other rows or settings; delete it, or give another folder")
        found["state"] = TrainingCourse(**found["state"])
        return found


def copy_all(source: Sequence[torch.Tensor], target: Sequence[torch.nn.Parameter]) -> None:
    """Write values into parameters, wherever they are."""
    with torch.no_grad():
        for value, parameter in zip(source, target, strict=True):
            parameter.copy_(value)
