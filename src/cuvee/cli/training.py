"""``cuvee train``: a model from a blend."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from pydantic import TypeAdapter, ValidationError

from cuvee._version import __version__
from cuvee.cli import console
from cuvee.cli.console import Display
from cuvee.cli.options import (
    COLUMNS,
    IN_STUDY,
    EncoderName,
    Json,
    Label,
    Seed,
    Text,
    choose_name,
    is_study,
    may_trust,
    open_shown,
    refuse_options,
)
from cuvee.corpus import Corpus, Task, load_corpus
from cuvee.corpus.files import replace_text
from cuvee.encoders import DEFAULT_ENCODER, load_encoder
from cuvee.errors import ConfigError, InputError
from cuvee.execute import Stages
from cuvee.hub import CARD_FILE, check_push, is_own_card, push_model
from cuvee.registry import nearest_name
from cuvee.report import CardFacts, Licences, Reproduction, is_language, render_model_card
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
_FREE = tuple(field.name for field in dataclasses.fields(TrainSettings) if field.name not in _NAMED)
_PLAIN = (
    *("trainer", "loss", "source_weight", "steps", "encoder", "out", "seed", "task", "context"),
    *("validation", "checkpoints", "settings", "licence", "licence_name", "language", "push", "public"),
)


@may_trust
def train(
    ctx: typer.Context,
    target: Annotated[Path, typer.Argument(help="a blend (file of rows); or study.yaml or a run folder")],
    task: Annotated[str, typer.Option(help="classification, generation or retrieval")] = "classification",
    trainer: Annotated[
        str | None,
        typer.Option(
            help="classification: probe (default) or encoder; generation: causal; retrieval: retriever",
            show_default=False,
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(LOSSES)} [default: source_weight where real and synthetic rows have labels, else ce]",
            show_default=False,
        ),
    ] = None,
    source_weight: Annotated[
        float | None,
        typer.Option(min=0, help="of synthetic rows, for that loss; chosen on real rows if left out"),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="optimiser steps")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help=f"NAME=VALUE, again and again: {', '.join(_FREE)}")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="real rows never trained on: for early stopping, online weights")
    ] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="folder; training that was stopped goes on from there")
    ] = None,
    encoder: EncoderName = DEFAULT_ENCODER,
    context: Annotated[str | None, typer.Option(help="column of what a question is about")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of the model")] = Path("model"),
    licence: Annotated[str, typer.Option(help="of the model, as the hub names it: apache-2.0")] = "other",
    licence_name: Annotated[str, typer.Option(help="where the licence is 'other'")] = "unstated",
    language: Annotated[list[str] | None, typer.Option(help="of the texts: en")] = None,
    push: Annotated[
        str | None, typer.Option(help="upload the model to the hub as NAMESPACE/NAME; needs HF_TOKEN")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="with --push: for all to see")] = False,
    text: Text = None,
    label: Label = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train a model on a blend; or run the trials of a study."""
    if is_study(target):
        refuse_options(ctx, [*COLUMNS, *_PLAIN], IN_STUDY)
        _train_study(target, json)
        return
    of = choose_name(task, get_args(Task), "--task")
    chosen = trainer or TASKS[of][0]
    find_trainer(chosen)
    card = CardFacts(
        name=out.name,
        version=__version__,
        task=of,
        languages=_read_languages(language or ()),
        licences=_read_licence(licence, licence_name),
    )
    _check_output(ctx, out, push)
    if loss is not None:
        _refuse_encoder(ctx, chosen, of, loss)

    def load(path: Path) -> Corpus:
        return load_corpus(path, text=text, label=label, context=context, task=of)

    corpus = load(target)
    used = loss or _default_loss(corpus)
    _refuse_encoder(ctx, chosen, of, used)
    display = Display()
    with display, Stages(display).stage("train", "steps") as progress:
        predictor = train_model(
            corpus,
            settings=_read_settings(chosen, used, steps, seed, source_weight, settings or ()),
            encoder=load_encoder(encoder),
            validation=load(validation) if validation is not None else None,
            progress=lambda done, total, _loss: progress(done, total),
            folder=checkpoints,
        )
    predictor.save(out)
    how = Reproduction(
        command=shlex.join(["cuvee", *cast("list[str]", ctx.obj)]), fingerprints={"the rows": corpus.fingerprint}
    )
    took = {f.name: getattr(predictor.settings, f.name) for f in dataclasses.fields(predictor.settings)}
    card = dataclasses.replace(card, reproduction=how)
    base = encoder if chosen == "probe" else ""
    replace_text(out / CARD_FILE, render_model_card(card, corpus, took, base=base))
    address = push_model(out, push, private=not public) if push is not None else None
    if json:
        taken = {k: v for k, v in dataclasses.asdict(predictor.settings).items() if v is not None}
        labels = list(getattr(predictor, "labels", ()))
        made = {"model": str(out), "rows": len(corpus), "labels": labels, "settings": taken}
        console.show_json({**made, "pushed": address})
    else:
        weight = predictor.settings.source_weight
        said = used if weight is None else f"{used} {weight:g} for synthetic rows"
        console.out.print(
            f"trained {chosen} on {len(corpus)} rows with loss {said}; wrote {out}; "
            + (f"pushed to {address}; " if address else "")
            + f"next: cuvee evaluate {out} TEST_FILE",
        )


def _read_licence(licence: str, name: str) -> Licences:
    try:
        return Licences(blend=licence, name=name)
    except ValueError as exc:
        raise ConfigError(f"--licence: {exc}") from exc


def _read_languages(given: Sequence[str]) -> Sequence[str]:
    for code in given:
        if not is_language(code):
            raise ConfigError(f"--language is {code!r}; give ISO 639 codes such as en or pt-BR")
    return given


def _check_output(ctx: typer.Context, out: Path, push: str | None) -> None:
    """Refuse, before training, a folder whose README.md is not ours, and a push that cannot be."""
    if (out / CARD_FILE).exists() and not is_own_card(out / CARD_FILE):
        raise InputError(f"{out / CARD_FILE}: not a card that Cuvée wrote, and it would be lost; give another --out")
    if push is None:
        refuse_options(ctx, ["public"], "it goes with --push")
    else:
        check_push(push)


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


def _read_settings(
    trainer: str, loss: str, steps: int | None, seed: int, source_weight: float | None, given: Sequence[str]
) -> TrainSettings:
    """Settings from the options, with those of ``--set`` read by their types.

    Raises:
        ConfigError: not NAME=VALUE, no such setting, one that is an option of its own, or a value out of range.
    """
    found: dict[str, str] = {}
    for pair in given:
        name, mark, value = pair.partition("=")
        name = name.strip()
        if not mark:
            raise ConfigError(f"--set {pair!r}: give NAME=VALUE, such as batch_size=8")
        if name in _NAMED:
            raise ConfigError(f"--set {name}: it is an option of its own, --{name.replace('_', '-')}")
        if name not in _FREE:
            raise ConfigError(f"--set: no setting {name!r}; {nearest_name(name, _FREE)}")
        found[name] = value.strip()
    values = {"trainer": trainer, "loss": loss, "steps": steps, "seed": seed, "source_weight": source_weight, **found}
    try:
        return TypeAdapter(TrainSettings).validate_python(values)
    except ValidationError as exc:
        error = exc.errors()[0]
        where = ".".join(str(part) for part in error["loc"] if str(part) in _FREE)
        said = error["msg"].removeprefix("Value error, ")
        raise ConfigError(f"--set {where}={found[where]}: {said}" if where else f"--set: {said}") from exc
    except ValueError as exc:
        raise ConfigError(f"--set: {exc}") from exc
