"""A causal language model with its tokenizer: log probabilities of completions, and writing them.

Imports torch and transformers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from cuvee.errors import ConfigError, InputError
from cuvee.fingerprint import derive_rng
from cuvee.language_models import LanguageModel, choose_device, explain_memory, load_causal_model, quiet_loading
from cuvee.model_files import ModelFiles
from cuvee.records import Sampling
from cuvee.train.schedule import Scores
from cuvee.train.sequences import IGNORED, Layout, TokenPair, lay_out

Template = Literal["chat", "plain"]
_FOLDER = "model"
_BATCH = 16


@lru_cache(maxsize=1)
def load_trainable(files: ModelFiles) -> LanguageModel:
    """A causal language model in float32, and its tokenizer.

    Loaded once a process (a GGUF file takes half a minute); callers train a copy.

    Raises:
        InputError: the files cannot be loaded, or are of another kind of model.
        MissingDependency: they need a package that is not installed.
    """
    loaded = load_causal_model(files)
    if loaded.tokenizer.eos_token_id is None:
        raise InputError(f"model {files.shown!r} has no end token; give one whose tokenizer has")
    if files.gguf_file is not None:
        # the same weights as a model that transformers knows it may train and save: they are float32 by now
        config = copy.deepcopy(loaded.model.config)
        del config.quantization_config
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        plain.load_state_dict(loaded.model.state_dict())
        plain.generation_config = loaded.model.generation_config
        loaded.model = plain
    return loaded


class CausalModel:
    """A causal language model on one device.

    A prompt is followed by a line break and the completion (``plain``), or is the user's turn and the completion
    the assistant's (``chat``: the tokenizer's template). Both end with the tokenizer's end token. Too long a prompt
    loses its beginning; a completion is never cut.

    Args:
        model: gives logits.
        tokenizer: of the model, with an end token.
        device: where the model is put.
        max_length: tokens of prompt and completion together.
        template: None takes ``chat`` where the tokenizer has a chat template.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: torch.device, max_length: int,
        template: Template | None = None,
    ) -> None:  # fmt: skip
        self.model = model.to(device).eval()
        self.tokenizer = tokenizer
        self.device = device
        self.max_length = max_length
        self.template: Template = template or ("chat" if tokenizer.chat_template else "plain")

    @classmethod
    def from_pretrained(cls, files: ModelFiles, *, device: str, max_length: int) -> CausalModel:
        """A copy of the model of these ``files``, ready to be trained.

        Raises:
            InputError: it cannot be loaded, or is no causal language model.
            ConfigError: an unknown device, or too large a max_length.
            MissingDependency: its files need a package that is not installed.
        """
        where = choose_device(device)
        loaded = load_trainable(files)
        found = cls(copy.deepcopy(loaded.model), loaded.tokenizer, where, max_length)
        if max_length > found.limit:
            raise ConfigError(f"max_length is {max_length}; model {files.shown!r} reads at most {found.limit} tokens")
        return found

    @property
    def limit(self) -> int:
        """Tokens that the model can read."""
        return self._language_model.limit

    @property
    def _language_model(self) -> LanguageModel:
        return LanguageModel(model=self.model, tokenizer=self.tokenizer)  # training exchanges the model

    @property
    def can_pack(self) -> bool:
        """Whether rows that share a sequence stay apart: tried on two, since not every model heeds positions."""
        sample = [self._encode(text)[:16] or [0] for text in ("One two three.", "Seven eight, nine and ten.")]
        pairs = [TokenPair(tuple(ids), tuple(ids[::-1])) for ids in sample]
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                apart, packed = self.log_p(pairs), self.log_p(pairs, pack_to=4 * len(pairs[1]))
        except TypeError:  # the model takes no positions
            return False
        finally:
            self.model.train(training)
        return torch.allclose(apart, packed, rtol=1e-3, atol=1e-3)

    def tokenize(self, prompt: str, completion: str) -> TokenPair | None:
        """The row's tokens, the prompt cut on the left to fit; None where the completion leaves no room for it."""
        tokens = self.completion_tokens(completion)
        head = self.prompt_tokens(prompt, self.max_length - len(tokens))
        return None if head is None else TokenPair(head, tokens)

    def completion_tokens(self, completion: str) -> tuple[int, ...]:
        """The tokens of a completion and the end token."""
        return (*self._encode(completion), int(self.tokenizer.eos_token_id))

    def prompt_tokens(self, prompt: str, room: int) -> tuple[int, ...] | None:
        """At most ``room`` tokens: the prompt in its template, without as much of its beginning as must go."""
        tokens = self._render(prompt)
        rest = self._encode(prompt) if len(tokens) > room else []
        while len(tokens) > room:
            if not rest:
                return None
            rest = rest[max(1, len(tokens) - room) :]
            tokens = self._render(str(self.tokenizer.decode(rest, clean_up_tokenization_spaces=False)))
        return tuple(tokens)

    def log_p(self, pairs: Sequence[TokenPair], *, pack_to: int | None = None) -> torch.Tensor:
        """Mean log probability of each completion's tokens, the end token among them, shape (len(pairs),)."""
        sums = self.log_p_sums(lay_out(pairs, pack_to=pack_to))
        lengths = torch.tensor([len(pair.completion) for pair in pairs], device=self.device, dtype=sums.dtype)
        return sums / lengths

    def log_p_sums(self, layout: Layout) -> torch.Tensor:
        """Sum of the log probabilities of each row's targets, shape (rows,), float32."""
        targets = layout.targets.to(self.device).ravel()
        found = -torch.nn.functional.cross_entropy(
            self._logits(layout).float().flatten(0, 1), targets, ignore_index=IGNORED, reduction="none"
        )
        owners = layout.owners.to(self.device).ravel()
        return torch.zeros(layout.rows, device=self.device).index_add(0, owners, found)

    def scores(self, pairs: Sequence[TokenPair]) -> Scores:
        """Scores of the vocabulary at each token of the completions, weighed so that each row counts one."""
        layout = lay_out(pairs)
        wanted = layout.targets.ravel() != IGNORED
        lengths = torch.tensor([len(pair.completion) for pair in pairs])
        weights = 1.0 / lengths[layout.owners.ravel()[wanted]]
        logits = self._logits(layout).float().flatten(0, 1)[wanted.to(self.device)]
        truth = layout.targets.ravel()[wanted].to(self.device)
        return Scores(logits=logits, truth=truth, weights=weights.to(self.device))

    def _logits(self, layout: Layout) -> torch.Tensor:
        """At the columns that are wanted, shape (sequences, columns, vocabulary)."""
        where = {"position_ids": layout.positions} if layout.mask is None else {"attention_mask": layout.mask}
        inputs = {name: tensor.to(self.device) for name, tensor in {"input_ids": layout.ids, **where}.items()}
        columns = layout.columns.to(self.device)
        try:  # a vocabulary is large: logits only where they are wanted
            logits: torch.Tensor = self.model(**inputs, logits_to_keep=columns, use_cache=False).logits
        except TypeError:  # this model gives all
            logits = self.model(**inputs, use_cache=False).logits
        return logits if logits.shape[1] == len(columns) else logits[:, columns]

    def mean_log_p(self, prompts: Sequence[str], completions: Sequence[str]) -> NDArray[np.float64]:
        """Mean log probability of each completion's tokens as training reads them; NaN where one does not fit.

        Raises:
            TrainingError: out of memory.
        """
        tokenized = [self.tokenize(*row) for row in zip(prompts, completions, strict=True)]
        out = np.full(len(tokenized), np.nan)
        fitting = {i: pair for i, pair in enumerate(tokenized) if pair is not None}
        out[list(fitting)] = self._read(list(fitting.values()), self.log_p)
        return out

    def log_likelihood(self, prompts: Sequence[str], completions: Sequence[str]) -> NDArray[np.float64]:
        """Sum of log probabilities and number of tokens of each completion, shape (n, 2).

        Raises:
            ValueError: another number of completions than of prompts.
            InputError: a completion is longer than the model can read.
            TrainingError: out of memory.
        """
        if len(prompts) != len(completions):
            raise ValueError(f"completions has {len(completions)} entries for {len(prompts)} prompts; give one each")
        pairs = [self._fit(number, *row) for number, row in enumerate(zip(prompts, completions, strict=True))]
        out = np.zeros((len(pairs), 2))
        out[:, 1] = [len(pair.completion) for pair in pairs]
        out[:, 0] = self._read(pairs, lambda part: self.log_p_sums(lay_out(part)))
        return out

    def _read(
        self, pairs: Sequence[TokenPair], read: Callable[[Sequence[TokenPair]], torch.Tensor]
    ) -> NDArray[np.float64]:
        """What ``read`` gives for each pair, read in order of length, for speed."""
        out = np.zeros(len(pairs))
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i]))
        self.model.eval()
        with explain_memory(self.device, "set device: cpu, or train with a lower max_length"), torch.inference_mode():
            for start in range(0, len(order), _BATCH):
                rows = order[start : start + _BATCH]
                out[rows] = read([pairs[i] for i in rows]).cpu().double().numpy()
        return out

    def write(self, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int) -> list[str]:
        """A completion of each prompt: greedy at temperature 0, else drawn from a stream of the prompt's own place.

        So the text does not depend on what shares a batch, but for rounding.

        Raises:
            ValueError: max_tokens or temperature out of range.
            InputError: max_tokens leaves no room for a prompt.
            OutOfMemory: there is no memory for a single prompt.
        """
        if max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens!r}; must be at least 1")
        if not (np.isfinite(temperature) and temperature >= 0):
            raise ValueError(f"temperature is {temperature!r}; must be a finite number of at least 0")
        room = min(self.max_length, self.limit - max_tokens)
        heads: list[tuple[int, ...]] = []
        for number, prompt in enumerate(prompts):
            head = self.prompt_tokens(prompt, room)
            if head is None:
                raise InputError(f"prompt {number}: no room with max_tokens {max_tokens}; the model reads {self.limit}")
            heads.append(head)
        order = sorted(range(len(heads)), key=lambda i: len(heads[i]))
        out = [""] * len(heads)
        self.model.eval()
        while order:
            streams = [derive_rng(seed, "train", "write", row) for row in order[:_BATCH]]
            sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
            written = self._language_model.write([heads[i] for i in order[:_BATCH]], streams, sampling)
            for completion in written:
                out[order.pop(0)] = completion.text
        return out

    def _fit(self, number: int, prompt: str, completion: str) -> TokenPair:
        """As ``tokenize``, with more room where a completion needs it."""
        tokens = self.completion_tokens(completion)
        head = self.prompt_tokens(prompt, self.max_length - len(tokens)) or tuple(self._render(""))
        if not head or len(head) + len(tokens) > self.limit:
            raise InputError(f"completion {number}: {len(tokens)} tokens; the model reads at most {self.limit}")
        return TokenPair(head, tokens)

    def _render(self, prompt: str) -> list[int]:
        """The prompt's tokens in its template."""
        if self.template == "plain":
            tokens = [int(token) for token in self.tokenizer(f"{prompt}\n")["input_ids"]]
            return tokens or [int(self.tokenizer.eos_token_id)]  # a completion needs something to follow
        return list(self._language_model.chat_tokens([("user", prompt)], "choose another model"))

    def _encode(self, text: str) -> list[int]:
        return [int(token) for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]]

    def write_weights(self, folder: Path) -> None:
        """Write the model and its tokenizer to ``folder/model``, as transformers does."""
        with quiet_loading():
            self.model.save_pretrained(folder / _FOLDER)
            self.tokenizer.save_pretrained(str(folder / _FOLDER))

    @classmethod
    def read_weights(cls, folder: Path, *, device: str, max_length: int, template: Template) -> CausalModel:
        """What ``write_weights`` wrote.

        Raises:
            InputError: files are missing or broken. ConfigError: an unknown device.
        """
        where = choose_device(device)
        if not (folder / _FOLDER).is_dir():  # transformers would take the path for a name on the hub
            raise InputError(f"{folder / _FOLDER}: no such folder; train again")
        loaded = load_trainable.__wrapped__(ModelFiles(place=str(folder / _FOLDER), local=True))
        return cls(loaded.model, loaded.tokenizer, where, max_length, template)
