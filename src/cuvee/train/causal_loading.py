"""Loading a causal language model to be trained. Imports torch and transformers."""

from __future__ import annotations

import copy
from functools import lru_cache
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from cuvee.errors import InputError, MissingDependency
from cuvee.train.models import ModelPlace, first_line, own_random_stream, quiet_loading

_UNLOADABLE = (OSError, ValueError, KeyError, TypeError, SafetensorError, UnpicklingError)


@lru_cache(maxsize=1)
def load_language_model(place: ModelPlace) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model in float32, and its tokenizer.

    Loaded once a process (a GGUF file takes half a minute); callers train a copy.

    Raises:
        InputError: the files cannot be loaded, or are of another kind of model.
        MissingDependency: they need a package that is not installed.
    """
    remedy = "give a folder, a .gguf file or a name on the hub"
    try:
        with quiet_loading(gguf=place.gguf_file is not None), own_random_stream(torch.device("cpu"), 0):
            tokenizer = AutoTokenizer.from_pretrained(
                place.place, gguf_file=place.gguf_file, local_files_only=place.local, trust_remote_code=False
            )
            model, info = AutoModelForCausalLM.from_pretrained(
                place.place, gguf_file=place.gguf_file, local_files_only=place.local, dtype=torch.float32,
                output_loading_info=True, trust_remote_code=False,
            )  # fmt: skip
            plain = model if place.gguf_file is None else _forget_quantization(model)
    except ImportError as exc:
        raise MissingDependency(f"model {place.name!r}: {first_line(exc)}") from exc
    except _UNLOADABLE as exc:
        raise InputError(f"model {place.name!r} cannot be loaded ({first_line(exc)}); {remedy}") from exc
    # a file of another kind of model loads too, its missing layers drawn at random
    if missing := sorted(map(str, info["missing_keys"])):
        raise InputError(f"model {place.name!r} has no weights for {missing[0]}; give a causal language model")
    if tokenizer.eos_token_id is None:
        raise InputError(f"model {place.name!r} has no end token; give one whose tokenizer has")
    return plain, tokenizer


def _forget_quantization(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights as a model that transformers knows it may train and save: a GGUF file's are float32 by now."""
    config = copy.deepcopy(model.config)
    del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    return plain
