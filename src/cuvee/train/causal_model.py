"""A causal language model with its tokenizer: log probabilities of completions, and writing them.

Imports torch and transformers.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jinja2 import TemplateError
from numpy.typing import NDArray
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from cuvee.errors import ConfigError, InputError
from cuvee.fingerprint import derive_rng
from cuvee.inputs import first_line
from cuvee.train.causal_loading import load_language_model
from cuvee.train.drawing import GumbelNoise
from cuvee.train.models import ModelPlace, choose_device, explain_memory, quiet_loading
from cuvee.train.schedule import Scores
from cuvee.train.sequences import IGNORED, Layout, TokenPair, lay_out

Template = Literal["chat", "plain"]
_FOLDER = "model"
_BATCH = 16
_NO_LIMIT = 1 << 20


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
        self._takes = frozenset(inspect.signature(model.forward).parameters)
        own = getattr(model.generation_config, "eos_token_id", None)
        endings = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
        self._endings = sorted({int(token) for token in endings if token is not None})
        # what the model came with (penalties, truncation) would change what is written in silence
        model.generation_config = GenerationConfig(
            eos_token_id=self._endings, pad_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id
        )

    @classmethod
    def from_pretrained(cls, place: ModelPlace, *, device: str, max_length: int) -> CausalModel:
        """A copy of the model at ``place``, ready to be trained.

        Raises:
            InputError: it cannot be loaded, or is no causal language model.
            ConfigError: an unknown device, or too large a max_length.
            MissingDependency: its files need a package that is not installed.
        """
        where = choose_device(device)
        model, tokenizer = load_language_model(place)
        found = cls(copy.deepcopy(model), tokenizer, where, max_length)
        if max_length > found.limit:
            raise ConfigError(f"max_length is {max_length}; model {place.name!r} reads at most {found.limit} tokens")
        return found

    @property
    def limit(self) -> int:
        """Tokens that the model can read."""
        return int(getattr(self.model.config, "max_position_embeddings", None) or _NO_LIMIT)

    @property
    def can_pack(self) -> bool:
        """Whether rows that share a sequence stay apart: tried on two, since not every model heeds positions."""
        if "position_ids" not in self._takes:
            return False
        sample = [self._encode(text)[:16] or [0] for text in ("One two three.", "Seven eight, nine and ten.")]
        pairs = [TokenPair(tuple(ids), tuple(ids[::-1])) for ids in sample]
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            apart, packed = self.log_p(pairs), self.log_p(pairs, pack_to=4 * len(pairs[1]))
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
        inputs = {"input_ids": layout.ids, "attention_mask": layout.mask, "position_ids": layout.positions}
        chosen = {k: v.to(self.device) for k, v in inputs.items() if k in self._takes and v is not None}
        columns = layout.columns.to(self.device)
        if "logits_to_keep" in self._takes:  # a vocabulary is large: logits only where they are wanted
            kept: torch.Tensor = self.model(**chosen, logits_to_keep=columns, use_cache=False).logits
            return kept
        logits: torch.Tensor = self.model(**chosen, use_cache=False).logits
        return logits[:, columns]

    def mean_log_p(self, prompts: Sequence[str], completions: Sequence[str]) -> NDArray[np.float64]:
        """Mean log probability of each completion's tokens as training reads them; NaN where one does not fit.

        Raises:
            TrainingError: out of memory.
        """
        tokenized = [self.tokenize(*row) for row in zip(prompts, completions, strict=True)]
        out = np.full(len(tokenized), np.nan)
        fitting = {i: pair for i, pair in enumerate(tokenized) if pair is not None}
        order = sorted(fitting, key=lambda i: len(fitting[i]))
        self.model.eval()
        with explain_memory(self.device, "set device: cpu, or lower max_length"), torch.inference_mode():
            for start in range(0, len(order), _BATCH):
                rows = order[start : start + _BATCH]
                out[rows] = self.log_p([fitting[i] for i in rows]).cpu().double().numpy()
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
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i]))
        self.model.eval()
        with explain_memory(self.device, "set device: cpu, or train with a lower max_length"), torch.inference_mode():
            for start in range(0, len(order), _BATCH):
                rows = order[start : start + _BATCH]
                out[rows, 0] = self.log_p_sums(lay_out([pairs[i] for i in rows])).cpu().double().numpy()
        return out

    def write(self, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int) -> list[str]:
        """A completion of each prompt: greedy at temperature 0, else drawn from a stream of the prompt's own place.

        So the text does not depend on what shares a batch, but for rounding.

        Raises:
            ValueError: max_tokens or temperature out of range.
            InputError: max_tokens leaves no room for a prompt.
            TrainingError: out of memory.
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
        with explain_memory(self.device, "lower max_tokens, or set device: cpu"), torch.inference_mode():
            for start in range(0, len(order), _BATCH):
                rows = order[start : start + _BATCH]
                streams = [derive_rng(seed, "train", "write", row) for row in rows]
                found = self._generate([heads[i] for i in rows], streams, max_tokens, temperature)
                for row, text in zip(rows, found, strict=True):
                    out[row] = text
        return out

    def _generate(
        self,
        heads: Sequence[tuple[int, ...]],
        streams: Sequence[np.random.Generator],
        max_tokens: int,
        temperature: float,
    ) -> list[str]:
        width = max(map(len, heads))
        ids = torch.tensor([[0] * (width - len(h)) + list(h) for h in heads], device=self.device)
        mask = torch.tensor([[0] * (width - len(h)) + [1] * len(h) for h in heads], device=self.device)
        noise = LogitsProcessorList([GumbelNoise(streams, temperature)] if temperature > 0 else [])
        with quiet_loading():
            whole = self.model.generate(
                ids, attention_mask=mask, max_new_tokens=max_tokens, do_sample=False, logits_processor=noise
            )
        texts = []
        for line in whole[:, width:].tolist():
            end = next((at for at, token in enumerate(line) if token in self._endings), len(line))
            texts.append(self._decode(line[:end]))
        return texts

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
        turns = [{"role": "user", "content": prompt}]
        try:
            text = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        except TemplateError as exc:
            raise InputError(f"the model's chat template refuses a prompt ({first_line(exc)})") from exc
        return self._encode(text)

    def _encode(self, text: str) -> list[int]:
        return [int(token) for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

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
        model, tokenizer = load_language_model.__wrapped__(ModelPlace(place=str(folder / _FOLDER), local=True))
        return cls(model, tokenizer, where, max_length, template)
