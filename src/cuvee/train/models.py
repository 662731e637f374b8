"""What every fine-tuned model needs: adapters, less memory, and its random state.

Imports torch and transformers. Weights are kept in float32 whatever ``precision`` says: bfloat16 is for the
arithmetic of a step, and updates of a short training are smaller than its rounding.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from transformers import PreTrainedModel

from cuvee.errors import ConfigError, MissingDependency
from cuvee.fingerprint import derive_seed
from cuvee.inputs import first_line
from cuvee.language_models import own_random_stream, quiet_loading
from cuvee.train.settings import TrainSettings

PRECISIONS = ("auto", "float32", "bfloat16")


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
        raise ConfigError(
            f"lora_rank {rank}: no adapter fits the model ({first_line(exc)}); leave lora_rank out"
        ) from exc


def merge_lora(model: PreTrainedModel) -> PreTrainedModel:
    """The plain model with the adapters added to its weights; a model without adapters as it is."""
    merge = getattr(model, "merge_and_unload", None)
    return model if merge is None else merge()


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
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        states.append(torch.mps.get_rng_state())
    return states


def restore_random_state(device: torch.device, states: list[torch.Tensor]) -> None:
    """Put back what ``random_state`` gave."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states[1])
