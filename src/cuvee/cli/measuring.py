"""``cuvee measure`` and ``cuvee compare``."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer

from cuvee.cli import show
from cuvee.cli.app import IN_STUDY, EncoderName, Json, Label, Seed, Text, app, is_study, open_shown, refuse_options
from cuvee.corpus import Corpus, load_corpus, load_vectors, read_columns, replace_text, write_table
from cuvee.encoders import DEFAULT_ENCODER, Encoder, load_encoder
from cuvee.errors import ConfigError, InputError
from cuvee.measure import (
    GivenVectors,
    compare_corpora,
    compare_measurements,
    gather_page,
    measure_parts,
    measure_subject,
    parts_of,
    prepare_subject,
    read_measurement,
    score_examples,
    tabulate_examples,
)
from cuvee.records import Comparison, Measurement, Vectors
from cuvee.report import render_measurement
from cuvee.similarity import Compute, Device, Precision

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)")
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_UNITS = {"embed": "texts", "compare rows": "tiles", "measure": "metrics", "compare": "draws"}
_ONLY_FILES = (
    *("against", "held_out", "by", "embeddings", "against_embeddings", "metric", "rows", "page", "examples"),
    *("device", "precision", "time_budget", "encoder", "text", "label", "group", "seed"),
)

Group = Annotated[str | None, typer.Option("--group", help="column of what belongs together: a source, a document")]
Metrics = Annotated[list[str] | None, typer.Option("--metric", help="only these metrics; all: every one")]
Against = Annotated[Path | None, typer.Option("--against", help="real rows: adds shift and label agreement")]
DeviceName = Annotated[str, typer.Option("--device", help="cpu, cuda, mps or auto")]
PrecisionName = Annotated[str, typer.Option("--precision", help="float32 or bfloat16")]


@dataclass(frozen=True, slots=True)
class _Columns:
    """How rows are read from a user's file."""

    text: str | None
    label: str | None
    group: str | None

    def load(self, path: Path) -> Corpus:
        """The rows of a file; a label is welcome and not needed."""
        return load_corpus(path, text=self.text, label=self.label, group=self.group, labelled=False)

    def load_other(self, path: Path) -> Corpus:
        """The rows of a file that need not have groups, such as the real rows that paraphrases came from."""
        group = self.group if self.group in read_columns(path) else None
        return load_corpus(path, text=self.text, label=self.label, group=group, labelled=False)


class _Watch:
    """Shows what measuring is at, with the time left."""

    def __init__(self, display: show.Display) -> None:
        self._display = display
        self._seen: set[str] = set()

    def __call__(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` units of something are finished."""
        if what not in self._seen:
            self._seen.add(what)
            self._display.started(what, _UNITS.get(what, "units"))
        self._display.advanced(what, done, total)


@app.command()
def measure(
    ctx: typer.Context,
    target: Annotated[Path | None, typer.Argument(help="a file of texts, study.yaml, or a run folder")] = None,
    against: Against = None,
    held_out: Annotated[Path | None, typer.Option("--held-out", help="rows that must not leak: adds leakage")] = None,
    by: Annotated[str | None, typer.Option("--by", help="each part alone too: label, level, dial, origin")] = None,
    embeddings: Annotated[Path | None, typer.Option("--embeddings", help="vectors you have: .npy, .parquet")] = None,
    against_embeddings: Annotated[Path | None, typer.Option("--against-embeddings", help="of the real rows")] = None,
    metric: Metrics = None,
    rows: Annotated[int | None, typer.Option("--rows", min=2, help="measure a sample of this many rows")] = None,
    page: Annotated[Path | None, typer.Option("--page", help="write an HTML page with pictures")] = None,
    examples: Annotated[Path | None, typer.Option("--examples", help="write each row's scores: .csv, .parquet")] = None,
    device: DeviceName = "cpu",
    precision: PrecisionName = "float32",
    time_budget: Annotated[str | None, typer.Option("--time-budget", help="of all-pairs numbers: 90s, 10m")] = None,
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
    columns, name = _Columns(text, label, group), (target or embeddings or Path("nothing")).name
    if target is None:
        refuse_options(ctx, ["text", "label", "group", "held_out", "by"], "there are no texts, only vectors")
    display = show.Display()
    with display:
        try:
            corpus, vectors = _load_side(target, embeddings, columns)
            real, real_vectors = _load_real(ctx, against, against_embeddings, vectors, columns)
            subject = prepare_subject(
                corpus,
                against=real,
                held_out=columns.load_other(held_out).texts if held_out else None,
                encoder=_choose_encoder(ctx, encoder, embeddings, vectors),
                vectors=vectors,
                against_vectors=real_vectors,
                rows=rows,
                seed=seed,
                compute=_read_compute(device, precision),
                time_budget=None if time_budget is None else _read_duration(time_budget),
                progress=_Watch(display),
            )
            found = measure_subject(subject, metric, name=name)
            parts = {} if by is None else measure_parts(subject, parts_of(subject.corpus, by), metric)
            if page is not None:
                shown = gather_page(
                    subject, found, parts, by=by or "label", reproduce=shlex.join(["cuvee", *ctx.obj]),
                    against_name=against.name if against else "",
                )  # fmt: skip
                replace_text(page, render_measurement(shown))
            if examples is not None:
                write_table(tabulate_examples(subject.corpus, score_examples(subject)), examples)
        except ValueError as exc:  # an option that asks for what these files cannot give
            raise ConfigError(f"{name}: {exc}") from exc
    _show_measured(found, parts, json=json)
    for written in (page, examples):
        if written is not None and not json:
            show.out.print(f"wrote {written}", markup=False, soft_wrap=True)


def _show_measured(found: Measurement, parts: dict[str, Measurement], *, json: bool) -> None:
    if json:
        whole = show.measurement_object(found)
        show.show_json(
            {**whole, "parts": {k: show.measurement_object(m) for k, m in parts.items()}} if parts else whole
        )
        return
    show.show_values(f"{found.name}: {found.n} rows, encoder {found.encoder}", found.values)
    if parts:
        show.show_measurements(parts)


def _measure_study(target: Path, *, json: bool) -> None:
    display = show.Display()
    with open_shown(target, None, display) as flow:
        measured = flow.measurements
    if json:
        show.show_json({name: show.measurement_object(m) for name, m in measured.items()})
    else:
        show.show_measurements(measured)


def _load_side(target: Path | None, embeddings: Path | None, columns: _Columns) -> tuple[Corpus, Vectors | None]:
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
    ctx: typer.Context, against: Path | None, embeddings: Path | None, vectors: Vectors | None, columns: _Columns
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


def _choose_encoder(ctx: typer.Context, name: str, embeddings: Path | None, vectors: Vectors | None) -> Encoder:
    """The encoder, or where vectors are given the name that they carry: ``--encoder`` if said, else the file's."""
    if vectors is None or embeddings is None:
        return load_encoder(name)
    source = ctx.get_parameter_source("encoder")
    said = source is not None and source.name == "COMMANDLINE"
    return GivenVectors(name if said else embeddings.name, int(vectors.shape[1]))


def _read_compute(device: str, precision: str) -> Compute:
    try:  # Compute checks both
        return Compute(device=cast("Device", device), precision=cast("Precision", precision))
    except ValueError as exc:
        raise ConfigError(f"--{exc}") from exc


def _read_duration(text: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"--time-budget is {text!r}; give seconds, minutes or hours: 90s, 10m, 1h")
    return float(match[1]) * _SECONDS[match[2]]


@app.command()
def compare(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="two or more files of texts; or of cuvee measure --json")],
    against: Against = None,
    metric: Metrics = None,
    rows: Annotated[int | None, typer.Option("--rows", min=2, help="of each; by default those of the smallest")] = None,
    words: Annotated[int | None, typer.Option("--words", min=1, help="that lexical numbers see of a text")] = None,
    match_lengths: Annotated[bool, typer.Option("--match-lengths/--no-match-lengths", help="equal lengths")] = True,
    draws: Annotated[int, typer.Option("--draws", min=1, help="samples that a number is the mean of")] = 10,
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
        found = compare_measurements([_read_saved(path) for path in files], force=force)
    else:
        refuse_options(ctx, ["force"], "texts are measured so that they compare")
        columns, display = _Columns(text, label, group), show.Display()
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
                    progress=partial(_Watch(display), "compare"),
                )
            except ValueError as exc:
                raise ConfigError(str(exc)) from exc
    _show_comparison(found, json=json)


def _read_saved(path: Path) -> Measurement:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"{path}: cannot be read ({exc}); give the output of cuvee measure FILE --json") from exc
    return read_measurement(content, name=str(path))


def _names(files: list[Path]) -> list[str]:
    """File names, with their folders where names repeat."""
    names = [f.name for f in files]
    return names if len(set(names)) == len(names) else [str(f) for f in files]


def _show_comparison(found: Comparison, *, json: bool) -> None:
    if json:
        show.show_json(show.comparison_object(found))
    else:
        show.show_comparison(found)
