"""``cuvee select``: clean a pool, and choose rows of it at a diversity, with size, labels and lengths held fixed."""

from __future__ import annotations

import json as json_text
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, get_args

import typer

from cuvee.cli.options import (
    Columns,
    EncoderName,
    Group,
    GuardCells,
    Json,
    Label,
    Seed,
    Text,
    check_guard,
    check_output,
    choose_name,
    may_trust,
    refuse_options,
)
from cuvee.cli.selected import show_selected
from cuvee.corpus import Corpus, Task, write_corpus
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
from cuvee.registry import nearest_name

_NO_REAL = "--method lowest_shift needs the real rows; give --real FILE"
_CHOICE = ("levels", "target", "method", "metric", "no_match_lengths")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaning:
    """Which filters a pool goes through."""

    dedupe: bool
    near: float | None
    degenerate: bool
    agree_threshold: float | None
    agree_top: float | None
    per_group: int | None
    per_cluster: int | None
    cluster_cosine: float
    own: Sequence[str]

    def filters(self, real: Corpus | None, held_out: Sequence[str], seed: int) -> list[Filter]:
        """The filters, in the order in which they are applied."""
        texts = real.texts if real is not None else []
        found: list[Filter] = []
        if self.dedupe:
            found.append(Dedupe(against=real.prompts if real is not None else (), near=self.near))
        if self.degenerate:
            found.append(Degenerate())
        if held_out:
            found.append(Leak(held_out=held_out, reference=texts))
        found += [Keep.load(name) for name in self.own]
        if self.agree_threshold is not None or self.agree_top is not None:
            if real is None:
                raise ConfigError("--agree-threshold and --agree-top ask a probe of the real rows; give --real FILE")
            found.append(Agreement(train=real, threshold=self.agree_threshold, top=self.agree_top, seed=seed))
        if self.per_group is not None:
            found.append(FewerPerCluster(limit=self.per_group, name="fewer-per-group"))
        if self.per_cluster is not None:
            found.append(FewerPerCluster(limit=self.per_cluster, threshold=self.cluster_cosine))
        return found


@may_trust
def select(
    ctx: typer.Context,
    pool: Annotated[Path, typer.Argument(help="synthetic rows")],
    rows: Annotated[
        int | None, typer.Option(min=1, help="to choose; without it all rows that pass the filters stay")
    ] = None,
    levels: Annotated[int | None, typer.Option(min=2, help="subsets, from the least to the most diverse")] = None,
    target: Annotated[float | None, typer.Option(help="the value of --metric to reach")] = None,
    method: Annotated[str | None, typer.Option(help=f"one subset: {', '.join(METHODS)}")] = None,
    metric: Annotated[str, typer.Option(help=f"{', '.join(OBJECTIVES)}")] = "vendi",
    no_match_lengths: Annotated[bool, typer.Option("--no-match-lengths", help="leave lengths free")] = False,
    real: Annotated[Path | None, typer.Option(help="real training rows: for copies, agreement, lowest_shift")] = None,
    held_out: Annotated[
        list[Path] | None, typer.Option(help="validation or test rows; rows that repeat them go")
    ] = None,
    no_dedupe: Annotated[bool, typer.Option("--no-dedupe", help="keep repeated texts")] = False,
    near: Annotated[float | None, typer.Option(min=0, max=1, help="cosine from which rows count as repeated")] = None,
    keep_degenerate: Annotated[bool, typer.Option("--keep-degenerate", help="keep broken and looping text")] = False,
    agree_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="least probability of a row's label")
    ] = None,
    agree_top: Annotated[
        float | None, typer.Option(min=0, max=1, help="fraction of rows with the most probable labels")
    ] = None,
    per_group: Annotated[int | None, typer.Option(min=1, help="most rows of a --group")] = None,
    per_cluster: Annotated[int | None, typer.Option(min=1, help="most rows of near neighbours")] = None,
    cluster_cosine: Annotated[float, typer.Option(min=0.01, max=1)] = 0.9,
    own: Annotated[
        list[str] | None, typer.Option("--filter", help="a function of your own, module:Name: why a row goes, or None")
    ] = None,
    removed: Annotated[Path | None, typer.Option(help="JSONL of the rows that went, with reasons")] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Parquet, JSONL or CSV; with --levels one file a level")
    ] = Path("selected.parquet"),
    task: Annotated[str, typer.Option(help="classification, generation or retrieval")] = "classification",
    encoder: EncoderName = DEFAULT_ENCODER,
    group: Group = None,
    text: Text = None,
    label: Label = None,
    context: Annotated[
        str | None, typer.Option(help="column of what a question is about, for the task generation")
    ] = None,
    seed: Seed = 0,
    guard_cells: GuardCells = False,
    json: Json = False,
) -> None:
    """Filter a pool and choose rows of it: at levels of diversity, at a value, nearest to real data, or plainly."""
    check_guard(ctx, out.suffix)
    _check_choice(ctx, rows, levels, target, method, metric, out)
    if per_cluster is None:
        refuse_options(ctx, ["cluster_cosine"], "it goes with --per-cluster")
    if no_dedupe:
        refuse_options(ctx, ["near"], "it goes with removing repeated rows, which --no-dedupe leaves out")
    if per_group is not None and group is None:
        raise ConfigError("--per-group needs --group COLUMN")
    files = (pool, real, *(held_out or ()))
    of = choose_name(task, get_args(Task), "--task")
    if of != "generation":
        refuse_options(ctx, ["context"], f"it is for --task generation, this one is {task}")
    columns = Columns(text, label, group, of, context, files)
    corpus = columns.load(pool)
    corpus = Corpus.from_rows(
        ({**row, "origin": "synthetic"} for row in corpus.table.to_pylist()), origin="synthetic", task=corpus.task
    )
    known = columns.load_other(real) if real is not None else None
    others = [line for path in held_out or () for line in columns.load_other(path).texts]
    cleaning = Cleaning(
        dedupe=not no_dedupe,
        near=near,
        degenerate=not keep_degenerate,
        agree_threshold=agree_threshold,
        agree_top=agree_top,
        per_group=per_group,
        per_cluster=per_cluster,
        cluster_cosine=cluster_cosine,
        own=own or [],
    )
    try:
        filters = cleaning.filters(known, others, seed)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc
    model = load_encoder(encoder)
    filtered = apply_filters(corpus, filters, encode=model.encode)
    if removed is not None:
        lines = (json_text.dumps(asdict(row), ensure_ascii=False) for row in filtered.removed)
        replace_text(removed, "".join(f"{line}\n" for line in lines))
    _check_left(pool, filtered, rows or 1)
    chosen = None
    if rows is not None:
        chosen = _choose(
            filtered.corpus, model, known, rows, levels, target, method, metric, not no_match_lengths, seed
        )
    paths = _write(filtered.corpus, chosen, out, guard_cells)
    show_selected(filtered, chosen, paths, json)


def _check_choice(
    ctx: typer.Context, rows: int | None, levels: int | None, target: float | None, method: str | None, metric: str,
    out: Path,
) -> None:  # fmt: skip
    if rows is None:
        refuse_options(ctx, _CHOICE, "it says which rows to choose; say how many with --rows")
    given = [name for name, value in (("levels", levels), ("target", target), ("method", method)) if value is not None]
    if len(given) > 1:
        raise ConfigError(f"--{given[0]} and --{given[1]} exclude each other; give one")
    if method is not None:
        refuse_options(ctx, ["metric"], "the method says what is chosen by")
        if method not in METHODS:
            raise ConfigError(f"--method is {method!r}; {nearest_name(method, METHODS)}")
    if metric not in OBJECTIVES:
        raise ConfigError(f"--metric is {metric!r}; {nearest_name(metric, OBJECTIVES)}")
    check_output(out)


def _check_left(pool: Path, filtered: Filtered, wanted: int) -> None:
    """Where filters left too few rows, say which ones took how many."""
    left, before = len(filtered.corpus), len(filtered.corpus) + len(filtered.removed)
    if wanted > left < before:
        taken = ", ".join(f"{step.name} took {step.removed}" for step in filtered.steps if step.removed)
        raise InputError(
            f"{pool}: {wanted} rows are needed, {left} of {before} passed the filters ({taken}); ask for fewer, "
            "filter less, or give a larger pool"
        )


def _choose(
    pool: Corpus, encoder: Encoder, real: Corpus | None, rows: int, levels: int | None, target: float | None,
    method: str | None, metric: str, match: bool, seed: int,
) -> list[Selection]:  # fmt: skip
    vectors = encoder.encode(pool.texts)
    if levels is not None:
        found = select_levels(pool, vectors, rows=rows, levels=levels, metric=metric, match_lengths=match, seed=seed)
        return list(found)
    if target is not None:
        return [select_target(pool, vectors, rows=rows, target=target, metric=metric, match_lengths=match, seed=seed)]
    other = None
    if method == "lowest_shift":
        if real is None:
            raise ConfigError(_NO_REAL)
        other = encoder.encode(real.texts)
    return [select_rows(pool, vectors, rows=rows, method=method or metric, real=other, match_lengths=match, seed=seed)]


def _write(pool: Corpus, chosen: list[Selection] | None, out: Path, guard_cells: bool) -> list[Path]:
    if chosen is None:
        write_corpus(pool, out, guard_cells=guard_cells)
        return [out]
    if len(chosen) == 1:
        write_corpus(chosen[0].corpus, out, guard_cells=guard_cells)
        return [out]
    paths = [out.with_name(f"{out.stem}-{part.name}{out.suffix}") for part in chosen]
    for part, path in zip(chosen, paths, strict=True):
        write_corpus(part.corpus, path, guard_cells=guard_cells)
    return paths
