"""Loading a causal language model of transformers: folder, GGUF file, or name on the hub. Imports torch."""

from __future__ import annotations

import io
import logging
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import constants, is_offline_mode, try_to_load_from_cache
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from cuvee.errors import ConfigError, InputError, MissingDependency
from cuvee.generate.decoding import TransformersDecoder, explain_memory
from cuvee.generate.model_files import ModelFiles
from cuvee.inputs import check_layers, explain_damage, first_line

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_REACH_S = 5.0
"""Seconds the hub has to answer: its own client would try for half a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model ready to answer. ``commit`` is that of a model from the hub."""

    decoder: TransformersDecoder
    commit: str | None


def load_model(files: ModelFiles, *, device: str, dtype: str, adapter: Path | None) -> LoadedModel:
    """The model with its tokenizer, on its device. A model on the hub is taken from the cache if it is there.

    Args:
        files: where it is.
        device: ``auto``, ``cuda``, ``cuda:N``, ``mps`` or ``cpu``.
        dtype: of the weights, ``auto`` or one of DTYPES.
        adapter: folder of a PEFT adapter to merge into it.

    Raises:
        ConfigError: an unknown device or dtype.
        InputError: the files cannot be loaded, or lack weights; the hub cannot be reached.
        MissingDependency: what the files need is not installed.
        GenerationError: out of memory.
    """
    where = choose_device(device)
    kind = choose_dtype(dtype, where)
    check_layers(files.place)
    with _quiet(files):
        try:
            return _load(files, where, kind, adapter, online=False)
        except InputError:
            if files.local:
                raise
        _reach_hub(files)
        return _load(files, where, kind, adapter, online=True)


def _load(
    files: ModelFiles, device: torch.device, dtype: torch.dtype, adapter: Path | None, *, online: bool
) -> LoadedModel:
    memory = "set dtype: bfloat16 or device: cpu, or choose a smaller model"
    damage = "give the folder of a causal language model, or a .gguf file"
    try:
        with explain_damage(files.shown, damage), explain_memory(device, memory):
            snapshot = None if files.local else _find_snapshot(files, online=online)
            commit = None if snapshot is None else snapshot.name
            # a cached model by its folder: given its name, transformers asks the hub for an adapter whatever it is told
            place = files.place if snapshot is None or online else str(snapshot)
            gguf, cached, version = files.gguf_file, not online, (online and commit) or "main"
            given = {"gguf_file": gguf, "revision": version, "local_files_only": cached, "trust_remote_code": False}
            tokenizer = AutoTokenizer.from_pretrained(place, **given)
            model, info = AutoModelForCausalLM.from_pretrained(place, **given, dtype=dtype, output_loading_info=True)
            # a file of another kind of model loads too, its missing layers drawn at random
            if missing := sorted(map(str, info["missing_keys"])):
                raise InputError(f"{files.shown}: has no weights for {missing[0]}; is it a causal language model?")
            if adapter is not None:
                model = _merge_adapter(model, adapter)
            return LoadedModel(decoder=TransformersDecoder(model, tokenizer, device), commit=commit)
    except ImportError as exc:
        raise MissingDependency(f"{files.shown}: {first_line(exc)}") from exc


def _find_snapshot(files: ModelFiles, *, online: bool) -> Path:
    """The folder of the cache that is named after the commit a branch or tag stands for, as cached or now."""
    revision = files.revision or "main"
    if online:
        AutoConfig.from_pretrained(files.place, revision=revision, trust_remote_code=False)
    config = try_to_load_from_cache(files.place, "config.json", revision=revision)
    if not isinstance(config, str):
        raise InputError(f"{files.shown}: is not in the cache")
    return Path(config).parent


def _reach_hub(files: ModelFiles) -> None:
    """See in seconds whether the hub answers.

    Raises:
        InputError: it does not.
    """
    remedy = "give a folder or a .gguf file, or download it where there is a network and copy the cache"
    if is_offline_mode():
        raise InputError(f"{files.shown}: is not in the cache and HF_HUB_OFFLINE is set; {remedy}")
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=_REACH_S).close()
    except urllib.error.HTTPError as exc:
        exc.close()  # it answers, though not to this question
    except OSError as exc:
        reason = getattr(exc, "reason", exc)
        raise InputError(
            f"{files.shown}: is not in the cache, and {constants.ENDPOINT} cannot be reached ({reason}); {remedy}"
        ) from exc


def _merge_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    try:
        from peft import PeftModel
    except ImportError as exc:
        raise MissingDependency("adapter needs peft: pip install peft") from exc
    with explain_damage(f"{adapter}: is no adapter that fits the model, and", "give another, or leave adapter out"):
        return PeftModel.from_pretrained(model, str(adapter), local_files_only=True).merge_and_unload()


def choose_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is cuda, else mps, else cpu.

    Raises:
        ConfigError: it is not on this machine.
    """
    here = ["cpu"]
    if torch.backends.mps.is_available():
        here.insert(0, "mps")
    if torch.cuda.is_available():
        here[:0] = ["cuda", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    if name != "auto" and name not in here:
        raise ConfigError(f"device {name!r} is not here; valid on this machine: {', '.join(['auto', *here])}")
    return torch.device(here[0] if name == "auto" else name)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format called ``name``; ``auto`` is bfloat16 on a GPU that computes in it, else float32.

    Raises:
        ConfigError: it is unknown.
    """
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    if name not in DTYPES:
        raise ConfigError(f"dtype {name!r}; valid choices: {', '.join(['auto', *DTYPES])}")
    return DTYPES[name]


@contextmanager
def _quiet(files: ModelFiles) -> Iterator[None]:
    """No progress bars, reports or warnings of the libraries that load; all as before afterwards."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if files.gguf_file is None:
                yield
            else:
                with redirect_stderr(io.StringIO()):  # its progress bar has no switch
                    yield
    finally:
        transformers_logging.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            transformers_logging.enable_progress_bar()
