"""Fine-tunes a causal language model on prompts and completions: only the completions are learnt.

The work is done in ``causal_model`` (which imports torch); this module is what the table of trainers holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.encoders import Encoder
from cuvee.errors import ConfigError, InputError, TrainingError
from cuvee.inputs import explain_damage
from cuvee.model_files import SMOLLM2, find_model
from cuvee.train.losses import PreparedLoss
from cuvee.train.losses.rows import AdjustedLoss
from cuvee.train.ready import mark_synthetic
from cuvee.train.settings import Description, Progress, TrainSettings, refuse_idle, require_packages, write_description

if TYPE_CHECKING:
    import torch

    from cuvee.train.causal_model import CausalModel, Template
    from cuvee.train.schedule import ParameterGroup, Scores
    from cuvee.train.sequences import TokenPair

STEPS, BATCH_SIZE, _MAX_LENGTH = 60, 8, 512
_LEARNING_RATE, _LORA_LEARNING_RATE = 5e-5, 5e-4
_PREDICT_BATCH = 16


@dataclass(frozen=True, slots=True)
class CausalWriter:
    """A fine-tuned language model. ``dropped`` training rows had completions that do not fit ``max_length``."""

    language_model: CausalModel
    settings: TrainSettings
    dropped: int = 0

    @property
    def template(self) -> str:
        """How prompts and completions are joined: ``chat`` or ``plain``."""
        return self.language_model.template

    def write(self, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int) -> list[str]:
        """A completion of each prompt, of at most ``max_tokens`` tokens; greedy at temperature 0.

        Raises:
            ValueError: max_tokens or temperature out of range.
            InputError: a prompt for which there is no room.
            GenerationError: there is no memory for a single prompt.
        """
        return self.language_model.write(prompts, max_tokens=max_tokens, temperature=temperature, seed=seed)

    def log_likelihood(self, prompts: Sequence[str], completions: Sequence[str]) -> NDArray[np.float64]:
        """Of each completion: the sum of its tokens' log probabilities and their number, shape (n, 2).

        Raises:
            ValueError: another number of completions than of prompts.
            InputError: a completion is longer than the model can read.
            TrainingError: out of memory.
        """
        return self.language_model.log_likelihood(prompts, completions)

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer as transformers does, and ``predictor.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.language_model.write_weights(folder)
        extra = {"template": self.template, "dropped": str(self.dropped)}
        write_description(folder, Description(kind="causal", labels=(), settings=self.settings, extra=extra))


def train_causal(
    corpus: Corpus, loss: PreparedLoss, settings: TrainSettings, *, encoder: Encoder | None, validation: Corpus | None,
    progress: Progress | None, folder: Path | None,
) -> CausalWriter:  # fmt: skip
    """Fine-tune ``settings.model`` (by default SmolLM2-135M-Instruct) for exactly ``settings.steps`` steps.

    Rows whose completion leaves no room for a prompt in ``max_length`` tokens are not trained on; the writer counts
    them. With ``lora_rank``, adapters are trained, and then added to the model's weights.

    Raises:
        TrainingError: no row fits, out of memory, or a loss that is not finite.
        MissingDependency, InputError: torch, transformers, peft or the model cannot be loaded.
        ConfigError: an unknown device, a setting it has no use for, or packing that the model cannot do.
    """
    del encoder  # every trainer and loader is given one
    require_packages("causal", "torch", "transformers")
    from cuvee.train.causal_model import CausalModel
    from cuvee.train.loop import train_loop
    from cuvee.train.models import merge_lora, prepare_training
    from cuvee.train.schedule import plan_schedule

    refuse_idle(settings)
    schedule = plan_schedule(settings, corpus, validation, steps=STEPS, batch_size=BATCH_SIZE)
    model, device = settings.model or SMOLLM2, settings.device or "auto"
    max_length = settings.max_length or _MAX_LENGTH
    rate = settings.learning_rate or (_LORA_LEARNING_RATE if settings.lora_rank else _LEARNING_RATE)
    language_model = CausalModel.from_pretrained(find_model(model), device=device, max_length=max_length)
    if settings.packing and not language_model.can_pack:
        raise ConfigError(f"packing: model {model!r} does not keep packed rows apart; leave packing out")
    rows = CausalRows(language_model, corpus, validation, packing=bool(settings.packing), learning_rate=rate)
    narrowed = leave_out(loss, rows.fits, max_length)
    language_model.model = prepare_training(language_model.model, settings)
    train_loop(
        rows, narrowed, schedule, synthetic=mark_synthetic(corpus), progress=progress, folder=folder,
        validate=rows.validate if rows.held_out else None,
    )  # fmt: skip
    language_model.model = merge_lora(language_model.model)
    filled = dataclasses.replace(
        settings, steps=schedule.steps, batch_size=schedule.batch_size, learning_rate=rate, model=model,
        device=device, max_length=max_length,
    )  # fmt: skip
    return CausalWriter(language_model, filled, dropped=int((~rows.fits).sum()))


def load_causal(folder: Path, description: Description, encoder: Encoder | None) -> CausalWriter:
    """The writer that ``CausalWriter.save`` wrote.

    Raises:
        InputError: its files are missing or broken. MissingDependency: torch or transformers are missing.
    """
    del encoder  # every trainer and loader is given one
    require_packages("causal", "torch", "transformers")
    from cuvee.train.causal_model import CausalModel

    settings, template = description.settings, description.tell(folder, "template")
    if template not in ("chat", "plain"):
        raise InputError(f"{folder}: unknown template {template!r}; valid: chat, plain")
    with explain_damage(f"{folder}: extra.dropped", "train again"):
        dropped = int(description.extra.get("dropped", "0"))
    language_model = CausalModel.read_weights(
        folder,
        device=settings.device or "auto",
        max_length=settings.max_length or _MAX_LENGTH,
        template=cast("Template", template),
    )
    return CausalWriter(language_model, settings, dropped=dropped)


class CausalRows:
    """A language model with the rows it is trained on, for the training loop.

    Args:
        language_model: what to train.
        corpus: the kept rows.
        validation: real rows held out.
        packing: whether short rows share a sequence.
        learning_rate: peak.
    """

    def __init__(
        self, language_model: CausalModel, corpus: Corpus, validation: Corpus | None, *, packing: bool,
        learning_rate: float,
    ) -> None:  # fmt: skip
        self._language_model = language_model
        self._pairs = _tokenize(language_model, corpus)
        held_out = [] if validation is None else _tokenize(language_model, validation)
        self._held_out = [pair for pair in held_out if pair is not None]
        self._pack_to = language_model.max_length if packing else None
        self._learning_rate = learning_rate
        self.fits: NDArray[np.bool_] = np.array([pair is not None for pair in self._pairs], dtype=np.bool_)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self._language_model.device

    @property
    def module(self) -> torch.nn.Module:
        """The language model, with its adapters if it has any."""
        module: torch.nn.Module = self._language_model.model
        return module

    @property
    def groups(self) -> tuple[ParameterGroup, ...]:
        """All parameters, at one rate."""
        from cuvee.train.schedule import ParameterGroup

        return (ParameterGroup(tuple(self.module.parameters()), self._learning_rate),)

    @property
    def held_out(self) -> int:
        """Validation rows that fit."""
        return len(self._held_out)

    def log_p(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Mean log probability of the tokens of each row's completion, shape (b,)."""
        pairs = [pair for i in rows if (pair := self._pairs[i]) is not None]
        return self._language_model.log_p(pairs, pack_to=self._pack_to)

    def scores(self, rows: NDArray[np.int64], *, held_out: bool) -> Scores:
        """Scores of the vocabulary, one line a token of a completion."""
        pairs = self._held_out if held_out else self._pairs
        return self._language_model.scores([pair for i in rows if (pair := pairs[i]) is not None])

    def validate(self) -> float:
        """Mean over the validation rows of the mean log probability of their tokens."""
        parts = [np.arange(i, min(i + _PREDICT_BATCH, self.held_out)) for i in range(0, self.held_out, _PREDICT_BATCH)]
        model, pairs = self._language_model, self._held_out
        found = [model.log_p([pairs[i] for i in part]).cpu().double().numpy() for part in parts]
        return float(np.concatenate(found).mean())


def leave_out(loss: PreparedLoss, fits: NDArray[np.bool_], max_length: int) -> PreparedLoss:
    """The loss with only those of its rows that fit.

    Raises:
        TrainingError: a phase of the training has none left.
    """
    if fits.all():
        return loss
    phases = tuple(dataclasses.replace(phase, rows=phase.rows[fits[phase.rows]]) for phase in loss.phases)
    if any(len(phase.rows) == 0 for phase in phases):
        raise TrainingError(
            f"no rows are left: no completion leaves room for a prompt in max_length {max_length} tokens; raise it"
        )
    return AdjustedLoss(loss, phases=phases)


def _tokenize(language_model: CausalModel, corpus: Corpus) -> list[TokenPair | None]:
    rows = zip(corpus.prompts, corpus.targets, strict=True)
    return [language_model.tokenize(prompt, completion) for prompt, completion in rows]
