"""``cuvee measure``, ``compare`` and ``check``: numbers of corpora, alone, side by side, and against rules."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from xml.etree import ElementTree

import typer
from typer import Argument, Option

import cuvee.measure as room
from cuvee.cli import console, options, show
from cuvee.cli.options import GROUPED, PLAIN, Columns, Tell, may_trust, refuse_options
from cuvee.corpus import Corpus, compare_labels, load_corpus, load_vectors, read_columns, replace_text, write_table
from cuvee.corpus.formats import read_table
from cuvee.corpus.table import column_strings
from cuvee.encoders import DEFAULT_ENCODER, WorkerPool, load_encoder
from cuvee.errors import ConfigError, InputError
from cuvee.execute import ExecutorKind, Terms, open_executor
from cuvee.inputs import read_prompts
from cuvee.measure.findings import RULES, find_findings
from cuvee.records import Finding, Floats, Measurement, Vectors

if TYPE_CHECKING:
    from cuvee.config.schema import CheckRules


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What is measured, and with what it is compared."""

    against: options.Against = None
    held_out: Annotated[Path | None, Option(help="held-out rows: adds leakage")] = None
    prompts: Annotated[Path | None, Option(help="text file of the prompts: finds echoes of them")] = None
    by: Annotated[str | None, Option(help="also measure each part, by a column; or by field, by role in chats")] = None
    embeddings: Annotated[Path | None, Option(help="vectors that you have: .npy, .parquet")] = None
    against_embeddings: Annotated[Path | None, Option(help="vectors of the real rows")] = None
    metric: options.Metrics = None
    rows: Annotated[int | None, Option(min=2, help="measure a sample of this many rows")] = None
    reader: options.Reader = None
    encoder: options.EncoderName = DEFAULT_ENCODER
    seed: options.Seed = 0

    def load(
        self, ctx: typer.Context, target: Path | None, columns: Columns, workers: WorkerPool | None
    ) -> room.Subject:
        """The rows, what they are measured against, and their vectors or an encoder."""
        corpus, vectors = _load_side(target, self.embeddings, columns)
        columns = columns.like(corpus)
        real, real_vectors = None, None
        if self.embeddings is None:
            options.check_pairs(ctx, against_embeddings="embeddings")
            real = None if self.against is None else columns.load_other(self.against)
        elif self.against_embeddings is not None:
            real, real_vectors = _load_side(self.against, self.against_embeddings, replace(columns, group=None))
            if vectors is not None and real_vectors is not None and real_vectors.shape[1] != vectors.shape[1]:
                there = f"{real_vectors.shape[1]} dimensions, those of --embeddings {vectors.shape[1]}"
                raise InputError(f"{self.against_embeddings}: vectors have {there}")
        elif self.against is not None:
            raise ConfigError("--embeddings with --against needs --against-embeddings too: both sides in one space")
        if target is not None and self.against is not None and real is not None and corpus.task == "classification":
            names = {"known_name": str(self.against), "found_name": str(target)}
            compare_labels(real.labels, corpus.labels, **names, needed=False)
        if vectors is None or self.embeddings is None:
            encoder = load_encoder(self.encoder, workers=workers)
        else:  # under the name that they carry: --encoder if said, else the file's
            name = self.encoder if options.is_given(ctx, "encoder") else self.embeddings.name
            encoder = room.GivenVectors(name, vectors, real_vectors)
        held_out = columns.load_other(self.held_out).texts if self.held_out else None
        prompts = None if self.prompts is None else read_prompts(self.prompts)
        return room.Subject(
            corpus=corpus, against=real, held_out=held_out, prompts=prompts, encoder=encoder, seed=self.seed,
            reader=None if self.reader is None or target is None else self._open_reader(corpus, real, target),
        )  # fmt: skip

    def _open_reader(self, corpus: Corpus, real: Corpus | None, target: Path) -> Callable[[Corpus], Floats]:
        """How a reader's answers agree; its replies are kept beside the file."""
        from cuvee.study.judge import make_scored

        filter_of = options.read_reader(str(self.reader))
        if real is None or corpus.task != "generation":
            raise ConfigError("--reader answers prompts as real rows do; give such rows, and --against FILE")
        return make_scored(filter_of, target.with_suffix(".reader.sqlite"), real=real).score


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


@dataclass(frozen=True, kw_only=True)
class Computing:
    """Where rows are embedded."""

    execute: Annotated[ExecutorKind, Option(help="where rows are embedded")] = "local"
    workers: Annotated[int | None, Option(min=1, help="workers at once, with --execute processes or ray")] = None
    address: Annotated[str | None, Option(help="address of a Ray cluster; by default one starts here")] = None

    @contextmanager
    def open_workers(self, ctx: typer.Context) -> Iterator[WorkerPool | None]:
        """Workers to spread over; None where all is done here."""
        kind = self.execute
        options.refuse_idle(
            ctx,
            address=kind != "ray" and "it goes with --execute ray",
            workers=kind == "local" and "it goes with --execute processes or ray",
        )
        if kind == "local":
            yield None
            return
        with open_executor(kind, Terms(workers=self.workers), address=self.address) as executor:
            yield executor


@dataclass(frozen=True, kw_only=True)
class Written(Tell):
    """What is written beside the numbers."""

    page: Annotated[Path | None, Option(help="write an HTML page with pictures")] = None
    examples: Annotated[Path | None, Option(help="write each row's scores: .csv, .parquet")] = None
    guard_cells: options.GuardCells = True


@may_trust
def measure(
    ctx: typer.Context,
    measuring: Measuring,
    computing: Computing,
    columns: Annotated[Columns, GROUPED],
    written: Written,
    target: Annotated[Path | None, Argument(help="a file of texts, study.yaml, or a run folder")] = None,
) -> None:
    """Measure the diversity of a file, and its shift from real data; or the pools of a study."""
    if target is not None and options.is_study(target):
        options.refuse_others(ctx, "target")
        with options.open_shown(target) as flow:
            measured = flow.measurements
        written(_objects(measured), show.tabulate_measurements(measured))
        return
    options.check_kind(ctx, "examples", written.examples or Path("none.parquet"))
    columns = columns.checked(ctx, target, measuring.against, measuring.held_out)
    name = (target or measuring.embeddings or Path("nothing")).name
    if target is None:
        refuse_options(ctx, [*GROUPED, "held_out", "prompts", "by", "reader"], "there are no texts, only vectors")
    by = measuring.by or ""
    with console.Display() as display, computing.open_workers(ctx) as workers, options.explaining(f"{name}: "):
        subject = replace(measuring.load(ctx, target, columns, workers), listen=display.watch)
        cells = None if not by else _read_cells(subject.corpus, target, by)
        subject = room.draw_rows(subject, measuring.rows)
        _note_few_groups(subject, columns.group, display)
        in_rows = by in room.FIELDS and cells is None and by not in subject.corpus.own.column_names
        part_of = None if not by or in_rows else room.parts_of(subject.corpus, by, cells)
        found = room.measure_subject(subject, measuring.metric, name=name, findings=True)
        found = replace(found, findings=show.name_file(found.findings, target))
        parts = {} if part_of is None else room.measure_parts(subject, part_of, measuring.metric)
        parts = room.measure_fields(subject, by, measuring.metric) if in_rows else parts
        if written.page is not None:
            from cuvee.report.corpus_page import render_measurement

            against, made_by = measuring.against.name if measuring.against else "", options.told_command(ctx)
            page = room.gather_page(subject, found, parts, by=by or "label", reproduce=made_by, against_name=against)
            replace_text(written.page, render_measurement(page))
        if written.examples is not None:
            scored = room.tabulate_examples(subject.corpus, room.score_examples(subject))
            write_table(scored, written.examples, guard_cells=written.guard_cells)
    written(
        show.measurement_object(found) | ({"parts": _objects(parts)} if parts else {}),
        *show.list_findings(found.findings),
        show.tabulate_values(f"{found.name}: {found.n} rows, encoder {found.encoder}", found.values),
        *([show.tabulate_measurements(parts)] if parts else []),
        *(f"wrote {path}" for path in (written.page, written.examples) if path is not None),
    )


def _read_cells(corpus: Corpus, target: Path | None, by: str) -> dict[str, object] | None:
    """Id -> cell of a column of the file; None where it has no such column, or the corpus has it under that name."""
    if target is None or by in ("label", "group") or by not in read_columns(target):
        return None
    return dict(zip(corpus.ids, column_strings(read_table(target), by, str(target)).to_pylist(), strict=True))


def _note_few_groups(subject: room.Subject, column: str | None, display: console.Display) -> None:
    groups = len(set(subject.corpus.groups))
    if column is not None and groups < subject.n and not subject.has_intervals:
        many = f"{groups} group{'s'[: groups > 1]}"
        display.noted(
            f"--group {column}: all {subject.n} rows are in {many}, too few for intervals, and numbers that compare"
            " groups are left out; the column should name the source row of each row"
        )


def _objects(measured: Mapping[str, Measurement]) -> dict[str, object]:
    return {name: show.measurement_object(found) for name, found in measured.items()}


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """How corpora are compared."""

    against: options.Against = None
    metric: options.Metrics = None
    rows: Annotated[int | None, Option(min=2, help="rows of each corpus; by default those of the smallest")] = None
    words: Annotated[int | None, Option(min=1, help="words of each text that lexical numbers use")] = None
    match_lengths: Annotated[bool, Option("--match-lengths/--no-match-lengths", help="compare at equal lengths")] = True
    draws: Annotated[int, Option(min=1, help="samples over which each number is averaged")] = 10
    encoder: options.EncoderName = DEFAULT_ENCODER
    seed: options.Seed = 0


@may_trust
def compare(
    ctx: typer.Context,
    files: Annotated[list[Path], Argument(help="two or more files of texts")],
    how: Comparing,
    columns: Annotated[Columns, PLAIN],
    tell: Tell,
) -> None:
    """Compare corpora at equal rows and matched lengths; the first one is what the others are compared with."""
    if len(set(files)) < 2:
        raise ConfigError("one file alone, or given twice, has nothing to be compared with; give two or more")
    columns = columns.checked(ctx, *files, how.against)
    same_names = len({path.name for path in files}) < len(files)
    named = {str(path) if same_names else path.name: path for path in files}
    corpora: dict[str, Corpus] = {}
    for name, path in named.items():
        corpora[name] = corpus = columns.load(path)
        columns = columns.like(corpus)
    with console.Display() as display, options.explaining():
        found = room.compare_corpora(
            corpora,
            against=columns.load_other(how.against) if how.against else None,
            encoder=load_encoder(how.encoder),
            metrics=how.metric,
            rows=how.rows,
            words=how.words,
            match_lengths=how.match_lengths,
            draws=how.draws,
            seed=how.seed,
            progress=partial(display.watch, "compare"),
        )
    about = [(named.get(each.sentence.partition(": ")[0]), each) for each in found.findings]
    found = replace(found, findings=tuple(told for path, each in about for told in show.name_file([each], path)))
    tell(found, *show.list_comparison(found))


# --- check ---
# metrics that hardly depend on the number of rows: a limit taken from real rows holds for other files
_RATES = ("exact_duplicate_rate", "near_duplicate_rate", "opening_rate", "ending_rate", "degenerate_rate")


@options.expand_options
def check(
    files: Annotated[list[Path], Argument(help="files of rows; with --write-rules the one of the real rows")],
    tell: Tell,
    rules: Annotated[Path, Option(help="what fails a file")] = Path("rules.yaml"),
    write_rules: Annotated[bool, Option("--write-rules", help="propose rules from real rows")] = False,
    junit: Annotated[Path | None, Option(help="write the result as JUnit XML")] = None,
) -> None:
    """Check files of rows against rules; exit code 1 if one fails.

    Each finding of `cuvee measure` that the rules name fails a file, and each number beyond its limits. In a GitHub
    workflow (GITHUB_ACTIONS is set) failures are annotations too.
    """
    from cuvee.config.reading import read_config
    from cuvee.config.schema import CheckRules

    if write_rules:
        tell({"rules": str(rules)}, _write_rules(files, rules))
        return
    asked = read_config(rules, CheckRules)
    measure = _prepare(asked)
    failed = {str(path): show.name_file(_find_failures(measure(path), asked), path) for path in files}
    if junit is not None:
        replace_text(junit, _render_junit(failed))
    passed = not any(failed.values())
    lines = []
    for path, found in failed.items():
        lines += [f"{path}: {'fails' if found else 'passes'}", *(f"- {each.id}: {each}" for each in found)]
        if os.environ.get("GITHUB_ACTIONS"):
            lines += [f"::error file={path},title={each.id}::{_escape(str(each))}" for each in found]
    tell({"passed": passed, "files": failed}, *lines)
    if not passed:
        raise typer.Exit(1)


def _escape(text: str) -> str:
    """As commands of GitHub's workflows want it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _prepare(asked: CheckRules) -> Callable[[Path], Measurement]:
    """What measures a file: the rows that the rules name and the encoder are loaded once for all files."""
    real = None if asked.against is None else load_corpus(asked.against, text=asked.text, label=asked.label)
    held_out = None if asked.held_out is None else load_corpus(asked.held_out, text=asked.text, label=asked.label).texts
    encoder = load_encoder(asked.encoder)

    def measure(path: Path) -> Measurement:
        rows = load_corpus(path, text=asked.text, label=asked.label, origin="synthetic", labelled=False)
        with console.Display() as display:
            subject = room.Subject(corpus=rows, against=real, held_out=held_out, encoder=encoder, listen=display.watch)
            measured = room.measure_subject(subject, name=path.name)
            return replace(measured, findings=find_findings(subject, measured.values, most=len(RULES)))

    return measure


def _find_failures(measured: Measurement, asked: CheckRules) -> list[Finding]:
    named = () if asked.findings == "all" else asked.findings
    for rule in RULES:
        if rule.id in named and (lacks := [name for name in rule.needs if name not in measured.values]):
            raise ConfigError(f"findings: {rule.id} needs {lacks[0]}, which needs `against`, `held_out` or more rows")
    failed = [f for f in measured.findings if f.severity and (asked.findings == "all" or f.id in asked.findings)]
    for name, limits in asked.limits.items():
        if name not in measured.values:
            raise ConfigError(f"limits: {name} was not measured: it needs `against` or `held_out`, or more rows")
        value = measured.values[name].value
        for side, limit, beyond in (("below", limits.min, -1), ("above", limits.max, 1)):
            if limit is not None and (value - limit) * beyond > 0:
                sentence = f"{name} is {value:.4g}, {side} its limit of {limit:.4g}."
                failed.append(Finding(id=name, sentence=sentence, value=value, yardstick=limit, severity=1.0))
    return failed


def _write_rules(files: Sequence[Path], target: Path) -> str:
    """Write rules whose limits are the upper ends of the real rows' own intervals, and say what is next."""
    from cuvee.config.reading import config_to_yaml
    from cuvee.config.schema import CheckRules, Limits

    if len(files) > 1:
        raise ConfigError("--write-rules takes one file, that of the real rows")
    if target.exists():
        raise ConfigError(f"{target}: already there; choose another name with --rules, or remove it")
    measured = _prepare(CheckRules())(files[0])
    highs = {name: measured.values[name].high for name in _RATES if name in measured.values}
    limits = {name: Limits(max=round(high, 4)) for name, high in highs.items() if high is not None}
    replace_text(target, config_to_yaml(CheckRules(against=os.path.relpath(files[0], target.parent), limits=limits)))
    return f"wrote {target}; next: cuvee check SYNTHETIC --rules {target}"


def _render_junit(failed: Mapping[str, Sequence[Finding]]) -> str:
    """One test case a file, with a failure for each of its findings."""
    count = sum(map(bool, failed.values()))
    suite = ElementTree.Element("testsuite", name="cuvee check", tests=str(len(failed)), failures=str(count))
    for path, found in failed.items():
        case = ElementTree.SubElement(suite, "testcase", classname="cuvee", name=path)
        for each in found:
            ElementTree.SubElement(case, "failure", message=each.sentence, type=each.id).text = str(each)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)
