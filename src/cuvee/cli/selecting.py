"""``cuvee select``: clean a pool, and choose rows of it at a diversity, with size, labels and lengths held fixed."""

from __future__ import annotations

import json as json_text
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cuvee.cli import console
from cuvee.cli.options import GROUPED, Columns, EncoderName, Output, Seed, choose_name, may_trust, refuse_options
from cuvee.corpus import Corpus, label_strata, write_corpus
from cuvee.corpus.files import replace_text
from cuvee.encoders import DEFAULT_ENCODER, Encoder, load_encoder
from cuvee.errors import ConfigError, InputError
from cuvee.mix import (
    METHODS,
    OBJECTIVES,
    Agreement,
    Dedupe,
    Degenerate,
    FewerPerCluster,
    Filter,
    Filtered,
    Keep,
    Leak,
    Selection,
    apply_filters,
    select_levels,
    select_rows,
    select_target,
)

_CHOICE = ("levels", "target", "method", "metric", "no_match_lengths")


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """Which filters a pool goes through."""

    real: Annotated[Path | None, typer.Option(help="real training rows: for copies, agreement, lowest_shift")] = None
    held_out: Annotated[list[Path] | None, typer.Option(help="validation or test rows; rows that repeat them go")] = (
        None
    )
    no_dedupe: Annotated[bool, typer.Option("--no-dedupe", help="keep repeated texts")] = False
    near: Annotated[float | None, typer.Option(min=0, max=1, help="cosine from which rows count as repeated")] = None
    keep_degenerate: Annotated[bool, typer.Option("--keep-degenerate", help="keep broken and looping text")] = False
    agree_threshold: Annotated[float | None, typer.Option(min=0, max=1, help="least probability of a row's label")] = (
        None
    )
    agree_top: Annotated[
        float | None, typer.Option(min=0, max=1, help="fraction of rows with the most probable labels")
    ] = None
    per_group: Annotated[int | None, typer.Option(min=1, help="most rows of a --group")] = None
    per_cluster: Annotated[int | None, typer.Option(min=1, help="most rows of near neighbours")] = None
    cluster_cosine: Annotated[float, typer.Option(min=0.01, max=1)] = 0.9
    own: Annotated[
        list[str] | None, typer.Option("--filter", help="a function of your own, module:Name: why a row goes, or None")
    ] = None
    removed: Annotated[Path | None, typer.Option(help="JSONL of the rows that went, with reasons")] = None

    def check(self, ctx: typer.Context, group: str | None) -> None:
        """Refuse options that would have no effect."""
        if self.per_cluster is None:
            refuse_options(ctx, ["cluster_cosine"], "it goes with --per-cluster")
        if self.no_dedupe:
            refuse_options(ctx, ["near"], "it goes with removing repeated rows, which --no-dedupe leaves out")
        if self.per_group is not None and group is None:
            raise ConfigError("--per-group needs --group COLUMN")

    def filters(self, real: Corpus | None, held_out: Sequence[str], seed: int) -> list[Filter]:
        """The filters, in the order in which they are applied."""
        texts = real.texts if real is not None else []
        found: list[Filter] = []
        if not self.no_dedupe:
            found.append(Dedupe(against=real.prompts if real is not None else (), near=self.near))
        if not self.keep_degenerate:
            found.append(Degenerate())
        if held_out:
            found.append(Leak(held_out=held_out, reference=texts))
        found += [Keep.load(name) for name in self.own or ()]
        if self.agree_threshold is not None or self.agree_top is not None:
            if real is None:
                raise ConfigError("--agree-threshold and --agree-top ask a probe of the real rows; give --real FILE")
            found.append(Agreement(train=real, threshold=self.agree_threshold, top=self.agree_top, seed=seed))
        if self.per_group is not None:
            found.append(FewerPerCluster(limit=self.per_group, name="fewer-per-group"))
        if self.per_cluster is not None:
            found.append(FewerPerCluster(limit=self.per_cluster, threshold=self.cluster_cosine))
        return found


@dataclass(frozen=True, kw_only=True)
class Choosing:
    """Which rows are chosen of those that pass the filters."""

    rows: Annotated[
        int | None, typer.Option(min=1, help="to choose; without it all rows that pass the filters stay")
    ] = None
    levels: Annotated[int | None, typer.Option(min=2, help="subsets, from the least to the most diverse")] = None
    target: Annotated[float | None, typer.Option(help="the value of --metric to reach")] = None
    method: Annotated[str | None, typer.Option(help=f"one subset: {', '.join(METHODS)}")] = None
    metric: Annotated[str, typer.Option(help=f"{', '.join(OBJECTIVES)}")] = "vendi"
    no_match_lengths: Annotated[bool, typer.Option("--no-match-lengths", help="leave lengths free")] = False
    encoder: EncoderName = DEFAULT_ENCODER
    seed: Seed = 0

    def check(self, ctx: typer.Context) -> None:
        """Refuse options that exclude each other or would have no effect, and names that there are not."""
        if self.rows is None:
            refuse_options(ctx, _CHOICE, "it says which rows to choose; say how many with --rows")
        given = [name for name in ("levels", "target", "method") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"--{given[0]} and --{given[1]} exclude each other; give one")
        if self.method is not None:
            refuse_options(ctx, ["metric"], "the method says what is chosen by")
            choose_name(self.method, [*METHODS], "--method")
        choose_name(self.metric, [*OBJECTIVES], "--metric")

    def choose(self, pool: Corpus, encoder: Encoder, real: Corpus | None, rows: int) -> list[Selection]:
        """The rows at each level, at the target, or by the method."""
        vectors = encoder.encode(pool.texts)
        match, metric = not self.no_match_lengths, self.metric
        if self.levels is not None:
            return list(
                select_levels(
                    pool, vectors, rows=rows, levels=self.levels, metric=metric, match_lengths=match, seed=self.seed
                )
            )
        if self.target is not None:
            return [
                select_target(
                    pool, vectors, rows=rows, target=self.target, metric=metric, match_lengths=match, seed=self.seed
                )
            ]
        other = None
        if self.method == "lowest_shift":
            if real is None:
                raise ConfigError("--method lowest_shift needs the real rows; give --real FILE")
            other = encoder.encode(real.texts)
        method = self.method or metric
        return [select_rows(pool, vectors, rows=rows, method=method, real=other, match_lengths=match, seed=self.seed)]


@dataclass(frozen=True, kw_only=True)
class SelectedOutput(Output):
    """A file of the chosen rows, or one a level."""

    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet, JSONL or CSV; with --levels one file a level")] = (
        Path("selected.parquet")
    )


@may_trust
def select(
    ctx: typer.Context,
    pool: Annotated[Path, typer.Argument(help="synthetic rows")],
    choosing: Choosing,
    cleaning: Cleaning,
    columns: Annotated[Columns, GROUPED],
    output: SelectedOutput,
) -> None:
    """Filter a pool and choose rows of it: at levels of diversity, at a value, nearest to real data, or plainly."""
    output.check(ctx)
    choosing.check(ctx)
    cleaning.check(ctx, columns.group)
    columns = columns.checked(ctx, pool, cleaning.real, *(cleaning.held_out or ()))
    corpus = columns.load(pool)
    corpus = Corpus.from_rows(
        ({**row, "origin": "synthetic"} for row in corpus.table.to_pylist()), origin="synthetic", task=corpus.task
    )
    real = columns.load_other(cleaning.real) if cleaning.real is not None else None
    others = [line for path in cleaning.held_out or () for line in columns.load_other(path).texts]
    try:
        filters = cleaning.filters(real, others, choosing.seed)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc
    encoder = load_encoder(choosing.encoder)
    filtered = apply_filters(corpus, filters, encode=encoder.encode)
    if cleaning.removed is not None:
        lines = (json_text.dumps(asdict(row), ensure_ascii=False) for row in filtered.removed)
        replace_text(cleaning.removed, "".join(f"{line}\n" for line in lines))
    _check_left(pool, filtered, choosing.rows or 1)
    chosen = None if choosing.rows is None else choosing.choose(filtered.corpus, encoder, real, choosing.rows)
    paths = _write(filtered.corpus, chosen, output)
    _show(filtered, chosen, paths, output.json)


def _check_left(pool: Path, filtered: Filtered, wanted: int) -> None:
    """Where filters left too few rows, say which ones took how many."""
    left, before = len(filtered.corpus), len(filtered.corpus) + len(filtered.removed)
    if wanted > left < before:
        taken = ", ".join(f"{step.name} took {step.removed}" for step in filtered.steps if step.removed)
        raise InputError(
            f"{pool}: {wanted} rows are needed, {left} of {before} passed the filters ({taken}); ask for fewer, "
            "filter less, or give a larger pool"
        )


def _write(pool: Corpus, chosen: list[Selection] | None, output: SelectedOutput) -> list[Path]:
    out = output.out
    corpora = [pool] if chosen is None else [part.corpus for part in chosen]
    paths = [out]
    if chosen is not None and len(chosen) > 1:
        paths = [out.with_name(f"{out.stem}-{part.name}{out.suffix}") for part in chosen]
    for corpus, path in zip(corpora, paths, strict=True):
        write_corpus(corpus, path, guard_cells=output.guard_cells)
    return paths


def _show(
    filtered: Filtered,
    chosen: list[Selection] | None,
    paths: list[Path],
    json: bool,
) -> None:
    """Print what filters removed, what was chosen, and where it was written; or all of it as JSON."""
    if json:
        console.show_json(
            {
                "filters": [{**asdict(step), "reasons": dict(step.reasons)} for step in filtered.steps],
                "selections": [
                    {
                        "name": part.name,
                        "path": str(path),
                        "rows": len(part.rows),
                        "values": dict(part.values),
                        "length_difference": part.length_difference,
                        "label_counts": dict(sorted(Counter(label_strata(part.corpus)).items())),
                        "note": part.note,
                    }
                    for part, path in zip(chosen or [], paths, strict=False)
                ],
                "paths": [str(path) for path in paths],
            }
        )
        return
    console.out.print(str(filtered))
    if chosen is not None:
        console.out.print(_table(chosen))
        for note in dict.fromkeys(part.note for part in chosen if part.note):
            console.out.print(f"note: {note}")
    console.out.print(f"wrote {', '.join(map(str, paths))}")


def _table(chosen: list[Selection]) -> Table:
    table = console.make_table(None, "selection")
    names = list(chosen[0].values)
    for column in ("rows", *names, "length differs, SD"):
        table.add_column(column, justify="right", no_wrap=True)
    for part in chosen:
        numbers = [f"{part.values[name]:.4g}" for name in names]
        table.add_row(part.name, f"{len(part.rows)}", *numbers, f"{part.length_difference:.3f}")
    return table
