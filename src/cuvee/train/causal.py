"""Fine-tunes a causal language model on prompts and completions: only the completions are learnt.

Rows are read padded, or packed: both give the same log probability of each row. Packed, short rows share a sequence:
positions begin anew with each row, and transformers then keeps attention within rows. Imports torch and transformers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from cuvee.corpus import Corpus
from cuvee.corpus.forms import Turn, split_turns
from cuvee.encoders import Encoder
from cuvee.errors import ConfigError, InputError, TrainingError
from cuvee.fingerprint import derive_rng
from cuvee.inputs import explain_damage
from cuvee.language_models import (
    LanguageModel,
    PromptReader,
    Tokens,
    choose_device,
    choose_dtype,
    explain_memory,
    load_causal_model,
    quiet_loading,
)
from cuvee.model_files import SMOLLM2, ModelFiles, find_model
from cuvee.records import Sampling
from cuvee.train.finetuning import ParameterGroup, load_adapters, merge_lora, prepare_training
from cuvee.train.loop import TrainingCourse, fine_tune
from cuvee.train.settings import Description, Training, TrainSettings, fill_settings, given, write_description
from cuvee.train.weighting import AdjustedLoss, PreparedLoss, RowScores

IGNORED = -100
_FOLDER, _BASE = "model", "base"
_BATCH = 16
_MAX_LENGTH = 512


def train_causal(training: Training, *, keep_last: bool = False) -> CausalWriter:
    """Fine-tune ``settings.model`` (by default SmolLM2-135M-Instruct) for exactly ``settings.steps`` steps.

    Rows whose completion leaves no room for a prompt in ``max_length`` tokens are not trained on; the writer counts
    them. With ``lora_rank``, adapters are trained, and then added to the model's weights; with ``frozen_prompts`` they
    stay apart. With ``keep_last`` it keeps its last weights though ``patience`` is given, and its ``course`` tells the
    scores of every evaluation.

    Raises:
        TrainingError: no row fits, out of memory, or a loss that is not finite.
        MissingDependency, InputError: torch, transformers, peft or the model cannot be loaded.
        ConfigError: an unknown device, a setting it has no use for, or one that the model cannot do.
    """
    settings = fill_causal_settings(training.settings)
    writer = CausalWriter.from_pretrained(settings)
    if settings.packing and not writer.can_pack:
        raise ConfigError(f"packing: model {settings.model!r} does not keep packed rows apart; leave packing out")
    if settings.frozen_prompts and not writer.can_freeze:
        raise ConfigError(
            f"frozen_prompts: model {settings.model!r} does not go on from what it has read; leave it out"
        )
    rows = CausalRows(writer, training.corpus, training.validation)
    narrowed = leave_out(training.loss, rows.fits, writer.max_length)
    writer.model = prepare_training(writer.model, settings)
    writer.course = fine_tune(rows, replace(training, settings=settings, loss=narrowed), keep_last=keep_last)
    writer.model = writer.model if settings.frozen_prompts else merge_lora(writer.model)
    writer.dropped = int((~rows.fits).sum())
    return writer


def fill_causal_settings(settings: TrainSettings) -> TrainSettings:
    """The settings with nothing left open.

    Raises:
        ConfigError: a setting that the trainer has no use for.
    """
    return fill_settings("causal", settings, model=SMOLLM2, device="auto", max_length=_MAX_LENGTH)


def load_causal(folder: Path, description: Description, encoder: Encoder | None) -> CausalWriter:
    """The writer that ``CausalWriter.save`` wrote.

    Raises:
        InputError: files are missing or broken. ConfigError: an unknown device.
    """
    del encoder
    settings, template = description.settings, description.tell(folder, "template")
    if template not in ("chat", "plain"):
        raise InputError(f"{folder}: unknown template {template!r}; valid: chat, plain")
    with explain_damage(f"{folder}: extra.dropped", "train again"):
        dropped = int(description.extra.get("dropped", "0"))
    where = choose_device(settings.device or "auto")
    if not (folder / _FOLDER).is_dir():  # transformers would take the path for a name on the hub
        raise InputError(f"{folder / _FOLDER}: no such folder; train again")
    at = folder / _FOLDER
    if not settings.frozen_prompts:
        loaded = _load_trainable.__wrapped__(ModelFiles(place=str(at), local=True))
        return CausalWriter(loaded, where, settings, template=template, dropped=dropped)
    base = ModelFiles(place=str(folder / _BASE), local=True) if (folder / _BASE).is_dir() else find_model(SMOLLM2)
    writer = CausalWriter(_share_weights(_load_trainable(base)), where, settings, template=template, dropped=dropped)
    writer.reader = _open_reader(base, settings.precision or "auto", where)
    writer.model = load_adapters(writer.model, at)
    return writer


class CausalWriter:
    """A causal language model on one device, which a training changes in place.

    A prompt is followed by a line break and the completion (``plain``), or is the user's turn, or the turns of a chat,
    and the completion the assistant's last (``chat``: the tokenizer's template). Both end with the tokenizer's end
    token. Too long a prompt loses its beginning, of a chat its oldest turns; a completion is never cut.

    Args:
        loaded: gives logits, and has a tokenizer with an end token.
        device: where the model is put.
        settings: how it is trained, nothing left open.
        template: None takes ``chat`` where the tokenizer has a chat template.
        dropped: training rows whose completions did not fit ``max_length``.
    """

    def __init__(
        self, loaded: LanguageModel, device: torch.device, settings: TrainSettings, *, template: str | None = None,
        dropped: int = 0,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer = loaded.model.to(device).eval(), loaded.tokenizer
        self.device, self.settings, self.dropped = device, settings, dropped
        self.max_length = settings.max_length or _MAX_LENGTH
        self.course: TrainingCourse | None = None  # of the training that it went through here
        self.reader: PromptReader | None = None  # of prompts, where only what follows them is adapted
        self.template = template or ("chat" if self.tokenizer.chat_template else "plain")

    @classmethod
    def from_pretrained(cls, settings: TrainSettings) -> CausalWriter:
        """A copy of the model that ``settings`` name, ready to be trained.

        Raises:
            InputError: it cannot be loaded, or is no causal language model.
            ConfigError: an unknown device, or too large a max_length.
            MissingDependency: its files need a package that is not installed.
        """
        files, where = find_model(given(settings.model)), choose_device(given(settings.device))
        loaded = _load_trainable(files)
        if settings.frozen_prompts:
            found = cls(_share_weights(loaded), where, settings)
            found.reader = _open_reader(files, settings.precision or "auto", where)
        else:
            model = copy.deepcopy(loaded.model).requires_grad_(True)  # adapters elsewhere may have frozen the weights
            found = cls(LanguageModel(model=model, tokenizer=loaded.tokenizer), where, settings)
        if found.max_length > found.limit:
            raise ConfigError(f"max_length is {found.max_length}; {files.shown!r} reads at most {found.limit} tokens")
        return found

    @property
    def limit(self) -> int:
        """Tokens that the model can read."""
        return self._language_model.limit

    @property
    def _language_model(self) -> LanguageModel:
        # training exchanges the model
        return LanguageModel(model=self.model, tokenizer=self.tokenizer, reader=self.reader)

    @property
    def can_pack(self) -> bool:
        """Whether rows that share a sequence stay apart: tried on two, since not every model heeds positions."""
        return self._reads_alike(lambda pairs: lay_out(pairs, pack_to=4 * len(pairs[1])), 1e-3)

    @property
    def can_freeze(self) -> bool:
        """Whether the model goes on from what its reader has read, while there are no adapters yet."""
        return self._reads_alike(self._lay_out, 0.05, times=8)

    def _reads_alike(self, lay: Callable[[Sequence[TokenPair]], Layout], tolerance: float, *, times: int = 1) -> bool:
        """Whether another layout of two rows gives their log probabilities too."""
        sample = [self._encode(text)[:16] or [0] for text in ("One two three.", "Seven eight, nine and ten.")]
        pairs = [TokenPair(tuple(ids) * times, tuple(ids[::-1])) for ids in sample]
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                apart, other = self.log_p_sums(lay_out(pairs)), self.log_p_sums(lay(pairs))
        except (TypeError, ValueError, AttributeError, IndexError):  # it takes no positions, or no cache
            return False
        finally:
            self.model.train(training)
        lengths = torch.tensor([len(pair.completion) for pair in pairs], device=self.device)
        return torch.allclose(apart / lengths, other / lengths, rtol=tolerance, atol=tolerance)

    def _lay_out(self, pairs: Sequence[TokenPair], pack_to: int | None = None) -> Layout:
        """The rows; where prompts are read apart, from the last token of the prompt on."""
        if self.reader is None:
            return lay_out(pairs, pack_to=pack_to)
        tails = lay_out([TokenPair(pair.prompt[-1:], pair.completion) for pair in pairs])
        return replace(tails, heads=tuple(pair.prompt[:-1] for pair in pairs))

    def tokenize(self, prompt: str, completion: str) -> TokenPair | None:
        """The row's tokens, the prompt cut on the left to fit; None where the completion leaves no room for it."""
        tokens = self.completion_tokens(completion)
        head = self.prompt_tokens(prompt, self.max_length - len(tokens))
        return None if head is None else TokenPair(head, tokens)

    def tokenize_rows(self, corpus: Corpus) -> list[TokenPair | None]:
        """Each row's prompt and completion as ``tokenize`` gives them."""
        return [self.tokenize(*row) for row in zip(corpus.prompts, corpus.targets, strict=True)]

    def completion_tokens(self, completion: str) -> tuple[int, ...]:
        """The tokens of a completion and the end token."""
        return (*self._encode(completion), int(self.tokenizer.eos_token_id))

    def prompt_tokens(self, prompt: str, room: int) -> tuple[int, ...] | None:
        """At most ``room`` tokens: the prompt in its template, without as much of its beginning as must go."""
        turns = self._split(prompt)
        tokens = self._render(turns)
        while len(tokens) > room and len(turns) > 1:  # the oldest turns first, and what the system says last of these
            at = int(turns[0][0] == "system" and len(turns) > 2)
            del turns[at : at + 1 + (len(turns) > at + 2 and turns[at + 1][0] == "assistant")]
            tokens = self._render(turns)
        rest = self._encode(turns[0][1]) if len(tokens) > room else []
        while len(tokens) > room:
            if not rest:
                return None
            rest = rest[max(1, len(tokens) - room) :]
            said = str(self.tokenizer.decode(rest, clean_up_tokenization_spaces=False))
            tokens = self._render([(turns[0][0], said)])
        return tuple(tokens)

    def log_p(self, pairs: Sequence[TokenPair], *, pack_to: int | None = None) -> torch.Tensor:
        """Mean log probability of each completion's tokens, the end token among them, shape (len(pairs),)."""
        sums = self.log_p_sums(self._lay_out(pairs, pack_to))
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

    def _logits(self, layout: Layout) -> torch.Tensor:
        """At the columns that are wanted, shape (sequences, columns, vocabulary)."""
        where = {"position_ids": layout.positions} if layout.mask is None else {"attention_mask": layout.mask}
        inputs = {name: tensor.to(self.device) for name, tensor in {"input_ids": layout.ids, **where}.items()}
        if self.reader is not None and any(layout.heads):
            inputs["cache"], mask = self.reader.read(layout.heads)
            inputs["position_ids"] = layout.positions.to(self.device) + mask.sum(dim=1, keepdim=True)
            inputs["attention_mask"] = torch.cat([mask, inputs["attention_mask"]], dim=1)
        columns = layout.columns.to(self.device)
        try:  # a vocabulary is large: logits only where they are wanted
            logits: torch.Tensor = self.model(**inputs, logits_to_keep=columns, use_cache=False).logits
        except TypeError:  # this model gives all
            logits = self.model(**inputs, use_cache=False).logits
        return logits if logits.shape[1] == len(columns) else logits[:, columns]

    def score_rows(self, corpus: Corpus) -> RowScores:
        """Mean log probability of each completion's tokens as training reads them, NaN where one does not fit.

        The more probable half agrees, and what does not fit.

        Raises:
            TrainingError: out of memory.
        """
        fitting = {i: pair for i, pair in enumerate(self.tokenize_rows(corpus)) if pair is not None}
        log_p = np.full(len(corpus), np.nan)
        log_p[list(fitting)] = self._read(list(fitting.values()), self.log_p)
        middle = np.median(log_p[list(fitting)]) if fitting else np.nan
        return RowScores(log_p=log_p, agrees=~(log_p < middle))

    def log_likelihood(self, prompts: Sequence[str], completions: Sequence[str]) -> NDArray[np.float64]:
        """Sum of log probabilities and number of tokens of each completion, shape (n, 2).

        Raises:
            ValueError: another number of completions than of prompts.
            InputError: a completion is longer than the model can read.
            TrainingError: out of memory.
        """
        pairs = self._fit_all(prompts, completions)
        out = np.zeros((len(pairs), 2))
        out[:, 1] = [len(pair.completion) for pair in pairs]
        out[:, 0] = self._read(pairs, lambda part: self.log_p_sums(self._lay_out(part)))
        return out

    def top_tokens(self, prompts: Sequence[str], completions: Sequence[str]) -> NDArray[np.float64]:
        """The most probable token at each place of the completions: row, probability, and 1 if it stands there, else 0.

        Shape (tokens, 3). Raises what ``log_likelihood`` raises.
        """
        parts: list[NDArray[np.float64]] = []
        self.model.eval()
        with explain_memory(self.device, "set device: cpu, or train with a lower max_length"), torch.inference_mode():
            for row, pair in enumerate(self._fit_all(prompts, completions)):
                layout = self._lay_out([pair])
                p, token = self._logits(layout).float().softmax(dim=-1).cpu().max(dim=-1)
                hit = (token == layout.targets).double()
                parts.append(torch.stack([torch.full_like(hit, row), p.double(), hit], dim=-1)[0].numpy())
        return np.concatenate(parts)

    def _fit_all(self, prompts: Sequence[str], completions: Sequence[str]) -> list[TokenPair]:
        if len(prompts) != len(completions):
            raise ValueError(f"completions has {len(completions)} entries for {len(prompts)} prompts; give one each")
        return [self._fit(number, *row) for number, row in enumerate(zip(prompts, completions, strict=True))]

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
        return self.continue_prompts(prompts, Sampling(temperature=temperature, max_tokens=max_tokens), seed=seed)

    def continue_prompts(self, prompts: Sequence[str], sampling: Sampling, *, seed: int, beams: int = 1) -> list[str]:
        """As ``write``, with any sampling; with ``beams`` above 1, the best of a beam search at temperature 0."""
        max_tokens = sampling.max_tokens
        room = min(self.max_length, self.limit - max_tokens)
        if beams > 1 and self.reader is not None:
            raise ConfigError(f"beams is {beams}, which frozen_prompts has no use for; leave one of them out")
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
            written = self._language_model.write([heads[i] for i in order[:_BATCH]], streams, sampling, beams=beams)
            for completion in written:
                out[order.pop(0)] = completion.text
        return out

    def _fit(self, number: int, prompt: str, completion: str) -> TokenPair:
        """As ``tokenize``, with more room where a completion needs it."""
        tokens = self.completion_tokens(completion)
        head = self.prompt_tokens(prompt, self.max_length - len(tokens)) or tuple(self._render([("user", "")]))
        if not head or len(head) + len(tokens) > self.limit:
            raise InputError(f"completion {number}: {len(tokens)} tokens; the model reads at most {self.limit}")
        return TokenPair(head, tokens)

    def _split(self, prompt: str) -> list[Turn]:
        """The turns of a prompt; a model without a chat template reads them as one text."""
        return split_turns(prompt) if self.template == "chat" else [("user", prompt)]

    def _render(self, turns: Sequence[Turn]) -> list[int]:
        """The prompt's tokens in its template."""
        if self.template == "plain":
            tokens = [int(token) for token in self.tokenizer(f"{turns[0][1]}\n")["input_ids"]]
            return tokens or [int(self.tokenizer.eos_token_id)]  # a completion needs something to follow
        return list(self._language_model.chat_tokens(turns, "choose another model"))

    def _encode(self, text: str) -> list[int]:
        return [int(token) for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]]

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer as transformers does, and ``predictor.json``.

        With ``frozen_prompts`` the model is the adapters, as peft writes them, and the model that they are on lies in
        ``base`` unless it is SmolLM2-135M-Instruct.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with quiet_loading():
            self.model.save_pretrained(folder / _FOLDER)
            if self.settings.frozen_prompts and self.settings.model != SMOLLM2:
                loaded = _load_trainable(find_model(given(self.settings.model)))
                loaded.model.save_pretrained(folder / _BASE)
                self.tokenizer.save_pretrained(str(folder / _BASE))
            self.tokenizer.save_pretrained(str(folder / _FOLDER))
        extra = {"template": self.template, "dropped": str(self.dropped)}
        write_description(folder, Description(kind="causal", labels=(), settings=self.settings, extra=extra))


class CausalRows:
    """A language model with the rows it is trained on, for the training loop.

    Args:
        writer: what to train, with learning rate and packing in its settings.
        corpus: the kept rows.
        validation: real rows held out.
    """

    def __init__(self, writer: CausalWriter, corpus: Corpus, validation: Corpus | None) -> None:
        self._writer, self.device = writer, writer.device
        self._pairs = writer.tokenize_rows(corpus)
        held_out = [] if validation is None else writer.tokenize_rows(validation)
        self._held_out = [pair for pair in held_out if pair is not None]
        self.held_out = len(self._held_out)
        self._pack_to = writer.max_length if writer.settings.packing else None
        self.fits: NDArray[np.bool_] = np.array([pair is not None for pair in self._pairs], dtype=np.bool_)

    @property
    def module(self) -> torch.nn.Module:
        """The language model, with its adapters if it has any."""
        module: torch.nn.Module = self._writer.model
        return module

    @property
    def groups(self) -> tuple[ParameterGroup, ...]:
        """All parameters, at one rate."""
        return (ParameterGroup(tuple(self.module.parameters()), given(self._writer.settings.learning_rate)),)

    def log_p(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Mean log probability of the tokens of each row's completion, shape (b,)."""
        pairs = [pair for i in rows if (pair := self._pairs[i]) is not None]
        return self._writer.log_p(pairs, pack_to=self._pack_to)

    def validate(self) -> float:
        """Mean over the validation rows of the mean log probability of their tokens."""
        parts = [np.arange(i, min(i + _BATCH, self.held_out)) for i in range(0, self.held_out, _BATCH)]
        found = [self._writer.log_p([self._held_out[i] for i in part]).cpu().double().numpy() for part in parts]
        return float(np.concatenate(found).mean())


def leave_out(loss: PreparedLoss, fits: NDArray[np.bool_], max_length: int) -> PreparedLoss:
    """The loss with only those of its rows that fit.

    Raises:
        TrainingError: a phase of the training has none left.
    """
    if fits.all():
        return loss
    phases = tuple(replace(phase, rows=phase.rows[fits[phase.rows]]) for phase in loss.phases)
    if any(len(phase.rows) == 0 for phase in phases):
        raise TrainingError(
            f"no rows are left: no completion leaves room for a prompt in max_length {max_length} tokens; raise it"
        )
    return AdjustedLoss(loss, phases=phases)


@lru_cache(maxsize=1)
def _load_trainable(files: ModelFiles) -> LanguageModel:
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


def _share_weights(loaded: LanguageModel) -> LanguageModel:
    """A copy with the same weights in memory, for adapters of its own."""
    shared = {id(each): each for each in loaded.model.parameters()}
    return LanguageModel(model=copy.deepcopy(loaded.model, shared), tokenizer=loaded.tokenizer)


@lru_cache(maxsize=1)
def _open_reader(files: ModelFiles, precision: str, device: torch.device) -> PromptReader:
    """One a process, so that all its trainings share what was read."""
    return PromptReader(_load_trainable(files).model.to(device), choose_dtype(precision, device))


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A prompt and the completion that follows it, each of at least one token."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Rows laid out as sequences, all of shape (sequences, length) but ``columns``.

    Attributes:
        ids: tokens.
        mask: 1 for tokens, 0 for padding; None where positions tell what belongs together.
        positions: of each token in its row.
        columns: those whose logits are wanted.
        targets: the token after each of ``columns``; IGNORED where none is wanted. Shape (sequences, columns).
        owners: the row that each target belongs to, same shape.
        rows: how many rows there are.
        heads: tokens before each row, where they are read apart.
    """

    ids: torch.Tensor
    mask: torch.Tensor | None
    positions: torch.Tensor
    columns: torch.Tensor
    targets: torch.Tensor
    owners: torch.Tensor
    rows: int
    heads: tuple[Tokens, ...] = ()


def lay_out(pairs: Sequence[TokenPair], *, pack_to: int | None = None) -> Layout:
    """One row a sequence, padded on the right; or, with ``pack_to``, several to sequences of at most that length."""
    if pack_to is None:
        bins = [[i] for i in range(len(pairs))]
    else:
        bins = fill_bins([len(pair) for pair in pairs], pack_to)
    width = max(sum(len(pairs[i]) for i in chosen) for chosen in bins)
    shape = (len(bins), width)
    ids = torch.zeros(shape, dtype=torch.long)
    # padding is a row of its own to what is packed; elsewhere the mask hides it
    positions = torch.arange(width).repeat(len(bins), 1)
    targets, owners = torch.full(shape, IGNORED), torch.zeros(shape, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.long)
    for line, chosen in enumerate(bins):
        at = 0
        for i in chosen:
            pair, end = pairs[i], at + len(pairs[i])
            ids[line, at:end] = torch.tensor([*pair.prompt, *pair.completion])
            positions[line, at:end] = torch.arange(end - at)
            mask[line, at:end] = 1
            first = at + len(pair.prompt) - 1  # the last token of the prompt foretells the first of the completion
            targets[line, first : end - 1] = torch.tensor(pair.completion)
            owners[line, first : end - 1] = i
            at = end
        positions[line, at:] = torch.arange(width - at)
    columns = torch.nonzero((targets != IGNORED).any(dim=0)).ravel()
    return Layout(
        ids=ids,
        mask=mask if pack_to is None else None,
        positions=positions,
        columns=columns,
        targets=targets[:, columns],
        owners=owners[:, columns],
        rows=len(pairs),
    )


def fill_bins(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Rows to sequences of at most ``size`` tokens, the longest first, each into the first that has room.

    A row longer than ``size`` has a sequence of its own.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = next((b for b, left in enumerate(room) if left >= lengths[i]), None)
        if place is None:
            bins.append([i])
            room.append(size - lengths[i])
        else:
            bins[place].append(i)
            room[place] -= lengths[i]
    return bins
