"""What every fine-tuned model needs: a device, a number format, a random stream of its own, adapters.

Imports torch and transformers. Weights are kept in float32 whatever ``precision`` says: bfloat16 is for the
arithmetic of a step, and updates of a short training are smaller than its rounding.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from cuvee.errors import ConfigError, MissingDependency, TrainingError
from cuvee.fingerprint import derive_seed

PRECISIONS = ("auto", "float32", "bfloat16")
_MEMORY_MARKS = ("out of memory", "can't allocate memory", "not enough memory")


def choose_device(name: str) -> torch.device:
    """The device called ``name``: cpu, cuda, cuda:N or mps; ``auto`` is cuda, else mps, else cpu.

    Raises:
        ConfigError: it is not on this machine.
    """
    here = [f"cuda:{n}" for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    found = (["cuda", *here] if here else []) + (["mps"] if torch.backends.mps.is_available() else []) + ["cpu"]
    if name != "auto" and name not in found:
        raise ConfigError(f"device {name!r} is not here; valid on this machine: {', '.join(['auto', *found])}")
    return torch.device(found[0] if name == "auto" else name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The number format of a step's arithmetic: ``auto`` is bfloat16 on a GPU that computes in it, else float32.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in PRECISIONS:
        raise ConfigError(f"precision {name!r}; valid choices: {', '.join(PRECISIONS)}")
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


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
    require_package("peft", "lora_rank")
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
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as exc:
        raise ConfigError(f"gradient_checkpointing: {first_line(exc)}; leave it out") from exc
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False  # keys and values of the past are of no use in training, and warned of


def require_package(name: str, setting: str) -> None:
    """See that an optional package is there.

    Raises:
        MissingDependency: it is not; names ``setting``, which needs it.
    """
    if find_spec(name) is None:
        raise MissingDependency(f"{setting} needs {name}: pip install 'cuvee[train]'")


def first_line(exc: BaseException) -> str:
    """The first line of a message that is not empty, else the name of the exception."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[0] if lines else type(exc).__name__


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence transformers' progress bars, load reports and warnings, and put them back as they were."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # the bar of a GGUF file has no switch
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def explain_memory(device: torch.device, remedy: str) -> Iterator[None]:
    """Out of memory becomes one line; torch has a class for it on GPUs and bare RuntimeErrors elsewhere.

    Raises:
        TrainingError: the block ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        if isinstance(exc, RuntimeError) and not any(mark in str(exc).casefold() for mark in _MEMORY_MARKS):
            raise
        raise TrainingError(f"out of memory on {device}; {remedy}") from exc


@contextmanager
def own_random_stream(device: torch.device, seed: int) -> Iterator[None]:
    """Torch's random state (dropout reads it) is ours inside, and untouched outside."""
    accelerators = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(accelerators, device_type=device.type if accelerators else None):
        torch.manual_seed(seed)
        yield


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
