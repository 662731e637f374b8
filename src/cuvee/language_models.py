"""Language models of transformers: devices, loading, and writing completions. Imports torch and transformers."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from huggingface_hub import hf_hub_download
from jinja2 import TemplateError

from cuvee.errors import ConfigError, CuveeError, GenerationError, InputError, MissingDependency, TrainingError
from cuvee.inputs import check_layers, explain_damage, first_line
from cuvee.model_files import ModelFiles, load_files, quiet_loading
from cuvee.records import Sampling

DTYPES = ("auto", "float32", "bfloat16", "float16")
_MEMORY_MARKS = ("out of memory", "can't allocate memory", "not enough memory")
_NO_LIMIT = 1 << 20
_REMEDY = "set dtype: bfloat16 or device: cpu, lower context or max_tokens, or choose a smaller model"


class OutOfMemory(GenerationError):
    """The device has no room for the model, or for a batch of a single prompt."""


# --- devices ---
def choose_device(name: str) -> torch.device:
    """The device called ``name``: cpu, cuda, cuda:N or mps; ``auto`` is cuda, else mps, else cpu.

    Raises:
        ConfigError: this machine has no such device.
    """
    here = [f"cuda:{n}" for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    found = (["cuda", *here] if here else []) + (["mps"] if torch.backends.mps.is_available() else []) + ["cpu"]
    if name != "auto" and name not in found:
        raise ConfigError(f"device {name!r} is not here; valid on this machine: {', '.join(['auto', *found])}")
    return torch.device(found[0] if name == "auto" else name)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format called ``name``; ``auto`` is bfloat16 on a GPU that computes in it, else float32.

    Raises:
        ConfigError: the name is unknown.
    """
    if name not in DTYPES:
        raise ConfigError(f"dtype {name!r}; valid choices: {', '.join(DTYPES)}")
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


@contextmanager
def explain_memory(device: torch.device, remedy: str, error: type[CuveeError] = TrainingError) -> Iterator[None]:
    """Turn "out of memory" into an ``error`` of one line: torch has a class for it on GPUs and none elsewhere."""
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        if isinstance(exc, RuntimeError) and not any(mark in str(exc).casefold() for mark in _MEMORY_MARKS):
            raise
        raise error(f"out of memory on {device}; {remedy}") from exc


def release_memory(device: torch.device) -> None:
    """Give the memory that nothing uses any more back to the device; a CPU needs no such call."""
    if device.type != "cpu":
        gc.collect()  # what a traceback held may be in a cycle
        getattr(torch, device.type).empty_cache()


@contextmanager
def own_random_stream(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch's random state (dropout reads it) inside the block, and leave it untouched outside."""
    accelerators = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(accelerators, device_type=device.type if accelerators else None):
        torch.manual_seed(seed)
        yield


# --- loading ---
def load_causal_model(files: ModelFiles, *, device: str = "cpu", dtype: str = "float32") -> LanguageModel:
    """Load a causal language model and its tokenizer. The hub is asked only for what its cache lacks.

    Args:
        files: where the model is.
        device: see :func:`choose_device`.
        dtype: the number format of the weights, see :func:`choose_dtype`.

    Raises:
        ConfigError: the device or dtype is unknown.
        InputError: the files cannot be loaded or lack weights, or the hub cannot be reached.
        MissingDependency: the files need a package that is not installed.
        OutOfMemory: the model does not fit.
    """
    where = choose_device(device)
    number_format = choose_dtype(dtype, where)
    loaded = load_files(files.shown, lambda online: _load(files, number_format, online=online), local=files.local)
    with quiet_loading(), explain_memory(where, _REMEDY, OutOfMemory):
        loaded.model = loaded.model.to(where).eval()
    return loaded


def _load(files: ModelFiles, dtype: torch.dtype, *, online: bool) -> LanguageModel:
    place, commit = files.place, None
    with loading_model(files.shown, gguf=files.gguf_file is not None):
        if not files.local:
            config = hf_hub_download(files.place, "config.json", revision=files.revision, local_files_only=not online)
            commit = Path(config).parent.name
            # a cached model by its folder: given its name, transformers asks the hub for an adapter all the same
            place = files.place if online else str(Path(config).parent)
        revision = commit or "main"
        given = {"gguf_file": files.gguf_file, "revision": revision, "local_files_only": not online}
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **given, trust_remote_code=False)
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            place, **given, trust_remote_code=False, dtype=dtype, output_loading_info=True
        )
    # a file of another kind of model loads too, its missing layers drawn at random
    if missing := sorted(map(str, info["missing_keys"])):
        raise InputError(f"model {files.shown!r} has no weights for {missing[0]}; give a causal language model")
    model.generation_config = _plain_generation(model, tokenizer)
    return LanguageModel(model=model, tokenizer=tokenizer, commit=commit)


@contextmanager
def loading_model(model: str, *, gguf: bool = False) -> Iterator[None]:
    """Around the loading of a model: no output, a separate random stream, and one line for every error.

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
            with explain_memory(cpu, f"model {model!r} is too large"), quiet_loading(gguf=gguf):
                with own_random_stream(cpu, 0):
                    yield
    except ImportError as exc:
        raise MissingDependency(f"model {model!r}: {first_line(exc)}") from exc


def _plain_generation(
    model: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerBase
) -> transformers.GenerationConfig:
    """The end tokens of model and tokenizer, and nothing else: penalties would change what is written in silence."""
    own = model.generation_config.eos_token_id
    found = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
    endings = sorted({int(token) for token in found if token is not None})
    padding, start = endings[0] if endings else 0, tokenizer.bos_token_id
    return transformers.GenerationConfig(eos_token_id=endings, pad_token_id=padding, bos_token_id=start)


# --- reading prompts once ---
Tokens = tuple[int, ...]
Layers = list[tuple[torch.Tensor, torch.Tensor]]  # keys and values of each layer, shape (1, heads, tokens, width)


class PromptReader:
    """Keys and values of prompts under a model that does not change, kept for all that begins with the same tokens.

    Prompts are read in blocks of 64 tokens, each after those before it in bfloat16, whether these were kept or not:
    what a prompt gives does not depend on what was read before.

    Args:
        model: never trained while this reads.
        precision: of the arithmetic, float32 or bfloat16.
        most: bytes that are kept; the blocks that were not used for longest go first.
    """

    BLOCK = 64

    def __init__(
        self, model: transformers.PreTrainedModel, precision: torch.dtype = torch.float32, most: int = 2 << 30
    ) -> None:
        self._model, self._precision, self._most = model.eval(), precision, most
        self._kept: OrderedDict[Tokens, Layers] = OrderedDict()
        self._held = 0

    def read(self, prompts: Sequence[Tokens]) -> tuple[transformers.DynamicCache, torch.Tensor]:
        """Of each prompt, padded on the left, and the mask that hides the padding, shape (b, longest prompt)."""
        width, device = max(map(len, prompts)), self._model.device
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        # what is read in inference mode can be no part of a training
        with torch.inference_mode(False), torch.no_grad():
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self._precision == torch.bfloat16):
                rows = [self._read(prompt) for prompt in prompts]
            most = max(rows, key=len)
            empty = [(keys[:, :, :0], values[:, :, :0]) for keys, values in most]
            layers = [_pad_left([row[at] if row else empty[at] for row in rows], width) for at in range(len(most))]
        return transformers.DynamicCache(layers), mask

    def _read(self, prompt: Tokens) -> Layers:
        """Keys and values of one prompt."""
        blocks: list[Layers] = []
        for start in range(0, len(prompt), self.BLOCK):
            until = prompt[: start + self.BLOCK]
            found = self._kept.get(until)
            if found is None:
                found = self._read_block(until[start:], self._join(blocks), start)
                self._held += sum(part.nbytes for layer in found for part in layer)
                while self._held > self._most and self._kept:
                    self._held -= sum(part.nbytes for layer in self._kept.popitem(last=False)[1] for part in layer)
                self._kept[until] = found
            self._kept.move_to_end(until)
            blocks.append(found)
        return self._join(blocks)

    def _read_block(self, tokens: Tokens, before: Layers, start: int) -> Layers:
        ids = torch.tensor([tokens], device=self._model.device)
        cache = transformers.DynamicCache(before) if before else transformers.DynamicCache()
        self._model.get_decoder()(input_ids=ids, cache=cache, use_cache=True)
        return [(layer.keys[:, :, start:].bfloat16(), layer.values[:, :, start:].bfloat16()) for layer in cache.layers]

    def _join(self, blocks: Sequence[Layers]) -> Layers:
        """The layers of consecutive blocks as one, in the model's number format."""
        dtype = self._model.dtype

        def join(side: int) -> list[torch.Tensor]:
            return [torch.cat([block[side] for block in layer], dim=2).to(dtype) for layer in zip(*blocks, strict=True)]

        return list(zip(join(0), join(1), strict=True))


def _pad_left(rows: Sequence[tuple[torch.Tensor, torch.Tensor]], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of rows, each of shape (1, heads, tokens, size), as one batch."""

    def pad(side: int) -> torch.Tensor:
        return torch.cat([torch.nn.functional.pad(r[side], (0, 0, width - r[side].shape[2], 0)) for r in rows])

    return pad(0), pad(1)


# --- writing ---
@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a model wrote. ``tokens`` counts the end token too; ``reason`` it ended for is ``stop`` or ``length``."""

    text: str
    tokens: int
    reason: str


@dataclass(slots=True, kw_only=True)
class LanguageModel:
    """A causal language model, on its device, and its tokenizer.

    ``commit`` is that of a model from the hub. ``reader`` reads prompts up to their last token in its place.
    """

    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase
    commit: str | None = None
    reader: PromptReader | None = None

    @property
    def limit(self) -> int:
        """How many tokens of prompt and completion together the model can read."""
        return int(getattr(self.model.config, "max_position_embeddings", None) or _NO_LIMIT)

    @property
    def dtype(self) -> str:
        """The number format of the weights, for example ``float32``."""
        return str(self.model.dtype).removeprefix("torch.")

    def unload(self) -> None:
        """Give the device's memory back; nothing can be written afterwards."""
        device = self.model.device
        self.model = self.model.to("meta")
        release_memory(device)

    def chat_tokens(self, messages: Sequence[tuple[str, str]], remedy: str) -> tuple[int, ...]:
        """The tokens of (role, content) messages in the chat template, up to where the assistant begins.

        Raises:
            ConfigError: there is no template or it refuses the messages; the message ends with ``remedy``.
        """
        if not self.tokenizer.chat_template:
            raise ConfigError(f"the model has no chat template; {remedy}")
        turns = [{"role": role, "content": content} for role, content in messages]
        try:
            text = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        except TemplateError as exc:
            raise ConfigError(f"the model's chat template refuses the messages ({first_line(exc)}); {remedy}") from exc
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def write(
        self, prompts: Sequence[Sequence[int]], streams: Sequence[np.random.Generator], sampling: Sampling, *,
        beams: int = 1,
    ) -> list[Completion]:  # fmt: skip
        """Continue prompts of tokens with ``model.generate``, as one batch. If memory runs out, the batch is halved.

        Returns:
            The completions of the first prompts, as many as there was memory for.

        Args:
            prompts: at least one, none of them empty.
            streams: one for each prompt; what a prompt draws depends on nothing else in the batch, but for rounding.
            sampling: of all prompts; at temperature 0 the most probable token is taken.
            beams: of a beam search, at temperature 0 alone.

        Raises:
            OutOfMemory: there is no memory for one prompt.
            GenerationError: the model's scores are not finite.
        """
        device, size = self.model.device, len(prompts)
        while True:
            try:
                with explain_memory(device, _REMEDY, OutOfMemory):
                    return self._generate(prompts[:size], streams[:size], sampling, beams)
            except OutOfMemory:
                if size == 1:
                    raise
            release_memory(device)  # only here, where no traceback holds on to the tensors of the batch
            size //= 2

    def _generate(
        self, prompts: Sequence[Sequence[int]], streams: Sequence[np.random.Generator], sampling: Sampling, beams: int
    ) -> list[Completion]:
        width, device = max(map(len, prompts)), self.model.device
        ids = torch.tensor([[0] * (width - len(p)) + [*p] for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        stopping = {"stop_strings": list(sampling.stop), "tokenizer": self.tokenizer} if sampling.stop else {}
        if self.reader is not None and width > 1:
            stopping |= {"cache": self.reader.read([tuple(p[:-1]) for p in prompts])[0]}
        with quiet_loading(), torch.inference_mode():
            whole = self.model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=sampling.max_tokens,
                do_sample=False,
                num_beams=beams,
                logits_processor=plan_draws(streams, sampling),
                **stopping,
            )
        return [self._read(row, sampling.stop) for row in whole[:, width:].tolist()]

    def _read(self, row: Sequence[int], stop: Sequence[str]) -> Completion:
        """The row up to its first end token or stop text; what follows is padding."""

        def text_of(length: int) -> str:
            tokens = row[:length]
            return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

        endings = self.model.generation_config.eos_token_id
        end = next((at for at, token in enumerate(row) if token in endings), len(row))
        text = text_of(end)
        if places := [place for each in stop if (place := text.find(each)) >= 0]:
            tokens = next(n for n in range(1, end + 1) if any(each in text_of(n) for each in stop))
            return Completion(text=text[: min(places)], tokens=tokens, reason="stop")
        return Completion(text=text, tokens=min(end + 1, len(row)), reason="stop" if end < len(row) else "length")


def plan_draws(streams: Sequence[np.random.Generator], sampling: Sampling) -> transformers.LogitsProcessorList:
    """How the rows of a batch are drawn: the temperature first, then min-p, top-k and top-p, in vLLM's order."""
    if sampling.temperature <= 0:
        return transformers.LogitsProcessorList([SeededDraws([])])
    steps: list[transformers.LogitsProcessor] = [transformers.TemperatureLogitsWarper(float(sampling.temperature))]
    if sampling.min_p:
        steps.append(transformers.MinPLogitsWarper(sampling.min_p))
    if sampling.top_k and sampling.top_k > 0:
        steps.append(transformers.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(transformers.TopPLogitsWarper(sampling.top_p))
    return transformers.LogitsProcessorList([*steps, SeededDraws(streams)])


class SeededDraws(transformers.LogitsProcessor):  # type: ignore[misc]
    """Draws the next token of each row with a random stream of that row; without streams, leaves the scores alone.

    What a row draws depends on its scores and its stream, and on nothing else in the batch. ``model.generate`` itself
    draws all rows of a batch from one stream.
    """

    def __init__(self, streams: Sequence[np.random.Generator]) -> None:
        self._streams = streams

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores of shape (rows, vocabulary) in which only the drawn token is possible.

        Raises:
            GenerationError: the scores are not finite.
        """
        del input_ids  # only the scores of the next token matter
        if not bool(torch.isfinite(scores.max(dim=1).values).all()):
            raise GenerationError("the model's scores are not finite; set dtype: float32, or check its weights")
        if not self._streams:
            return scores
        cumulated = scores.cpu().double().softmax(dim=1).cumsum(dim=1)  # not every device has float64
        uniforms = torch.tensor([[stream.random()] for stream in self._streams], dtype=torch.float64)
        tokens = torch.searchsorted(cumulated, uniforms * cumulated[:, -1:], right=True)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens.to(scores.device), 0.0)
