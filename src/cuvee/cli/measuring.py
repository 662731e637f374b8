"""``cuvee measure`` and ``cuvee compare``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from cuvee.cli import console, show
from cuvee.cli.console import Display, Watch
from cuvee.cli.options import (
    IN_STUDY,
    Against,
    Columns,
    EncoderName,
    Group,
    GuardCells,
    Json,
    Label,
    Metrics,
    Seed,
    Text,
    check_guard,
    is_study,
    may_trust,
    open_shown,
    refuse_options,
)
from cuvee.corpus import Corpus, load_vectors, replace_text, write_table
from cuvee.encoders import DEFAULT_ENCODER, Encoder, WorkerPool, load_encoder
from cuvee.errors import ConfigError, InputError
from cuvee.execute import ExecutorKind, ExecutorPool, Terms, open_executor
from cuvee.measure import (
    GivenVectors,
    Subject,
    draw_rows,
    gather_page,
    measure_parts,
    measure_subject,
    parts_of,
    score_examples,
    tabulate_examples,
)
from cuvee.records import Measurement, Vectors
from cuvee.similarity import Compute, Device, Precision

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)")
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_ONLY_FILES = (
    *("against", "held_out", "by", "embeddings", "against_embeddings", "metric", "rows", "page", "examples"),
    *("device", "precision", "time_budget", "encoder", "text", "label", "group", "seed"),
    *("execute", "workers", "address", "guard_cells"),
)

DeviceName = Annotated[str, typer.Option("--device", help="cpu, cuda, mps or auto")]
ExecuteKind = Annotated[str, typer.Option("--execute", help="where rows are embedded, compared: local, processes, ray")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="at once, with --execute processes or ray")]
Address = Annotated[str | None, typer.Option("--address", help="of a running Ray cluster; one starts here without")]
PrecisionName = Annotated[str, typer.Option("--precision", help="float32 or bfloat16")]


@may_trust
def measure(
    ctx: typer.Context,
    target: Annotated[Path | None, typer.Argument(help="a file of texts, study.yaml, or a run folder")] = None,
    against: Against = None,
    held_out: Annotated[Path | None, typer.Option(help="rows that must not leak: adds leakage")] = None,
    by: Annotated[str | None, typer.Option(help="each part alone too: label, level, dial, origin")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="vectors you have: .npy, .parquet")] = None,
    against_embeddings: Annotated[Path | None, typer.Option(help="of the real rows")] = None,
    metric: Metrics = None,
    rows: Annotated[int | None, typer.Option(min=2, help="measure a sample of this many rows")] = None,
    page: Annotated[Path | None, typer.Option(help="write an HTML page with pictures")] = None,
    examples: Annotated[Path | None, typer.Option(help="write each row's scores: .csv, .parquet")] = None,
    guard_cells: GuardCells = True,
    device: DeviceName = "cpu",
    precision: PrecisionName = "float32",
    time_budget: Annotated[str | None, typer.Option(help="of all-pairs numbers: 90s, 10m")] = None,
    execute: ExecuteKind = "local",
    workers: Workers = None,
    address: Address = None,
    encoder: EncoderName = DEFAULT_ENCODER,
    text: Text = None,
    label: Label = None,
    group: Group = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure the diversity of a file, and its shift from real data; or the pools of a study."""
    if target is not None and is_study(target):
        refuse_options(ctx, _ONLY_FILES, IN_STUDY)
        _measure_study(target, json=json)
        return
    check_guard(ctx, "" if examples is None else examples.suffix)
    columns = Columns(text, label, group, files=(target, against, held_out))
    name = (target or embeddings or Path("nothing")).name
    if target is None:
        refuse_options(ctx, ["text", "label", "group", "held_out", "by"], "there are no texts, only vectors")
    compute = _read_compute(device, precision, None if time_budget is None else _read_duration(time_budget))
    display = Display()
    with display, _open_crew(execute, workers, address) as crew:
        try:
            corpus, vectors = _load_side(target, embeddings, columns)
            real, real_vectors = _load_real(ctx, against, against_embeddings, vectors, columns)
            subject = Subject(
                corpus=corpus,
                against=real,
                held_out=columns.load_other(held_out).texts if held_out else None,
                encoder=_choose_encoder(ctx, encoder, embeddings, (vectors, real_vectors), crew),
                seed=seed,
                compute=compute,
                listen=Watch(display),
            )
            subject = draw_rows(subject, rows)
            part_of = None if by is None else parts_of(subject.corpus, by)
            found = measure_subject(subject, metric, name=name)
            parts = {} if part_of is None else measure_parts(subject, part_of, metric)
            if page is not None:
                from cuvee.report import render_measurement

                shown = gather_page(
                    subject, found, parts, by=by or "label", reproduce=shlex.join(["cuvee", *ctx.obj]),
                    against_name=against.name if against else "",
                )  # fmt: skip
                replace_text(page, render_measurement(shown))
            if examples is not None:
                write_table(
                    tabulate_examples(subject.corpus, score_examples(subject)), examples, guard_cells=guard_cells
                )
        except ValueError as exc:  # an option that asks for what these files cannot give
            raise ConfigError(f"{name}: {exc}") from exc
    _show_measured(found, parts, json=json)
    for written in (page, examples):
        if written is not None and not json:
            console.out.print(f"wrote {written}", soft_wrap=True)


def _show_measured(found: Measurement, parts: dict[str, Measurement], *, json: bool) -> None:
    if json:
        whole = show.measurement_object(found)
        console.show_json(
            {**whole, "parts": {k: show.measurement_object(m) for k, m in parts.items()}} if parts else whole
        )
        return
    show.show_values(f"{found.name}: {found.n} rows, encoder {found.encoder}", found.values)
    if parts:
        show.show_measurements(parts)


def _measure_study(target: Path, *, json: bool) -> None:
    display = Display()
    with open_shown(target, None, display) as flow:
        measured = flow.measurements
    if json:
        console.show_json({name: show.measurement_object(m) for name, m in measured.items()})
    else:
        show.show_measurements(measured)


def _load_side(target: Path | None, embeddings: Path | None, columns: Columns) -> tuple[Corpus, Vectors | None]:
    """Rows, their vectors, or both; vectors alone stand for rows without texts."""
    vectors = None if embeddings is None else load_vectors(embeddings)
    if target is not None:
        corpus = columns.load(target)
        if vectors is not None and len(vectors) != len(corpus):
            raise InputError(f"{embeddings}: {len(vectors)} vectors for the {len(corpus)} rows of {target}; one each")
        return corpus, vectors
    if vectors is None:
        raise ConfigError("what is to be measured? cuvee measure FILE, or cuvee measure --embeddings X.npy")
    return Corpus.without_texts(len(vectors)), vectors


def _load_real(
    ctx: typer.Context, against: Path | None, embeddings: Path | None, vectors: Vectors | None, columns: Columns
) -> tuple[Corpus | None, Vectors | None]:
    if vectors is None:
        refuse_options(ctx, ["against_embeddings"], "it goes with --embeddings")
        return (None if against is None else columns.load_other(against)), None
    if against is None and embeddings is None:
        return None, None
    if embeddings is None:
        raise ConfigError("--embeddings with --against needs --against-embeddings too: both sides in one space")
    real, real_vectors = _load_side(against, embeddings, replace(columns, group=None))
    if real_vectors is not None and real_vectors.shape[1] != vectors.shape[1]:
        raise InputError(
            f"{embeddings}: vectors have {real_vectors.shape[1]} dimensions, those of --embeddings {vectors.shape[1]}"
        )
    return real, real_vectors


def _choose_encoder(
    ctx: typer.Context,
    name: str,
    embeddings: Path | None,
    sides: tuple[Vectors | None, Vectors | None],
    workers: WorkerPool | None = None,
) -> Encoder:
    """The encoder, or the given vectors, under the name that they carry: ``--encoder`` if said, else the file's."""
    if sides[0] is None or embeddings is None:
        return load_encoder(name, workers=workers)
    source = ctx.get_parameter_source("encoder")
    said = source is not None and source.name == "COMMANDLINE"
    return GivenVectors(name if said else embeddings.name, sides[0], sides[1])


@contextmanager
def _open_crew(kind: str, workers: int | None, address: str | None) -> Iterator[WorkerPool | None]:
    """Workers to spread over; None where all is done here."""
    if kind not in get_args(ExecutorKind):
        raise ConfigError(f"--execute is {kind!r}; valid: {', '.join(get_args(ExecutorKind))}")
    if address is not None and kind != "ray":
        raise ConfigError("--address has no effect without --execute ray; leave it out")
    if kind == "local":
        if workers is not None:
            raise ConfigError("--workers has no effect without --execute processes or ray; leave it out")
        yield None
        return
    with open_executor(cast("ExecutorKind", kind), Terms(workers=workers), address=address) as executor:
        yield ExecutorPool(executor)


def _read_compute(device: str, precision: str, time_budget: float | None) -> Compute:
    try:  # Compute checks both
        found = Compute(device=cast("Device", device), precision=cast("Precision", precision), time_budget=time_budget)
    except ValueError as exc:
        raise ConfigError(f"--{exc}") from exc
    found.check()
    return found


def _read_duration(text: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"--time-budget is {text!r}; give seconds, minutes or hours: 90s, 10m, 1h")
    return float(match[1]) * _SECONDS[match[2]]
