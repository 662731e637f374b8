"""What the training loop is told: how long, on what batches, and of which model. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from cuvee.errors import ConfigError, MissingDependency, TrainingError
from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.inputs import explain_damage, first_line
from cuvee.language_models import own_random_stream, quiet_loading
from cuvee.probe import Phase
from cuvee.train.settings import TrainSettings, given

_WARM_UP = 0.1  # fraction of the steps over which the learning rates rise
_WEIGHT_DECAY = 0.01
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters with their own peak learning rate; the gradients of all ``clipped`` groups have norm 1 at most."""

    parameters: tuple[torch.nn.Parameter, ...]
    learning_rate: float
    clipped: bool = True


class Trainable(Protocol):
    """A model with the rows it is trained on: what the loop needs to know of either.

    Where rows of a batch depend on each other (in-batch negatives), train with ``accumulate`` 1.
    """

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""

    @property
    def module(self) -> torch.nn.Module:
        """All that is trained: switched between train and eval mode, and checkpointed by its trained parameters."""

    @property
    def groups(self) -> Sequence[ParameterGroup]:
        """The parameters that are trained; those of a group that need no gradient are left out."""

    def log_p(self, rows: Rows) -> torch.Tensor:
        """Log probability of the target of each kept row in ``rows``, shape (b,), with its graph."""

    @property
    def held_out(self) -> int:
        """Real validation rows; 0 where there are none."""

    def validate(self) -> float:
        """Score of the model on the real validation rows, where there are any; higher is better."""


def draw_batches(phases: Sequence[Phase], settings: TrainSettings) -> Rows:
    """Places of each batch among the kept rows, shape (steps, batch_size).

    Batches of a phase are cut from seeded permutations of its rows, one after another, and may straddle two.

    Raises:
        TrainingError: a phase has no rows.
    """
    size, steps, parts = given(settings.batch_size), given(settings.steps), []
    starts = [*phase_starts(phases, steps), steps]
    for number, phase in enumerate(phases):
        length = (starts[number + 1] - starts[number]) * size
        if length == 0:
            continue
        if len(phase.rows) == 0:
            raise TrainingError(f"phase {number + 1} of the training has no rows; give some, or choose another loss")
        # the first phase has the stream of a training without phases
        rng = derive_rng(settings.seed, "train", "batches", *([number] if number else []))
        passes = [rng.permutation(len(phase.rows)) for _ in range(-(-length // len(phase.rows)))]
        parts.append(np.asarray(phase.rows)[np.concatenate(passes)[:length]].reshape(-1, size))
    return np.concatenate(parts).astype(np.int64)


def phase_starts(phases: Sequence[Phase], steps: int) -> list[int]:
    """The step that each phase begins at: shares of the steps, rounded."""
    ends = np.rint(np.cumsum([phase.share for phase in phases]) * steps).astype(int)
    return [0, *(int(min(end, steps)) for end in ends[:-1])]


def build_optimizer(
    groups: Sequence[ParameterGroup], steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW, and the factor of its rates: rising over the first tenth of the steps, falling to 0 linearly."""
    chosen = [
        {"params": [p for p in group.parameters if p.requires_grad], "lr": group.learning_rate} for group in groups
    ]
    optimizer = torch.optim.AdamW(chosen, weight_decay=_WEIGHT_DECAY, fused=True)
    warm = max(1.0, _WARM_UP * steps)

    def factor(step: int) -> float:
        if step + 1 < warm:
            return (step + 1) / warm
        return max(0.0, (steps - step) / max(1.0, steps - warm + 1))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def prepare_training(model: PreTrainedModel, settings: TrainSettings) -> PreTrainedModel:
    """The model with the adapters and the thrift that ``settings`` ask for; it stays on its device.

    Raises:
        MissingDependency: peft is not installed. ConfigError: the model cannot.
    """
    device = model.device
    if settings.lora_rank is not None:
        model = add_lora(model, settings.lora_rank, settings.lora_alpha, settings.seed).to(device)
    if settings.gradient_checkpointing:
        save_memory(model)
    return model


def add_lora(model: PreTrainedModel, rank: int, alpha: float | None, seed: int) -> PreTrainedModel:
    """The model with low-rank adapters on all its linear layers but the last, and nothing else to train.

    Args:
        model: changed in place.
        rank: of the adapters.
        alpha: their scale is ``alpha / rank``; None is twice the rank.
        seed: of their first weights; they begin as no change at all.

    Raises:
        MissingDependency: peft is not installed.
        ConfigError: the model has no layer that an adapter fits.
    """
    if find_spec("peft") is None:
        raise MissingDependency("lora_rank needs peft: pip install 'cuvee[train]'")
    from peft import LoraConfig, get_peft_model

    wanted = LoraConfig(r=rank, lora_alpha=alpha or 2 * rank, target_modules="all-linear", lora_dropout=0.0)
    try:
        with quiet_loading(), own_random_stream(torch.device("cpu"), derive_seed(seed, "train", "lora")):
            return get_peft_model(model, wanted)
    except ValueError as exc:
        raise ConfigError(f"lora_rank {rank}: no adapter fits the model ({first_line(exc)}); leave it out") from exc


def merge_lora(model: PreTrainedModel) -> PreTrainedModel:
    """The plain model with the adapters added to its weights; a model without adapters as it is."""
    merge = getattr(model, "merge_and_unload", None)
    return model if merge is None else merge()


def load_adapters(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with the adapters that peft wrote into ``folder``.

    Raises:
        MissingDependency: peft is not installed. InputError: they cannot be read, or are of another model.
    """
    if find_spec("peft") is None:
        raise MissingDependency("the model's adapters need peft: pip install 'cuvee[train]'")
    from peft import PeftModel

    with explain_damage(f"{folder}: adapters", "train again"), quiet_loading():
        return PeftModel.from_pretrained(model, str(folder)).eval()


def save_memory(model: PreTrainedModel) -> None:
    """Compute activations again in the backward pass instead of keeping them: less memory, about a third slower.

    Raises:
        ConfigError: the model cannot.
    """
    try:
        if hasattr(model, "activation_checkpointing_enable"):  # of newer releases, which warn of the older name
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as exc:
        raise ConfigError(f"gradient_checkpointing: {first_line(exc)}; leave it out") from exc


def random_state(device: torch.device) -> list[torch.Tensor]:
    """Torch's random state on the CPU and, if it is another, on ``device``."""
    states = [torch.get_rng_state()]
    return states if device.type == "cpu" else [*states, torch.get_device_module(device).get_rng_state()]


def restore_random_state(device: torch.device, states: list[torch.Tensor]) -> None:
    """Put back what ``random_state`` gave."""
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[1])
