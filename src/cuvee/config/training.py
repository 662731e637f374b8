"""The sections of study.yaml for training: trainers, losses, steps, the check by a dearer trainer, the search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from cuvee.config.sections import Section
from cuvee.registry import nearest_name
from cuvee.train import TrainSettings

Settings = dict[str, bool | int | float | str]


def check_settings(settings: Mapping[str, bool | int | float | str]) -> None:
    """Refuse settings that there are not, or that a study decides itself.

    Raises:
        ValueError: naming the first of them, or the value that is out of range.
    """
    decided = {"trainer", "loss", "steps", "seed", "source_weight", "patience", "evaluate_every", "checkpoint_every"}
    known = {each.name for each in fields(TrainSettings)} - decided
    unknown = next((name for name in settings if name not in known), None)
    if unknown is not None:
        raise ValueError(f"settings has {unknown!r}; {nearest_name(unknown, sorted(known))}")
    TypeAdapter(TrainSettings).validate_python(dict(settings))


def _check_names(value: object) -> object:
    """One name, or a list of different ones."""
    names = value if isinstance(value, list | tuple) else [value]
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise ValueError(f"give one name, or a list of different ones, not {value!r}")
    return value


def _check_sizes(value: object) -> object:
    """One number of rows, ``all`` or null, or a list of different numbers and ``all``."""
    listed = isinstance(value, list | tuple)
    sizes = list(value) if isinstance(value, list | tuple) else [value]

    def fits(size: object) -> bool:
        if isinstance(size, int) and not isinstance(size, bool):
            return size >= 1
        return size == "all" or (size is None and not listed)

    if not sizes or not all(map(fits, sizes)) or len(set(sizes)) != len(sizes):
        raise ValueError(f"give a whole number of at least 1, all, or a list of different ones, not {value!r}")
    return value


Names = Annotated[str | tuple[str, ...], BeforeValidator(_check_names)]
"""One name or several; the first is the main one."""
Size = int | Literal["all"]
Sizes = Annotated[Size | tuple[Size, ...] | None, BeforeValidator(_check_sizes)]
"""Numbers of real rows a label; the largest is the main one."""


def list_sizes(sizes: Size | tuple[Size, ...] | None) -> tuple[Size, ...]:
    """The numbers asked for, largest first; ``all`` is the largest, and what None means."""
    listed = sizes if isinstance(sizes, tuple) else ("all" if sizes is None else sizes,)
    return tuple(sorted(listed, key=lambda size: (size != "all", 0 if size == "all" else -size)))


class CheckConfig(Section):
    """A dearer trainer on few cells: real-only, the best cells, the most diverse cell at the best one's share."""

    trainer: str = "encoder"
    steps: int = Field(30, ge=1)
    settings: Settings = Field(
        default_factory=dict, description="more of this trainer: batch_size, learning_rate, lora_rank, ..."
    )
    draws: int = Field(3, ge=1)
    keep: int = Field(1, ge=1, description="this many of the best cells go on to this trainer (successive halving)")

    @model_validator(mode="after")
    def _check(self) -> CheckConfig:
        check_settings(self.settings)
        return self


class OwnTraining(Section):
    """What one trainer or loss of several takes for itself."""

    steps: int | None = Field(None, ge=1, description="of a trainer")
    settings: Settings = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> OwnTraining:
        check_settings(self.settings)
        return self


class TrainConfig(Section):
    """The trainers and losses of the grid: all cells of a trainer get the same optimiser steps."""

    trainer: Names = Field("probe", description="one, or a list: the first decides, the others show whether it holds")
    loss: Names = Field("ce", description="one, or a list: the first decides, the others show whether it holds")
    source_weight: float | None = Field(None, ge=0, description="of synthetic rows, for loss: source_weight")
    steps: int = Field(300, ge=1)
    settings: Settings = Field(
        default_factory=dict, description="more of the trainer and the loss: gamma, q, batch_size, lora_rank, ..."
    )
    each: dict[str, OwnTraining] = Field(
        default_factory=dict, description="where trainer or loss is a list: NAME -> its own steps and settings"
    )
    sensitivity: tuple[Literal["equal-epochs"], ...] = Field(
        (), description="equal-epochs: the shape test and the best cell again, with as many epochs as real-only has"
    )
    check: CheckConfig | None = None

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        check_settings(self.settings)
        for name, own in self.each.items():
            if name not in (*self.trainers, *self.losses):
                valid = nearest_name(name, [*self.trainers, *self.losses])
                raise ValueError(f"each has {name!r}, which is neither among trainer nor among loss; {valid}")
            if own.steps is not None and name not in self.trainers:
                raise ValueError(f"each.{name}.steps is {own.steps}, but all losses of a trainer get the same steps")
        if self.source_weight is not None and "source_weight" not in self.losses:
            raise ValueError(
                f"source_weight is {self.source_weight:g}, but loss is {', '.join(self.losses)}; "
                "set loss: source_weight"
            )
        if self.check is not None and self.check.trainer in self.trainers and "ce" in self.losses:
            raise ValueError(f"check.trainer {self.check.trainer!r} with loss ce is in the grid already; leave it out")
        return self

    @property
    def trainers(self) -> tuple[str, ...]:
        """All trainers, the main one first."""
        return self.trainer if isinstance(self.trainer, tuple) else (self.trainer,)

    @property
    def losses(self) -> tuple[str, ...]:
        """All losses, the main one first."""
        return self.loss if isinstance(self.loss, tuple) else (self.loss,)

    def steps_of(self, trainer: str) -> int:
        """Optimiser steps of a trainer's cells."""
        own = self.each.get(trainer)
        return self.steps if own is None or own.steps is None else own.steps

    def settings_of(self, trainer: str, loss: str) -> Settings:
        """Settings of a trainer with a loss: the common ones, then its own, then the loss's."""
        made = dict(self.settings)
        for name in (trainer, loss):
            if name in self.each:
                made |= self.each[name].settings
        return made


class SearchConfig(Section):
    """Which of the planned trials are run: all of them, or those that tell most."""

    kind: Literal["grid", "adaptive"] = Field(
        "grid", description="grid: all; adaptive: a Gaussian process over measured diversity and share chooses"
    )
    budget: float = Field(
        0.4,
        gt=0,
        description="blend trials: a fraction of the planned ones (to 1), or a number in all; baselines on top",
    )
    batch: int = Field(4, ge=1, description="draws of cells asked in a round, of each trainer, loss and number of rows")

    @model_validator(mode="after")
    def _check(self) -> SearchConfig:
        if self.budget > 1 and self.budget != int(self.budget):
            raise ValueError(f"budget is {self.budget:g}; give a fraction to 1, or a whole number of trials")
        for name, default in type(self).model_fields.items():
            if self.kind == "grid" and getattr(self, name) != default.default:
                raise ValueError(f"{name} has no effect with kind grid; leave it out, or set kind: adaptive")
        return self
