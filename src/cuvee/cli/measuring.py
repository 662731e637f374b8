"""``cuvee measure`` and ``cuvee compare``: numbers of corpora, alone and side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from cuvee.cli import console, show
from cuvee.cli.console import Display, Watch
from cuvee.cli.options import (
    IN_STUDY,
    PLAIN,
    Against,
    Columns,
    EncoderName,
    GuardCells,
    Json,
    Metrics,
    Seed,
    check_guard,
    choose_name,
    is_given,
    is_study,
    may_trust,
    open_shown,
    option_names,
    refuse_options,
    told_command,
)
from cuvee.corpus import Corpus, load_vectors, replace_text, write_table
from cuvee.encoders import DEFAULT_ENCODER, WorkerPool, load_encoder
from cuvee.errors import ConfigError, InputError
from cuvee.execute import ExecutorKind, ExecutorPool, Terms, open_executor
from cuvee.inputs import read_text
from cuvee.measure import (
    GivenVectors,
    Subject,
    compare_corpora,
    compare_measurements,
    draw_rows,
    gather_page,
    measure_parts,
    measure_subject,
    parts_of,
    read_measurement,
    score_examples,
    tabulate_examples,
)
from cuvee.records import Measurement, Vectors
from cuvee.similarity import Compute, Device, Precision

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)")
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What is measured, and beside what."""

    against: Against = None
    held_out: Annotated[Path | None, typer.Option(help="rows that must not leak: adds leakage")] = None
    by: Annotated[str | None, typer.Option(help="each part alone too: label, level, dial, origin")] = None
    embeddings: Annotated[Path | None, typer.Option(help="vectors you have: .npy, .parquet")] = None
    against_embeddings: Annotated[Path | None, typer.Option(help="of the real rows")] = None
    metric: Metrics = None
    rows: Annotated[int | None, typer.Option(min=2, help="measure a sample of this many rows")] = None
    encoder: EncoderName = DEFAULT_ENCODER
    seed: Seed = 0

    def load(self, ctx: typer.Context, target: Path | None, columns: Columns, workers: WorkerPool | None) -> Subject:
        """The rows, what they are measured against, and their vectors or an encoder."""
        corpus, vectors = _load_side(target, self.embeddings, columns)
        real, real_vectors = self._load_real(ctx, vectors, columns)
        if vectors is None or self.embeddings is None:
            encoder = load_encoder(self.encoder, workers=workers)
        else:  # under the name that they carry: --encoder if said, else the file's
            name = self.encoder if is_given(ctx, "encoder") else self.embeddings.name
            encoder = GivenVectors(name, vectors, real_vectors)
        return Subject(
            corpus=corpus,
            against=real,
            held_out=columns.load_other(self.held_out).texts if self.held_out else None,
            encoder=encoder,
            seed=self.seed,
        )

    def _load_real(
        self, ctx: typer.Context, vectors: Vectors | None, columns: Columns
    ) -> tuple[Corpus | None, Vectors | None]:
        against, embeddings = self.against, self.against_embeddings
        if vectors is None:
            refuse_options(ctx, ["against_embeddings"], "it goes with --embeddings")
            return (None if against is None else columns.load_other(against)), None
        if against is None and embeddings is None:
            return None, None
        if embeddings is None:
            raise ConfigError("--embeddings with --against needs --against-embeddings too: both sides in one space")
        real, found = _load_side(against, embeddings, replace(columns, group=None))
        if found is not None and found.shape[1] != vectors.shape[1]:
            raise InputError(
                f"{embeddings}: vectors have {found.shape[1]} dimensions, those of --embeddings {vectors.shape[1]}"
            )
        return real, found


@dataclass(frozen=True, kw_only=True)
class Computing:
    """Where numbers are computed, and for how long."""

    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto")] = "cpu"
    precision: Annotated[str, typer.Option(help="float32 or bfloat16")] = "float32"
    time_budget: Annotated[str | None, typer.Option(help="of all-pairs numbers: 90s, 10m")] = None
    execute: Annotated[str, typer.Option(help="where rows are embedded: local, processes, ray")] = "local"
    workers: Annotated[int | None, typer.Option(min=1, help="at once, with --execute processes or ray")] = None
    address: Annotated[str | None, typer.Option(help="of a running Ray cluster; one starts here without")] = None

    def choose(self) -> Compute:
        """The device and its terms, which Compute checks."""
        budget = None if self.time_budget is None else _read_duration(self.time_budget)
        try:
            found = Compute(
                device=cast("Device", self.device), precision=cast("Precision", self.precision), time_budget=budget
            )
        except ValueError as exc:
            raise ConfigError(f"--{exc}") from exc
        found.check()
        return found

    @contextmanager
    def open_workers(self, ctx: typer.Context) -> Iterator[WorkerPool | None]:
        """Workers to spread over; None where all is done here."""
        kind = choose_name(self.execute, get_args(ExecutorKind), "--execute")
        if kind != "ray":
            refuse_options(ctx, ["address"], "it goes with --execute ray")
        if kind == "local":
            refuse_options(ctx, ["workers"], "it goes with --execute processes or ray")
            yield None
            return
        with open_executor(cast("ExecutorKind", kind), Terms(workers=self.workers), address=self.address) as executor:
            yield ExecutorPool(executor)


@dataclass(frozen=True, kw_only=True)
class Written:
    """What is written beside the numbers."""

    page: Annotated[Path | None, typer.Option(help="write an HTML page with pictures")] = None
    examples: Annotated[Path | None, typer.Option(help="write each row's scores: .csv, .parquet")] = None
    guard_cells: GuardCells = True
    json: Json = False


@may_trust
def measure(
    ctx: typer.Context,
    measuring: Measuring,
    computing: Computing,
    columns: Annotated[Columns, PLAIN],
    written: Written,
    target: Annotated[Path | None, typer.Argument(help="a file of texts, study.yaml, or a run folder")] = None,
) -> None:
    """Measure the diversity of a file, and its shift from real data; or the pools of a study."""
    if target is not None and is_study(target):
        files_only = [*option_names(Measuring, Computing), *PLAIN, "page", "examples", "guard_cells"]
        refuse_options(ctx, files_only, IN_STUDY)
        _measure_study(target, json=written.json)
        return
    check_guard(ctx, "" if written.examples is None else written.examples.suffix)
    columns = columns.checked(ctx, target, measuring.against, measuring.held_out)
    name = (target or measuring.embeddings or Path("nothing")).name
    if target is None:
        refuse_options(ctx, [*PLAIN, "held_out", "by"], "there are no texts, only vectors")
    compute, by = computing.choose(), measuring.by
    display = Display()
    with display, computing.open_workers(ctx) as workers:
        try:
            subject = measuring.load(ctx, target, columns, workers)
            subject = draw_rows(replace(subject, compute=compute, listen=Watch(display)), measuring.rows)
            part_of = None if by is None else parts_of(subject.corpus, by)
            found = measure_subject(subject, measuring.metric, name=name)
            parts = {} if part_of is None else measure_parts(subject, part_of, measuring.metric)
            if written.page is not None:
                from cuvee.report import render_measurement

                against = measuring.against.name if measuring.against else ""
                shown = gather_page(
                    subject, found, parts, by=by or "label", reproduce=told_command(ctx), against_name=against
                )
                replace_text(written.page, render_measurement(shown))
            if written.examples is not None:
                scored = tabulate_examples(subject.corpus, score_examples(subject))
                write_table(scored, written.examples, guard_cells=written.guard_cells)
        except ValueError as exc:  # an option that asks for what these files cannot give
            raise ConfigError(f"{name}: {exc}") from exc
    _show_measured(found, parts, json=written.json)
    for path in (written.page, written.examples):
        if path is not None and not written.json:
            console.out.print(f"wrote {path}", soft_wrap=True)


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


def _read_duration(text: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"--time-budget is {text!r}; give seconds, minutes or hours: 90s, 10m, 1h")
    return float(match[1]) * _SECONDS[match[2]]


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """How corpora are compared."""

    against: Against = None
    metric: Metrics = None
    rows: Annotated[int | None, typer.Option(min=2, help="of each; by default those of the smallest")] = None
    words: Annotated[int | None, typer.Option(min=1, help="that lexical numbers see of a text")] = None
    match_lengths: Annotated[bool, typer.Option("--match-lengths/--no-match-lengths", help="equal lengths")] = True
    draws: Annotated[int, typer.Option(min=1, help="samples that a number is the mean of")] = 10
    encoder: EncoderName = DEFAULT_ENCODER
    seed: Seed = 0


@may_trust
def compare(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="two or more files of texts; or of cuvee measure --json")],
    how: Comparing,
    columns: Annotated[Columns, PLAIN],
    force: Annotated[bool, typer.Option("--force", help="compare saved numbers that do not compare")] = False,
    json: Json = False,
) -> None:
    """Compare corpora at equal rows and matched lengths; the first one is what the others are compared with."""
    if len(files) < 2:
        raise ConfigError("one file alone has nothing to be compared with; give two or more")
    saved = [path.suffix == ".json" for path in files]
    if any(saved) and not all(saved):
        raise ConfigError("saved numbers (.json) do not compare with files of texts; give one kind")
    if all(saved):
        refuse_options(ctx, [*option_names(Comparing), *PLAIN], "these numbers were measured before")
        found = compare_measurements([read_measurement(read_text(path), name=str(path)) for path in files], force=force)
    else:
        refuse_options(ctx, ["force"], "texts are measured so that they compare")
        columns, display = columns.checked(ctx, *files, how.against), Display()
        corpora = {name: columns.load(path) for name, path in zip(_names(files), files, strict=True)}
        with display:
            try:
                found = compare_corpora(
                    corpora,
                    against=columns.load_other(how.against) if how.against else None,
                    encoder=load_encoder(how.encoder),
                    metrics=how.metric,
                    rows=how.rows,
                    words=how.words,
                    match_lengths=how.match_lengths,
                    draws=how.draws,
                    seed=how.seed,
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
