"""Loading a causal language model to be trained. Imports torch and transformers."""

from __future__ import annotations

import copy
from functools import lru_cache

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from cuvee.errors import InputError
from cuvee.train.models import ModelPlace, loading_model


@lru_cache(maxsize=1)
def load_language_model(place: ModelPlace) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model in float32, and its tokenizer.

    Loaded once a process (a GGUF file takes half a minute); callers train a copy.

    Raises:
        InputError: the files cannot be loaded, or are of another kind of model.
        MissingDependency: they need a package that is not installed.
    """
    with loading_model(place.name, gguf=place.gguf_file is not None):
        given = {"gguf_file": place.gguf_file, "local_files_only": place.local, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(place.place, **given)
        model, info = AutoModelForCausalLM.from_pretrained(
            place.place, **given, dtype=torch.float32, output_loading_info=True
        )
        plain = model if place.gguf_file is None else _forget_quantization(model)
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
