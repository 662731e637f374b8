"""``cuvee train``: a model from a blend."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, get_args

import typer
from pydantic import TypeAdapter, ValidationError

from cuvee.cli import console
from cuvee.cli.console import Display
from cuvee.cli.options import (
    IN_STUDY,
    UNGROUPED,
    Columns,
    EncoderName,
    Hub,
    Json,
    Seed,
    choose_name,
    is_study,
    may_trust,
    open_shown,
    option_names,
    refuse_options,
    told_command,
)
from cuvee.corpus import Corpus, Task
from cuvee.corpus.files import replace_text
from cuvee.encoders import DEFAULT_ENCODER, load_encoder
from cuvee.errors import ConfigError, InputError
from cuvee.execute import Stages
from cuvee.hub import CARD_FILE, check_push, is_own_card, push_model
from cuvee.registry import nearest_name
from cuvee.report import Reproduction, render_model_card
from cuvee.train import (
    LOSSES,
    TASKS,
    TrainSettings,
    find_trainer,
    train_model,
)

_NAMED = ("trainer", "loss", "steps", "seed", "source_weight")
_CHECKING = ("imp", "dimp", "source_weight", "agreement_filter")
"""Losses that look at sentence vectors whatever is trained."""
_FREE = tuple(field.name for field in fields(TrainSettings) if field.name not in _NAMED)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model is trained."""

    trainer: Annotated[
        str | None,
        typer.Option(
            help="classification: probe (default) or encoder; generation: causal; retrieval: retriever",
            show_default=False,
        ),
    ] = None
    loss: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(LOSSES)} [default: source_weight where real and synthetic rows have labels, else ce]",
            show_default=False,
        ),
    ] = None
    source_weight: Annotated[
        float | None,
        typer.Option(min=0, help="of synthetic rows, for that loss; chosen on real rows if left out"),
    ] = None
    steps: Annotated[int | None, typer.Option(min=1, help="optimiser steps")] = None
    settings: Annotated[
        list[str] | None, typer.Option("--set", help=f"NAME=VALUE, again and again: {', '.join(_FREE)}")
    ] = None
    validation: Annotated[
        Path | None, typer.Option(help="real rows never trained on: for early stopping, online weights")
    ] = None
    checkpoints: Annotated[Path | None, typer.Option(help="folder; training that was stopped goes on from there")] = (
        None
    )
    encoder: EncoderName = DEFAULT_ENCODER
    seed: Seed = 0


_HUB = ("licence", "licence_name", "language", "push", "public")


@may_trust
def train(
    ctx: typer.Context,
    target: Annotated[Path, typer.Argument(help="a blend (file of rows); or study.yaml or a run folder")],
    how: Training,
    hub: Annotated[Hub, _HUB],
    columns: Annotated[Columns, UNGROUPED],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of the model")] = Path("model"),
    json: Json = False,
) -> None:
    """Train a model on a blend; or run the trials of a study."""
    if is_study(target):
        refuse_options(ctx, [*UNGROUPED, *option_names(Training), *_HUB, "out"], IN_STUDY)
        _train_study(target, json)
        return
    columns = columns.checked(ctx, target, how.validation)
    task = choose_name(columns.task, get_args(Task), "--task")
    chosen = how.trainer or TASKS[task][0]
    find_trainer(chosen)
    card = hub.describe(ctx, out.name)
    if (out / CARD_FILE).exists() and not is_own_card(out / CARD_FILE):
        raise InputError(f"{out / CARD_FILE}: not a card that Cuvée wrote, and it would be lost; give another --out")
    if hub.push is not None:
        check_push(hub.push)
    if how.loss is not None:
        _refuse_encoder(ctx, chosen, task, how.loss)
    corpus = columns.load(target, labelled=True)
    loss = how.loss or _default_loss(corpus)
    _refuse_encoder(ctx, chosen, task, loss)
    display = Display()
    with display, Stages(display).stage("train", "steps") as progress:
        predictor = train_model(
            corpus,
            settings=_read_settings(how, chosen, loss),
            encoder=load_encoder(how.encoder),
            validation=columns.load(how.validation, labelled=True) if how.validation is not None else None,
            progress=lambda done, total, _loss: progress(done, total),
            folder=how.checkpoints,
        )
    predictor.save(out)
    made = Reproduction(command=told_command(ctx), fingerprints={"the rows": corpus.fingerprint})
    card = replace(card, task=task, reproduction=made)
    took = {f.name: getattr(predictor.settings, f.name) for f in fields(predictor.settings)}
    base = how.encoder if chosen == "probe" else ""
    replace_text(out / CARD_FILE, render_model_card(card, corpus, took, base=base))
    address = push_model(out, hub.push, private=not hub.public) if hub.push is not None else None
    if json:
        taken = {k: v for k, v in asdict(predictor.settings).items() if v is not None}
        labels = list(getattr(predictor, "labels", ()))
        told = {"model": str(out), "rows": len(corpus), "labels": labels, "settings": taken, "pushed": address}
        console.show_json(told)
    else:
        weight = predictor.settings.source_weight
        said = loss if weight is None else f"{loss} {weight:g} for synthetic rows"
        console.out.print(
            f"trained {chosen} on {len(corpus)} rows with loss {said}; wrote {out}; "
            + (f"pushed to {address}; " if address else "")
            + f"next: cuvee evaluate {shlex.quote(str(out))} TEST_FILE",
        )


def _refuse_encoder(ctx: typer.Context, trainer: str, task: Task, loss: str) -> None:
    """Refuse an encoder that neither the trainer nor the loss's checker reads."""
    if trainer != "probe" and (task != "classification" or loss not in _CHECKING):
        refuse_options(ctx, ["encoder"], f"the trainer {trainer!r} fine-tunes a model of its own: --set model=NAME")


def _default_loss(corpus: Corpus) -> str:
    """A chosen weight of the synthetic rows, where there are real rows enough to choose it by."""
    if corpus.task != "classification" or len(set(corpus.origins)) < 2:
        return "ce"
    real = Counter(y for y, origin in zip(corpus.targets, corpus.origins, strict=True) if origin == "real")
    return "source_weight" if sum(rows >= 2 for rows in real.values()) >= 2 else "ce"


def _train_study(path: Path, json: bool) -> None:
    display = Display()
    with open_shown(path, None, display) as flow:
        outcomes = flow.grid
    failed = sum(1 for o in outcomes if not hasattr(o, "scores"))
    if json:
        console.show_json({"trials": len(outcomes) - failed, "failed": failed})
    else:
        console.out.print(f"{len(outcomes) - failed} trials finished, {failed} failed")


def _read_settings(how: Training, trainer: str, loss: str) -> TrainSettings:
    """Settings from the options, with those of ``--set`` read by their types.

    Raises:
        ConfigError: not NAME=VALUE, no such setting, one that is an option of its own, or a value out of range.
    """
    found: dict[str, str] = {}
    for pair in how.settings or ():
        name, mark, value = pair.partition("=")
        name = name.strip()
        if not mark:
            raise ConfigError(f"--set {pair!r}: give NAME=VALUE, such as batch_size=8")
        if name in _NAMED:
            raise ConfigError(f"--set {name}: it is an option of its own, --{name.replace('_', '-')}")
        if name not in _FREE:
            raise ConfigError(f"--set: no setting {name!r}; {nearest_name(name, _FREE)}")
        found[name] = value.strip()
    given = {name: getattr(how, name) for name in ("steps", "seed", "source_weight")}
    values = {"trainer": trainer, "loss": loss, **given, **found}
    try:
        return TypeAdapter(TrainSettings).validate_python(values)
    except ValidationError as exc:
        error = exc.errors()[0]
        where = ".".join(str(part) for part in error["loc"] if str(part) in _FREE)
        said = error["msg"].removeprefix("Value error, ")
        raise ConfigError(f"--set {where}={found[where]}: {said}" if where else f"--set: {said}") from exc
    except ValueError as exc:
        raise ConfigError(f"--set: {exc}") from exc
