"""``cuvee split``: one file of rows into training, validation and test rows, and few-shot training sets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cuvee.characters import visible
from cuvee.cli import console
from cuvee.cli.options import (
    GROUPED,
    Columns,
    EncoderName,
    Output,
    Seed,
    check_guard,
    choose_name,
    may_trust,
    refuse_options,
)
from cuvee.corpus import Corpus, Split, few_shot_sets, split_corpus, write_corpus
from cuvee.corpus.files import check_folder, fill_folder
from cuvee.encoders import DEFAULT_ENCODER, load_encoder
from cuvee.errors import ConfigError, InputError
from cuvee.similarity import find_near_duplicates, unit_rows

_FORMATS = ("parquet", "jsonl", "csv")


@dataclass(frozen=True, kw_only=True)
class Splitting:
    """How rows are split."""

    test: Annotated[float, typer.Option(min=0, help="rows, or a fraction below 1")] = 0.2
    validation: Annotated[float, typer.Option(min=0, help="rows, or a fraction below 1")] = 0.1
    rows_per_label: Annotated[str | None, typer.Option(help="few-shot training sets, nested: 4,16,64,all")] = None
    near: Annotated[
        float | None, typer.Option(min=0, max=1, help="keep rows with a cosine of at least this together")
    ] = None
    encoder: EncoderName = DEFAULT_ENCODER
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class SplitOutput(Output):
    """A folder of one file a part."""

    out: Annotated[Path, typer.Option("--out", "-o", help="a new folder")]
    form: Annotated[str, typer.Option("--format", help="parquet, jsonl or csv")] = "parquet"


@may_trust
def split(
    ctx: typer.Context,
    data: Annotated[Path, typer.Argument(help="file of real rows")],
    how: Splitting,
    columns: Annotated[Columns, GROUPED],
    output: SplitOutput,
) -> None:
    """Split a file into train, validation and test; no text, group, context or near-duplicate is on two sides."""
    out, form = output.out, choose_name(output.form, _FORMATS, "--format")
    check_guard(ctx, f".{form}")
    if how.near is None:
        refuse_options(ctx, ["encoder"], "it goes with --near")
    check_folder(out)
    corpus = columns.load(data, labelled=True)
    sizes = _read_sizes(how.rows_per_label)
    together = None if how.near is None else _link_rows(corpus, how.near, how.encoder)
    try:
        made = split_corpus(
            corpus,
            test=_read_part("test", how.test),
            validation=_read_part("validation", how.validation),
            rows_per_label=None,
            seed=how.seed,
            together=together,
        )
    except InputError as exc:
        raise InputError(f"{data}: {_as_options(str(exc))}") from exc
    parts = _gather_parts(made, sizes, how)
    with fill_folder(out) as folder:
        for name, rows in parts.items():
            write_corpus(rows, folder / f"{name}.{form}", guard_cells=output.guard_cells)
    paths = {name: out / f"{name}.{form}" for name in parts}
    if output.json:
        console.show_json({"parts": {k: _describe(v, paths[k]) for k, v in parts.items()}, "seed": how.seed,
                        "fingerprint": corpus.fingerprint})  # fmt: skip
    else:
        _show_parts(parts, paths)


def _as_options(message: str) -> str:
    """A message about the keys of study.yaml as one about options."""
    for name in ("test", "validation", "rows_per_label"):
        message = message.replace(f"split.{name}", f"--{name.replace('_', '-')}")
    return message


def _read_part(name: str, value: float) -> int | float:
    if value < 1:
        return value
    if not math.isfinite(value) or value != int(value):
        raise ConfigError(f"--{name} is {value!r}; give whole rows, or a fraction below 1")
    return int(value)


def _read_sizes(text: str | None) -> list[int | str]:
    out: list[int | str] = []
    for part in (text or "all").split(","):
        said = part.strip()
        if said != "all" and not (said.isascii() and said.isdigit() and int(said) > 0):
            raise ConfigError(f"--rows-per-label is {text!r}; give numbers of at least 1, or all: 4,16,64,all")
        out.append("all" if said == "all" else int(said))
    return list(dict.fromkeys(out))


def _link_rows(corpus: Corpus, near: float, encoder: str) -> list[int]:
    try:
        unit = unit_rows(load_encoder(encoder).encode(corpus.texts))
        linked: list[int] = find_near_duplicates(unit, near).cluster.tolist()
    except ValueError as exc:
        raise ConfigError(f"--near {near:g} with encoder {encoder}: {exc}") from exc
    return linked


def _gather_parts(made: Split, sizes: list[int | str], how: Splitting) -> dict[str, Corpus]:
    """Every file to write; a part that was asked for and came out empty is an error."""
    parts = {"train": made.train, "validation": made.validation, "test": made.test.open_for_confirmation()}
    for name in ("test", "validation"):
        rows = getattr(how, name)
        if rows and not len(parts[name]):
            raise InputError(
                f"--{name} {rows:g} came out empty: no group or cluster of duplicates is small enough; "
                f"raise --{name}, raise --near, or take a finer --group"
            )
    parts |= {f"train-{k}": rows for k, rows in few_shot_sets(made.train, sizes, seed=how.seed).items() if k != "all"}
    # a part of no rows would be a file that nothing reads
    return {name: rows for name, rows in parts.items() if len(rows)}


def _describe(rows: Corpus, path: Path) -> dict[str, object]:
    labels = rows.label_counts() if rows.task == "classification" else {}
    return {"path": str(path), "rows": len(rows), "label_counts": labels, "fingerprint": rows.fingerprint}


def _show_parts(parts: Mapping[str, Corpus], paths: Mapping[str, Path]) -> None:
    labels = sorted({label for rows in parts.values() for label in rows.labels if rows.task == "classification"})
    table = console.make_table(None, "part")
    for column in ("rows", *labels[:8]):
        table.add_column(visible(column), justify="right")
    for name, rows in parts.items():
        counts = rows.label_counts()
        table.add_row(name, str(len(rows)), *(str(counts.get(label, 0)) for label in labels[:8]))
    console.out.print(table)
    for path in paths.values():
        console.out.print(f"wrote {path}", soft_wrap=True)
