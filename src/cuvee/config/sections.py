"""What all sections of study.yaml have in common; those for training, the search, where trials run and are tracked."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields
from functools import reduce
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationInfo
from pydantic.functional_validators import AfterValidator, BeforeValidator, model_validator
from pydantic_core import PydanticCustomError

from cuvee.characters import check_name
from cuvee.errors import ConfigError
from cuvee.execute import Terms
from cuvee.masking import name_secrets
from cuvee.registry import nearest_name, require_trust
from cuvee.train import LOSSES, TRAINERS, Program, TrainSettings
from cuvee.train.command import split_line

Name = Annotated[str, AfterValidator(check_name)]  # of a level, a dial or a column: no control character
OWN = r"^[\w.]+:\w+$"  # the pattern of the user's ``module:Name``


def place(path: str, info: ValidationInfo) -> str:
    """An absolute path: a relative one is relative to the folder of the file that names it, where that is known."""
    folder: Path | None = info.context
    return path if folder is None else str((folder / Path(path).expanduser()).resolve())


Located = Annotated[str, AfterValidator(place)]  # A path, absolute once a config was read


class Section(BaseModel):
    """A part of study.yaml: unchanging, and no key that it does not know; tracebacks do not show what was given."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _know_keys(cls, given: object) -> object:
        """Refuse an unknown key, and name the nearest known one."""
        known = cls.model_fields
        unknown = [key for key in given if key not in known] if isinstance(given, Mapping) else []
        if unknown:
            key = str(unknown[0])
            raise PydanticCustomError("unknown_key", "{nearest}", {"key": key, "nearest": nearest_name(key, known)})
        return given

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        self._check()
        return self

    def _check(self) -> None:
        """Refuse values that do not go together, with a ValueError."""

    def refuse(self, names: Iterable[str], why: str) -> None:
        """Refuse keys that are set to something; a dot leads into a section.

        Raises:
            ValueError: naming the first.
        """
        for name in names:
            *path, key = name.split(".")
            part: Section = reduce(getattr, path, self)
            if getattr(part, key) != type(part).model_fields[key].default:
                raise ValueError(f"{name} {why}")


def tell_own(value: object) -> str:
    """Whether a named section is one of ours or the user's own ``module:Name``."""
    name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)
    return "own" if isinstance(name, str) and ":" in name else "named"


def _check_settings(settings: Mapping[str, bool | int | float | str]) -> Mapping[str, bool | int | float | str]:
    """Refuse unknown settings, and those that a study decides itself."""
    decided = {"trainer", "loss", "steps", "seed", "source_weight", "patience", "evaluate_every", "checkpoint_every"}
    decided.add("program")
    known = {each.name for each in fields(TrainSettings)} - decided
    unknown = next((name for name in settings if name not in known), None)
    if unknown is not None:
        raise ValueError(f"settings has {unknown!r}; {nearest_name(unknown, sorted(known))}")
    TypeAdapter(TrainSettings).validate_python(dict(settings))
    return settings


Settings = Annotated[dict[str, bool | int | float | str], AfterValidator(_check_settings)]


def one_or_more(is_valid: Callable[[object], bool], told: str) -> BeforeValidator:
    """A check that there is one value, or a list of different ones."""

    def check(value: object) -> object:
        given = value if isinstance(value, list | tuple) else [value]
        if value is None:  # left out
            return value
        if not given or len(set(map(str, given))) < len(given) or not all(map(is_valid, given)):
            raise ValueError(f"give {told}, or a list of different ones, not {value!r}")
        return value

    return BeforeValidator(check)


def know(table: Collection[str], what: str, *, own: bool = False) -> AfterValidator:
    """A check that a name is in a table, or with ``own`` has the form ``module:Name``."""

    def check(name: str) -> str:
        if name not in table and not (own and ":" in name):
            raise ValueError(f"unknown {what} {name!r}; {nearest_name(name, table)}")
        return name

    return AfterValidator(check)


Trainer = Annotated[str, know(TRAINERS, "trainer", own=True)]
Loss = Annotated[str, know(LOSSES, "loss", own=True)]
Size = int | Literal["all"]
# Numbers of real rows a label; the largest is the main one.
Sizes = Annotated[
    Size | tuple[Size, ...] | None,
    one_or_more(lambda n: n == "all" or (type(n) is int and n >= 1), "a whole number of at least 1, all"),
]
_NAMES = one_or_more(lambda name: isinstance(name, str) and name != "", "one name")


def list_sizes(sizes: Size | tuple[Size, ...] | None) -> tuple[Size, ...]:
    """The numbers asked for, largest first; ``all`` is the largest, and what None means."""
    listed = sizes if isinstance(sizes, tuple) else ("all" if sizes is None else sizes,)
    return tuple(sorted(listed, key=lambda size: (size != "all", 0 if size == "all" else -size)))


PROBE, COMMAND = "probe", "command"  # the trainer that has no steps; the one that is a program
# Optimiser steps where the config gives none: of the grid, and of the trainer that checks.
STEPS, CHECK_STEPS = 300, 30


class CheckConfig(Section):
    """A more expensive trainer on few cells: real-only, the best, and the most diverse cell at the best one's share."""

    trainer: Trainer = "encoder"
    steps: int | None = Field(None, ge=1, description="30 where left out; none of the probe")
    settings: Settings = Field({}, description="more of this trainer: batch_size, learning_rate, lora_rank, ...")
    draws: int = Field(3, ge=1)
    keep: int = Field(1, ge=1, description="this many of the best cells go on to this trainer (successive halving)")


class CommandConfig(Section):
    """A program that trains, for trainer ``command``: each trial is a folder that is handed to it."""

    run: str | None = None
    """its line, with {folder} for the trial's folder; null: folders are written, and run elsewhere"""
    folder: Located | None = Field(None, description="where the trials' folders go; null: trials/ of the run folder")
    cwd: Located = Field(".", validate_default=True, description="where it is run; by default beside study.yaml")
    timeout_s: float | None = Field(None, gt=0, description="seconds it may take; then the trial has failed")
    memory_gb: float | None = Field(None, gt=0, description="of it and all that it starts; beyond that it is ended")
    settings: dict[str, JsonValue] = Field({}, description="your own, for the program: they stand in trial.json")

    def _check(self) -> None:
        if self.run is None:
            self.refuse(("timeout_s", "memory_gb"), "is for a program that is run here; give its line as run")
        else:
            split_line(self.run)

    def program(self) -> Program:
        """As the trainer takes it.

        Raises:
            ConfigError: the user does not trust ``command``, or a folder is a file or missing.
        """
        if self.run is not None:
            require_trust("command", f"train.command {self.run!r}: the program")
            if not Path(self.cwd).is_dir():
                raise ConfigError(f"train.command.cwd is {self.cwd}, and there is no such folder; name one")
        if self.folder is not None and Path(self.folder).is_file():
            raise ConfigError(f"train.command.folder is {self.folder}, which is a file; name a folder")
        return Program(**self.model_dump(exclude={"folder"}))


def _read_command(given: object) -> object:
    if given is not None and not isinstance(given, str | dict | CommandConfig):
        raise ValueError(f"give the program's line, or run, folder, timeout_s, memory_gb, settings; not {given!r:.80}")
    return {"run": given} if isinstance(given, str) else given


class OwnTraining(Section):
    """What one trainer or loss of several takes for itself."""

    steps: int | None = Field(None, ge=1, description="of a trainer")
    settings: Settings = {}


class TrainConfig(Section):
    """The trainers and losses of the grid: all cells of a trainer get the same optimiser steps."""

    trainer: Annotated[Trainer | tuple[Trainer, ...], _NAMES] = "probe"
    """one, or a list: the first decides, others show whether it holds"""
    loss: Annotated[Loss | tuple[Loss, ...], _NAMES] = "ce"
    """one, or a list: the first decides, others show whether it holds"""
    source_weight: float | None = Field(None, ge=0, description="of synthetic rows, for loss: source_weight")
    steps: int | None = Field(None, ge=1, description="300 where left out; none of the probe")
    settings: Settings = Field({}, description="more of the trainer and the loss: gamma, q, batch_size, lora_rank, ...")
    each: dict[str, OwnTraining] = Field({}, description="of one trainer or loss among several: steps and settings")
    sensitivity: tuple[Literal["equal-epochs", "penalty"], ...] | None = None
    """the shape test and the best cell again; equal-epochs: with as many epochs as real-only has; penalty: the probe
    with a tenth and with ten times its penalty, which is the default for it"""
    check: CheckConfig | None = None
    command: Annotated[CommandConfig | None, BeforeValidator(_read_command)] = None
    """for trainer command: the program's line, or run, folder, timeout_s, memory_gb, settings"""

    def _check(self) -> None:
        used = {*self.trainers, *(() if self.check is None else (self.check.trainer,))}
        if COMMAND in used and self.command is None:
            raise ValueError("trainer command needs the line of its program: command: python train.py {folder}")
        if COMMAND not in used:
            self.refuse(("command",), "is for trainer command; leave it out, or set trainer: command")
        for name, own in self.each.items():
            if name not in (*self.trainers, *self.losses):
                valid = nearest_name(name, [*self.trainers, *self.losses])
                raise ValueError(f"each has {name!r}, which is neither among trainer nor among loss; {valid}")
            if own.steps is not None and name not in self.trainers:
                raise ValueError(f"each.{name}.steps is {own.steps}, but all losses of a trainer get the same steps")
        self._check_probe()
        if self.source_weight is not None and "source_weight" not in self.losses:
            raise ValueError(f"source_weight has no effect with loss {', '.join(self.losses)}; set loss: source_weight")
        if self.check is not None and self.check.trainer in self.trainers and "ce" in self.losses:
            raise ValueError(f"check.trainer {self.check.trainer!r} with loss ce is in the grid already; leave it out")

    def _check_probe(self) -> None:
        """Refuse what the probe does not have, and what only it has."""
        optimum = "but trainer probe is fitted to its optimum; leave it out"
        own, check = self.each.get(PROBE), self.check
        for key, steps in {
            "steps": self.steps if self.trainers == (PROBE,) else None,
            "each.probe.steps": own and own.steps,
            "check.steps": check.steps if check is not None and check.trainer == PROBE else None,
        }.items():
            if steps is not None:
                raise ValueError(f"{key} is {steps}, {optimum}")
        asked, is_probe = self.sensitivity or (), self.trainers[0] == PROBE
        if "equal-epochs" in asked and is_probe:
            raise ValueError(f"sensitivity has equal-epochs, {optimum}, or take penalty")
        if "penalty" in asked and not is_probe:
            raise ValueError(f"sensitivity has penalty, which trainer {self.trainers[0]!r} has none of; leave it out")

    @property
    def trainers(self) -> tuple[str, ...]:
        """All trainers, the main one first."""
        return self.trainer if isinstance(self.trainer, tuple) else (self.trainer,)

    @property
    def losses(self) -> tuple[str, ...]:
        """All losses, the main one first."""
        return self.loss if isinstance(self.loss, tuple) else (self.loss,)

    def steps_of(self, trainer: str) -> int | None:
        """Optimiser steps of a trainer's cells; None for the probe."""
        own = self.each.get(trainer)
        given = self.steps if own is None or own.steps is None else own.steps
        return None if trainer == PROBE else given or STEPS

    def settings_of(self, trainer: str, loss: str) -> Settings:
        """Settings of a trainer with a loss: the common ones, then its own, then the loss's."""
        made = dict(self.settings)
        for name in (trainer, loss):
            if name in self.each:
                made |= self.each[name].settings
        return made


class SearchConfig(Section):
    """Which of the planned trials are run: all of them, or those that tell most."""

    kind: Literal["grid", "adaptive"] = "grid"
    """grid: all; adaptive: a Gaussian process over measured diversity and share chooses"""
    budget: float = Field(0.4, gt=0)
    """blend trials: a fraction of the planned ones (to 1), or a number in all; baselines on top"""
    batch: int = Field(4, ge=1, description="draws of cells asked in a round, of each trainer, loss and number of rows")

    def _check(self) -> None:
        if self.budget > 1 and self.budget != int(self.budget):
            raise ValueError(f"budget is {self.budget:g}; give a fraction to 1, or a whole number of trials")
        if self.kind == "grid":
            self.refuse(("budget", "batch"), "has no effect with kind grid; leave it out, or set kind: adaptive")


class ExecuteConfig(Section):
    """Where trials run. Results are the same everywhere."""

    kind: Literal["local", "processes", "ray"] = "local"
    """in this process; in several; on a Ray cluster"""
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """trials at once; auto: as many as fit"""
    address: str | None = Field(None, description="of a running Ray cluster; null starts one on this machine")
    timeout_s: float | None = Field(None, gt=0, description="seconds a trial may take; then it has failed")
    memory_gb: float | None = Field(None, gt=0, description="of a trial: its bound (processes), set aside (ray)")
    retries: int = Field(2, ge=0, description="of a trial whose worker or node died")
    cpus: int | None = Field(None, ge=1, description="threads of a trial; null: all (local), 1 (processes, ray)")
    gpus: int = Field(0, ge=0, description="GPUs of a trial")

    def _check(self) -> None:
        told = f"has no effect with kind {self.kind}; leave it out, or set kind:"
        if self.kind == "local":
            self.refuse(("workers", "timeout_s", "memory_gb", "retries", "gpus"), f"{told} processes or ray")
        if self.kind != "ray":
            self.refuse(("address",), f"{told} ray")

    def cluster(self) -> str | None:
        """The address of the Ray cluster, whose answers are unpickled, so that it can run what it likes here.

        Raises:
            ConfigError: the user does not trust ``ray``.
        """
        if self.address is not None:
            require_trust("ray", f"execute.address {self.address!r}: what a cluster answers")
        return self.address

    def terms(self) -> Terms:
        """As executors take them."""
        workers = None if self.workers == "auto" else self.workers
        return Terms(workers=workers, **self.model_dump(exclude={"kind", "workers", "address"}))


def _place_uri(uri: str, info: ValidationInfo) -> str:
    safe = name_secrets(uri) if "://" in uri else uri
    if safe != uri:
        raise ValueError(f"the URI holds a password or a key; export it as a variable and write '{safe}'")
    is_uri = uri == "databricks" or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", uri)
    return uri if is_uri else place(uri, info)


class TrackConfig(Section):
    """Where a finished study is tracked. Nothing leaves this machine unless the URI says so."""

    mlflow: Annotated[str, AfterValidator(_place_uri)] = Field(min_length=1)
    """a folder, or a URI of MLflow; ${NAME} is an environment variable"""


# --- how much synthetic data: 3x, all or rows a label, and the shares that they come to ---------------------
Amount = int | str  # ``3x`` (rows for each real one), ``all``, or a whole number of rows a label


def read_amount(amount: Amount, rows_per_label: int) -> float | None:
    """Synthetic rows for each real one; None is all rows of the pool.

    Args:
        amount: as it was given.
        rows_per_label: real rows of a label.
    """
    if amount == "all":
        return None
    return float(amount.removesuffix("x")) if isinstance(amount, str) else amount / rows_per_label


def amount_of(share: float) -> float:
    """Synthetic rows for each real one at a share below 1."""
    return share / (1.0 - share)


def share_of(amount: float) -> float:
    """The share of an amount, freed of what rounding adds on the way there and back."""
    return round(amount / (1.0 + amount), 12)


def check_amounts(value: object) -> tuple[Amount, ...]:
    """The amounts that were given, one or several.

    Raises:
        ValueError: one is no amount, or one is given twice.
    """
    given = value if isinstance(value, list | tuple) else [value]
    for each in given:
        is_count = isinstance(each, int) and not isinstance(each, bool) and each > 0
        is_ratio = isinstance(each, str) and re.fullmatch(r"\d+(\.\d+)?x", each) and float(each[:-1]) > 0
        if not (is_count or is_ratio or each == "all"):
            raise ValueError(f"amounts has {each!r}; give 3x (rows for each real one), rows a label as 50, or all")
    if not given or len(set(map(str, given))) < len(given):
        raise ValueError(f"give a list of different amounts such as [1x, 3x, 10x, all], not {value!r}")
    return tuple(given)


Amounts = Annotated[tuple[Amount, ...], BeforeValidator(check_amounts)]
