"""A causal language model of transformers that answers batches of prompts. Imports torch and transformers.

A loop of our own and not ``model.generate``: rows of one batch differ in temperature, truncation, seed, stop strings
and length, which ``generate`` takes once for all of them.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from jinja2 import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cuvee.errors import ConfigError, InputError
from cuvee.generate.batches import OutOfMemory, Prompt
from cuvee.generate.calls import Answer, Request
from cuvee.generate.drawing import Draws

_MEMORY_MARKS = ("out of memory", "can't allocate memory", "not enough memory")
_TAIL = 4
"""Last tokens of the prompt that an answer is decoded with: some tokenizers drop the space a text begins with."""
_NO_LIMIT = 1 << 20


class TransformersDecoder:
    """A causal language model and its tokenizer on one device.

    Args:
        model: gives logits, and keeps keys and values of what it has read.
        tokenizer: of the model.
        device: where the model is put.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: torch.device) -> None:
        self._model = model.to(device).eval()
        self._tokenizer = tokenizer
        self._device = device
        self._endings = _find_endings(model, tokenizer)
        self._takes = frozenset(inspect.signature(model.forward).parameters)
        if "past_key_values" not in self._takes:
            raise InputError(f"{type(model).__name__} keeps no key-value cache; serve it, and use generator: endpoint")

    @property
    def limit(self) -> int:
        """Tokens of prompt and answer together that the model can read."""
        return int(getattr(self._model.config, "max_position_embeddings", None) or _NO_LIMIT)

    @property
    def device_name(self) -> str:
        """Where it runs, for messages."""
        return str(self._device)

    @property
    def dtype_name(self) -> str:
        """Of its weights, for example ``float32``."""
        return str(self._model.dtype).removeprefix("torch.")

    @property
    def can_chat(self) -> bool:
        """Whether it has a chat template."""
        return bool(self._tokenizer.chat_template)

    def tokenize(self, request: Request) -> tuple[int, ...]:
        """The tokens of a prompt as the tokenizer begins one, or of messages in the chat template.

        Raises:
            ConfigError: messages, and there is no chat template or it refuses them.
        """
        if request.prompt is not None:
            return tuple(self._tokenizer(request.prompt)["input_ids"])
        if not self.can_chat:
            raise ConfigError("the model has no chat template; set api: completions, or choose an instruct model")
        messages = [{"role": role, "content": content} for role, content in request.messages]
        try:
            text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except TemplateError as exc:
            raise ConfigError(f"the model's chat template refuses the messages ({exc}); set api: completions") from exc
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """The answers, in the order of the prompts; ends when the last one has ended.

        Raises:
            OutOfMemory: the device has no room for so many prompts of this length.
            GenerationError: the model's logits are not finite.
        """
        rows = [_Row(prompt, self._tokenizer, self._endings) for prompt in prompts]
        draws = Draws([p.request.sampling for p in prompts], [p.request.seed for p in prompts])
        remedy = "lower context or max_tokens, set dtype: bfloat16 or device: cpu, or choose a smaller model"
        with explain_memory(self._device, remedy), torch.inference_mode():
            ids, mask = self._pad([p.ids for p in prompts])
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
            cache = None
            while True:
                inputs = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache, "use_cache": True}
                extra = {"position_ids": positions, "logits_to_keep": 1}  # models with ALiBi have no position_ids
                output = self._model(**inputs, **{name: v for name, v in extra.items() if name in self._takes})
                cache = output.past_key_values
                tokens = draws.next_tokens(output.logits[:, -1, :])
                for row, token in zip(rows, tokens.tolist(), strict=True):
                    row.take(token)
                if all(row.ended for row in rows):
                    break
                ids = tokens.unsqueeze(1).to(self._device)
                mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
                positions = positions[:, -1:] + 1
        return [row.answer() for row in rows]

    def free_memory(self) -> None:
        """Give cached blocks back to the device; on a CPU there are none."""
        if self._device.type == "cpu":
            return
        gc.collect()  # what a traceback held may be in a cycle
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        elif self._device.type == "mps":
            torch.mps.empty_cache()

    def unload(self) -> None:
        """Give the device's memory back; nothing can be decoded afterwards."""
        self._model = self._model.to("meta")
        self.free_memory()

    def _pad(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, padded on the left: all answers begin in the same column."""
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=self._device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self._device)
        return ids, mask


class _Row:
    """One prompt's answer as it grows."""

    def __init__(self, prompt: Prompt, tokenizer: PreTrainedTokenizerBase, endings: Collection[int]) -> None:
        self._prompt = prompt
        self._tokenizer = tokenizer
        self._endings = endings
        self._stops = [stop for stop in prompt.request.sampling.stop if stop]
        self._tail = list(prompt.ids[-_TAIL:])
        self._before = self._read(self._tail)
        self._ids: list[int] = []
        self._text: str | None = None
        self._reason = ""

    @property
    def ended(self) -> bool:
        """Whether the answer is whole; further tokens are ignored."""
        return bool(self._reason)

    def take(self, token: int) -> None:
        """Append a token, and see whether it ends the answer."""
        if self.ended:
            return
        self._ids.append(token)
        if token in self._endings:
            self._reason, self._text = "stop", self._decode(self._ids[:-1])
            return
        if self._stops:
            text = self._decode(self._ids)
            places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
            if places:
                self._reason, self._text = "stop", text[: min(places)]
                return
        if len(self._ids) >= self._prompt.most:
            self._reason = "length"

    def answer(self) -> Answer:
        """The answer; its tokens include the one that ended it, as servers count."""
        return Answer(
            text=self._decode(self._ids) if self._text is None else self._text,
            finish_reason=self._reason,
            prompt_tokens=len(self._prompt.ids),
            completion_tokens=len(self._ids),
        )

    def _decode(self, ids: list[int]) -> str:
        text = self._read(self._tail + ids)
        return text[len(self._before) :] if text.startswith(self._before) else self._read(ids)

    def _read(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


@contextmanager
def explain_memory(device: torch.device, remedy: str) -> Iterator[None]:
    """Out of memory becomes one line; torch has a class for it on GPUs and bare RuntimeErrors elsewhere.

    Raises:
        OutOfMemory: the block ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        if isinstance(exc, RuntimeError) and not any(mark in str(exc).casefold() for mark in _MEMORY_MARKS):
            raise
        raise OutOfMemory(f"out of memory on {device}; {remedy}") from exc


def _find_endings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end an answer: the model's own (chat models have several) and the tokenizer's."""
    config = getattr(model, "generation_config", None)
    own = getattr(config, "eos_token_id", None)
    found = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
    return frozenset(int(token) for token in found if token is not None)
