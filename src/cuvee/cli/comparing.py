"""``cuvee compare``: corpora, or numbers that were measured before, side by side."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cuvee.cli import console, show
from cuvee.cli.console import Display, Watch
from cuvee.cli.options import (
    Against,
    Columns,
    EncoderName,
    Group,
    Json,
    Label,
    Metrics,
    Seed,
    Text,
    may_trust,
    refuse_options,
)
from cuvee.encoders import DEFAULT_ENCODER, load_encoder
from cuvee.errors import ConfigError
from cuvee.inputs import read_text
from cuvee.measure import compare_corpora, compare_measurements, read_measurement


@may_trust
def compare(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="two or more files of texts; or of cuvee measure --json")],
    against: Against = None,
    metric: Metrics = None,
    rows: Annotated[int | None, typer.Option(min=2, help="of each; by default those of the smallest")] = None,
    words: Annotated[int | None, typer.Option(min=1, help="that lexical numbers see of a text")] = None,
    match_lengths: Annotated[bool, typer.Option("--match-lengths/--no-match-lengths", help="equal lengths")] = True,
    draws: Annotated[int, typer.Option(min=1, help="samples that a number is the mean of")] = 10,
    force: Annotated[bool, typer.Option("--force", help="compare saved numbers that do not compare")] = False,
    encoder: EncoderName = DEFAULT_ENCODER,
    text: Text = None,
    label: Label = None,
    group: Group = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Compare corpora at equal rows and matched lengths; the first one is what the others are compared with."""
    if len(files) < 2:
        raise ConfigError("one file alone has nothing to be compared with; give two or more")
    saved = [path.suffix == ".json" for path in files]
    if any(saved) and not all(saved):
        raise ConfigError("saved numbers (.json) do not compare with files of texts; give one kind")
    if all(saved):
        refuse_options(
            ctx,
            [
                "against",
                "metric",
                "rows",
                "words",
                "match_lengths",
                "draws",
                "encoder",
                "text",
                "label",
                "group",
                "seed",
            ],
            "these numbers were measured before",
        )
        found = compare_measurements([read_measurement(read_text(path), name=str(path)) for path in files], force=force)
    else:
        refuse_options(ctx, ["force"], "texts are measured so that they compare")
        columns, display = Columns(text, label, group, files=(*files, against)), Display()
        corpora = {name: columns.load(path) for name, path in zip(_names(files), files, strict=True)}
        with display:
            try:
                found = compare_corpora(
                    corpora,
                    against=columns.load_other(against) if against else None,
                    encoder=load_encoder(encoder),
                    metrics=metric,
                    rows=rows,
                    words=words,
                    match_lengths=match_lengths,
                    draws=draws,
                    seed=seed,
                    progress=partial(Watch(display), "compare"),
                )
            except ValueError as exc:
                raise ConfigError(str(exc)) from exc
    if json:
        console.show_json(show.comparison_object(found))
    else:
        show.show_comparison(found)


def _names(files: list[Path]) -> list[str]:
    """File names, with their folders where names repeat."""
    names = [f.name for f in files]
    return names if len(set(names)) == len(names) else [str(f) for f in files]
