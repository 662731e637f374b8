"""``cuvee split``, ``select``, ``mix`` and ``replace``: which rows stand together."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from dataclasses import replace as change
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table
from typer import Argument, Option

import cuvee.mix as room
from cuvee.cli import console, options, show
from cuvee.cli.options import GROUPED, PLAIN, UNGROUPED, Columns, Hub, Output, Seed, may_trust, refuse_options
from cuvee.corpus import Corpus, compare_labels, count_strata, few_shot_sets, row_names, split_corpus, write_corpus
from cuvee.corpus.files import OUTPUTS, check_folder, fill_folder, replace_text, write_table
from cuvee.corpus.table import BlendForm, Task
from cuvee.defects import NoLeaks, longest_answer
from cuvee.encoders import DEFAULT_ENCODER, Encoder, load_encoder
from cuvee.errors import ConfigError, InputError, naming
from cuvee.hub import is_dataset, push_folder, write_dataset
from cuvee.inputs import read_prompts
from cuvee.records import Finding, Regime
from cuvee.report import Reproduction, SyntheticPart, render_card
from cuvee.similarity import find_near_duplicates, unit_rows

_MOST_LABELS = 8
NOTHING_WRONG = Finding(
    id="nothing-wrong", sentence="Nothing wrong was found: no row repeats another, and there are rows enough."
)


# --- split ---
@dataclass(frozen=True, kw_only=True)
class Splitting:
    """How rows are split."""

    test: Annotated[float, Option(min=0, help="rows, or a fraction below 1")] = 0.2
    validation: Annotated[float, Option(min=0, help="rows, or a fraction below 1")] = 0.1
    rows_per_label: Annotated[str, Option(help="few-shot training sets, nested: 4,16,64,all")] = "all"
    near: Annotated[float | None, Option(min=0, max=1, help="keep rows with a cosine of at least this together")] = None
    encoder: options.EncoderName = DEFAULT_ENCODER
    seed: Seed = 0

    def split(self, corpus: Corpus) -> dict[str, Corpus]:
        """Every file to write; a part that was asked for and came out empty is an error."""
        sizes = self._read_sizes()
        test, validation = self._read_part("test"), self._read_part("validation")
        made = split_corpus(corpus, test=test, validation=validation, seed=self.seed, together=self._link(corpus))
        parts = {"train": made.train, "validation": made.validation, "test": made.test.open_for_confirmation()}
        for name, rows in (("test", test), ("validation", validation)):
            if rows and not len(parts[name]):
                raise InputError(
                    f"--{name} {rows:g} came out empty: no group or cluster of duplicates is small enough; "
                    f"raise --{name}, raise --near, or take a finer --group"
                )
        few = few_shot_sets(made.train, sizes, seed=self.seed)
        parts |= {f"train-{size}": rows for size, rows in few.items() if size != "all"}
        return {name: rows for name, rows in parts.items() if len(rows)}  # a part of no rows is nothing to read

    def _read_part(self, name: str) -> int | float:
        value: float = getattr(self, name)
        if value >= 1 and value != int(value):
            raise ConfigError(f"--{name} is {value!r}; give whole rows, or a fraction below 1")
        return value if value < 1 else int(value)

    def _read_sizes(self) -> list[int | str]:
        sizes = [part.strip() for part in self.rows_per_label.split(",")]
        if any(size != "all" and not re.fullmatch("[1-9][0-9]{0,17}", size) for size in sizes):
            raise ConfigError(f"--rows-per-label is {self.rows_per_label!r}; give numbers above 0, or all: 4,16,64,all")
        return list(dict.fromkeys("all" if size == "all" else int(size) for size in sizes))

    def _link(self, corpus: Corpus) -> list[int] | None:
        """The cluster of near-duplicates that each row is in."""
        if self.near is None:
            return None
        with options.explaining(f"--near {self.near:g} with encoder {self.encoder}: "):
            unit = unit_rows(load_encoder(self.encoder).encode(corpus.texts))
            return list(find_near_duplicates(unit, self.near).tolist())


@dataclass(frozen=True, kw_only=True)
class SplitOutput(Output):
    """A folder of one file a part."""

    out: Annotated[Path, Option("--out", "-o", help="a new folder")]
    form: Annotated[Literal["parquet", "jsonl", "csv"], Option("--format")] = "parquet"


@may_trust
def split(
    ctx: typer.Context,
    data: Annotated[Path, Argument(help="file of real rows")],
    how: Splitting,
    columns: Annotated[Columns, GROUPED],
    output: SplitOutput,
) -> None:
    """Split a file into train, validation and test; no text, group, context or near-duplicate is on two sides."""
    out, form = output.out, output.form
    options.check_guard(ctx, f".{form}")
    options.check_pairs(ctx, encoder="near")
    check_folder(out)
    corpus = columns.load(data, labelled=True)
    try:
        parts = how.split(corpus)
    except InputError as exc:
        said = re.sub(r"split\.(\w+)", lambda key: f"--{key[1].replace('_', '-')}", str(exc))
        raise InputError(f"{data}: {said}") from exc
    with fill_folder(out) as folder:
        for name, rows in parts.items():
            write_corpus(rows, folder / f"{name}.{form}", guard_cells=output.guard_cells)
    labelled, paths = corpus.task == "classification", {name: out / f"{name}.{form}" for name in parts}
    counts = {name: rows.label_counts() if labelled else {} for name, rows in parts.items()}
    made = {
        name: {"path": paths[name], "rows": len(rows), "label_counts": counts[name], "fingerprint": rows.fingerprint}
        for name, rows in parts.items()
    }
    labels = sorted({label for found in counts.values() for label in found})[:_MOST_LABELS]
    cells = [[name, str(len(r)), *(str(counts[name].get(y, 0)) for y in labels)] for name, r in parts.items()]
    output(
        {"parts": made, "seed": how.seed, "fingerprint": corpus.fingerprint},
        console.make_table(None, ["part", "rows", *labels], cells, wrap=True),
        *(f"wrote {path}" for path in paths.values()),
    )


# --- select ---
@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """Which filters a pool goes through."""

    real: Annotated[Path | None, Option(help="real training rows, for copies, agreement and lowest_shift")] = None
    held_out: Annotated[list[Path] | None, Option(help="validation or test rows; repeats of them are removed")] = None
    no_set_test: Annotated[bool, Option("--no-set-test", help="do not test whether all rows leak as a set")] = False
    no_dedupe: Annotated[bool, Option("--no-dedupe", help="keep repeated texts")] = False
    near: Annotated[float | None, Option(min=0, max=1, help="cosine from which rows count as repeated")] = None
    keep_degenerate: Annotated[bool, Option("--keep-degenerate", help="keep broken and looping text")] = False
    prompts: Annotated[Path | None, Option(help="text file of the prompts; echoes are removed")] = None
    agree_threshold: Annotated[float | None, Option(min=0, max=1, help="lowest probability of a row's label")] = None
    agree_top: Annotated[float | None, Option(min=0, max=1, help="fraction to keep: the most probable labels")] = None
    per_group: Annotated[int | None, Option(min=1, help="most rows of each --group")] = None
    per_cluster: Annotated[int | None, Option(min=1, help="most rows of near neighbours (cosine 0.9)")] = None
    grounded: Annotated[float | None, Option(min=0, max=1, help=options.GROUNDED)] = None
    reader: options.Reader = None
    reader_agrees: Annotated[float | None, Option(min=0, max=1, help="least token F1 with --reader; 0.3")] = None
    own: Annotated[list[str] | None, Option("--filter", help="your own filter, module:Name")] = None
    removed: Annotated[Path | None, Option(help="JSONL file of the removed rows, with reasons")] = None

    def filters(
        self, task: Task, real: Corpus | None, held_out: Sequence[Corpus], seed: int, out: Path
    ) -> list[room.Filter]:
        """The filters, in the order in which they are applied; replies of a reader are kept beside ``out``."""
        found: list[room.Filter] = []
        texts = real.texts if real is not None else []
        if not self.no_dedupe:
            found.append(room.Dedupe(against=real.prompts if real is not None else (), near=self.near))
        if not self.keep_degenerate:
            found.append(room.Degenerate(reference=texts, prompts=read_prompts(self.prompts) if self.prompts else ()))
        if held_out:
            lines, names = [t for part in held_out for t in part.texts], set[str]().union(*map(row_names, held_out))
            names -= row_names(real) if real is not None else set()
            found.append(room.Leak(held_out=lines, reference=texts, names=names, whole=not self.no_set_test))
        found += self._filter_pairs(task, real, out.with_suffix(".reader.sqlite"))
        found += [room.Keep.load(name) for name in self.own or ()]
        if self.agree_threshold is not None or self.agree_top is not None:
            if real is None:
                raise ConfigError("--agree-threshold and --agree-top ask a probe of the real rows; give --real FILE")
            found.append(room.Agreement(train=real, threshold=self.agree_threshold, top=self.agree_top, seed=seed))
        if self.per_group is not None:
            found.append(room.FewerPerCluster(limit=self.per_group, name="fewer-per-group"))
        if self.per_cluster is not None:
            found.append(room.FewerPerCluster(limit=self.per_cluster, threshold=0.9))
        return found

    def _filter_pairs(self, task: Task, real: Corpus | None, ledger: Path) -> Sequence[room.Filter]:
        """The filters of answers."""
        if task != "generation":
            if self.grounded is not None or self.reader is not None:
                raise ConfigError(f"--grounded and --reader are about answers, and the task {task} has none")
            return []
        pairs = room.Pairs(grounded=self.grounded, longest=None if real is None else longest_answer(real.targets))
        if self.reader is None:
            return [pairs]
        from cuvee.study.judge import make_scored

        if real is None:
            raise ConfigError("--reader is shown real rows, and judged by them; give --real FILE")
        return [pairs, make_scored(options.read_reader(self.reader, self.reader_agrees), ledger, real=real)]


@dataclass(frozen=True, kw_only=True)
class Choosing:
    """Which rows are chosen of those that pass the filters."""

    rows: Annotated[int | None, Option(min=1, help="rows to choose; by default all that pass the filters")] = None
    levels: Annotated[int | None, Option(min=2, help="number of subsets, from the least to the most diverse")] = None
    target: Annotated[float | None, Option(help="the value of --metric to reach")] = None
    method: Annotated[room.Method | None, Option(help="choose one subset by it")] = None
    metric: Annotated[room.Metric, Option(help="the diversity of --levels and --target")] = "vendi"
    no_match_lengths: Annotated[bool, Option("--no-match-lengths", help="do not match text lengths")] = False
    encoder: options.EncoderName = DEFAULT_ENCODER
    seed: Seed = 0

    def check(self, ctx: typer.Context) -> None:
        """Refuse options that exclude each other or would have no effect."""
        choice = ("levels", "target", "method", "metric", "no_match_lengths")
        if self.rows is None:
            refuse_options(ctx, choice, "it says which rows to choose; say how many with --rows")
        given = [name for name in choice[:3] if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"--{given[0]} and --{given[1]} exclude each other; give one")
        if self.method is not None:
            refuse_options(ctx, ["metric"], "the method says what is chosen by")

    def choose(self, pool: Corpus, encoder: Encoder, real: Corpus | None) -> Sequence[room.Selection]:
        """The rows at each level, at the target, or by the method; nothing where no number of rows is given."""
        if self.rows is None:
            return []
        match = not self.no_match_lengths
        selector = room.Selector(pool, encoder.encode(pool.texts), self.rows, match_lengths=match, seed=self.seed)
        if self.levels is not None:
            return selector.levels(self.levels, self.metric)
        if self.target is not None:
            return [selector.target(self.target, self.metric)]
        if self.method != "lowest_shift":
            return [selector.best(self.method or self.metric)]
        if real is None:
            raise ConfigError("--method lowest_shift needs the real rows; give --real FILE")
        return [selector.best(self.method, encoder.encode(real.texts))]


@may_trust
def select(
    ctx: typer.Context,
    pool: Annotated[Path, Argument(help="synthetic rows")],
    choosing: Choosing,
    cleaning: Cleaning,
    columns: Annotated[Columns, GROUPED],
    output: Annotated[Output, {"out": Path("selected.parquet")}],
) -> None:
    """Filter a pool and choose rows of it: at levels of diversity, at a value, nearest to real data, or plainly."""
    output.check(ctx)
    choosing.check(ctx)
    options.refuse_idle(
        ctx,
        near=cleaning.no_dedupe and "it goes with removing repeated rows, which --no-dedupe leaves out",
        prompts=cleaning.keep_degenerate
        and "it goes with removing degenerate rows, which --keep-degenerate leaves out",
        no_set_test=not (cleaning.held_out and cleaning.real) and "it goes with --held-out and --real together",
        reader_agrees=cleaning.reader is None and "it goes with --reader",
    )
    if cleaning.per_group is not None and columns.group is None:
        raise ConfigError("--per-group needs --group COLUMN")
    columns = columns.checked(ctx, pool, cleaning.real, *(cleaning.held_out or ()))
    corpus = columns.load(pool)
    columns, corpus = columns.like(corpus), corpus.with_columns(origin=["synthetic"] * len(corpus))
    real = columns.load_other(cleaning.real) if cleaning.real is not None else None
    held_out = [columns.load_other(path) for path in cleaning.held_out or ()]
    with options.explaining():
        filters = cleaning.filters(corpus.task, real, held_out, choosing.seed, output.out)
    encoder = load_encoder(choosing.encoder)
    filtered = room.apply_filters(corpus, filters, encode=encoder.encode)
    if cleaning.removed is not None:
        lines = (json.dumps(asdict(row), ensure_ascii=False) for row in filtered.removed)
        replace_text(cleaning.removed, "".join(f"{line}\n" for line in lines))
    if (choosing.rows or 1) > len(filtered.corpus) < len(corpus):
        taken = ", ".join(f"{step.name} took {step.removed}" for step in filtered.steps if step.removed)
        raise InputError(
            f"{pool}: {choosing.rows or 1} rows are needed, {len(filtered.corpus)} of {len(corpus)} passed the filters "
            f"({taken}); ask for fewer, filter less, or give a larger pool"
        )
    with naming(str(pool)):
        chosen, out = choosing.choose(filtered.corpus, encoder, real), output.out
    paths = [out.with_name(f"{out.stem}-{part.name}{out.suffix}") for part in chosen] if len(chosen) > 1 else [out]
    for rows, path in zip([part.corpus for part in chosen] or [filtered.corpus], paths, strict=True):
        write_corpus(rows, path, guard_cells=output.guard_cells)
    told = ("name", "values", "length_difference", "note")
    selections = [
        {name: getattr(part, name) for name in told}
        | {"path": path, "rows": len(part.rows), "label_counts": count_strata(part.corpus)}
        for part, path in zip(chosen, paths, strict=False)
    ]
    output(
        {"findings": filtered.findings, "filters": filtered.steps, "selections": selections, "paths": paths},
        *show.list_findings(filtered.findings),
        str(filtered),
        *([_tabulate_selections(chosen)] if chosen else []),
        *(f"note: {note}" for note in dict.fromkeys(part.note for part in chosen if part.note)),
        f"wrote {', '.join(map(str, paths))}",
    )


def _tabulate_selections(chosen: Sequence[room.Selection]) -> Table:
    names = list(chosen[0].values)
    rows = (
        [p.name, f"{len(p.rows)}", *(f"{p.values[name]:.4g}" for name in names), f"{p.length_difference:.3f}"]
        for p in chosen
    )
    return console.make_table(None, ["selection", "rows", *names, "length differs, SD"], rows)


# --- mix ---
@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How rows are mixed."""

    share: Annotated[float, Option(min=0, max=1, help="synthetic rows over all rows")] = 0.5
    amount: Annotated[str | None, Option(help="in place of --share: 3x (for each real row), rows a label, all")] = None
    regime: Regime = "augment"
    allow_repeats: Annotated[bool, Option("--allow-repeats", help="draw rows again if there are too few")] = False
    held_out: Annotated[list[Path] | None, Option(help="held-out rows, none of which may be in the blend")] = None
    dedupe: Annotated[bool, Option("--dedupe", help="leave out synthetic rows that repeat a row")] = False
    form: Annotated[BlendForm, Option("--format", help="of answers; auto: as rows are")] = "auto"
    seed: Seed = 0

    def find_share(self, rows_per_label: int) -> float | None:
        """What is asked for as a share; None is every row of the pool."""
        from cuvee.config.sections import check_amounts, read_amount, share_of

        if self.amount is None:
            return self.share
        with options.explaining("--amount: "):
            (given,) = check_amounts(int(self.amount) if self.amount.isdecimal() else self.amount)
        amount = read_amount(given, rows_per_label)
        return None if amount is None else share_of(amount)

    def mix_files(self, real: Path, synthetic: Path, columns: Columns) -> tuple[room.Blend, list[Finding]]:
        """The blend of two files, and what should be known of them."""
        rows = columns.load(real, labelled=True)
        columns = columns.like(rows)
        others = columns.load(synthetic, origin="synthetic", labelled=True)
        if rows.task == "classification":
            compare_labels(rows.labels, others.labels, known_name=str(real), found_name=str(synthetic))
        again, pool = self.allow_repeats, len(others)
        once = room.apply_filters(others, [room.Dedupe(against=rows.prompts)])
        rate, left_out = len(once.removed) / pool, " and are left out" if self.dedupe else ""
        told = Finding(
            id="repeats", value=rate, severity=0.0 if self.dedupe else rate,
            sentence=f"{len(once.removed)} of {pool} synthetic rows repeat a synthetic or a real row{left_out}.",
            remedy="" if self.dedupe else "--dedupe leaves them out.",
        )  # fmt: skip
        if self.dedupe:
            others = once.corpus
        share, fewer = self.find_share(max(count_strata(rows).values())), self.amount is not None and not again
        with options.explaining("--"), naming(str(synthetic)):
            blend = room.mix_corpora(
                rows, others, share=share, amount="all" if share is None else None, regime=self.regime, seed=self.seed,
                allow_repeats=again, allow_fewer=fewer,
            )  # fmt: skip
        for path in self.held_out or ():
            held_out = columns.load(path)
            names = row_names(held_out) - row_names(rows)
            NoLeaks(held_out.texts, names=names).check(blend.corpus, when=f"of {path}")
        found = [*([told] if once.removed else []), *(_tell_fewer(blend, share) if fewer else [])]
        return blend, found or [NOTHING_WRONG]


def _tell_fewer(blend: room.Blend, share: float | None) -> list[Finding]:
    """Which labels got fewer synthetic rows than were asked for, as the pool has no more; share None asks for all."""
    made = blend.composition
    counts = made.label_counts or {"": (made.real_rows, made.synthetic_rows)}
    asked = room.share_counts({label: real for label, (real, _) in counts.items()}, share or 0.0)
    wanted = {label: 1 if share is None else rows for label, (_, rows) in asked.items()}
    short = [label for label, (_, rows) in counts.items() if rows < wanted[label]]
    of = f" for {len(short)} of {len(counts)} labels" if made.label_counts else ""
    example = f"{f'{short[0]!r}: ' if of else ''}{counts[short[0]][1]} of {wanted[short[0]]}" if short else ""
    sentence = f"The pool has fewer rows than were asked for{of} ({example})."
    remedy = "Ask for fewer, or write more."
    return [Finding(id="fewer-rows", sentence=sentence, remedy=remedy, severity=0.5)] if short else []


@options.expand_options
def mix(
    ctx: typer.Context,
    real: Annotated[Path, Argument(help="real rows")],
    synthetic: Annotated[Path, Argument(help="synthetic rows")],
    how: Mixing,
    hub: Hub,
    columns: Annotated[Columns, UNGROUPED],
    output: Annotated[Output, {"out": Path("blend.parquet")}],
) -> None:
    """Mix real and synthetic rows at an exact share; --out is a file, or a folder of the blend with its card."""
    out, form = output.out, how.form
    if how.amount is not None:
        refuse_options(ctx, ["share"], "--amount says how much")
        if how.regime == "replace":
            raise ConfigError("--amount counts rows added to the real ones; with --regime replace give --share")
    columns = columns.checked(ctx, real, synthetic)
    options.check_guard(ctx, out.suffix)
    is_folder = out.suffix not in OUTPUTS
    if is_folder and out.suffix[1:].isalpha():
        raise ConfigError(f"--out {out}: unknown kind of file; use {', '.join(OUTPUTS)}, or the name of a folder")
    if is_folder:
        check_folder(out, replaces=is_dataset)
    else:
        why = f"{out} is one file; a dataset with its card is a folder, --out FOLDER"
        refuse_options(ctx, ["licence", "language", "push", "public"], why)
    card = hub.describe(ctx, out.name)
    blend, findings = how.mix_files(real, synthetic, columns)
    if form != "auto" and blend.corpus.task != "generation":
        raise ConfigError(f"--format is for the task generation, these rows are for {blend.corpus.task}; leave it out")
    weights = blend.weighing if blend.is_weighted else ""
    if is_folder:
        told = options.told_command(ctx)
        made = Reproduction(command=told, seed=how.seed, fingerprints={"blend": blend.corpus.fingerprint})
        models = SyntheticPart(writer=", ".join(sorted({g for g in blend.corpus.table["generator"].to_pylist() if g})))
        facts = change(card, reproduction=made, task=blend.corpus.task)
        text = render_card(facts, blend.composition, synthetic=models, weights=weights)
        write_dataset(out, blend.corpus, text, form=form)
    else:
        write_table(blend.corpus.to_trainers(form), out, guard_cells=output.guard_cells)
    address = push_folder(out, hub.push, private=not hub.public) if hub.push is not None else None
    mixed = blend.composition
    counts = {**asdict(mixed), "rows": mixed.rows, "words": mixed.words}
    findings = sorted(findings, key=lambda finding: -finding.severity)
    output(
        {**counts, "effective_rows": blend.effective_rows, "path": out, "pushed": address, "findings": findings},
        *show.list_findings(findings),
        str(mixed),
        *([weights] if weights else []),
        f"wrote {out}" + (f"; pushed to {address}" if address else ""),
    )


# --- replace ---
@dataclass(frozen=True, kw_only=True)
class Replacing:
    """How many rows paraphrases replace: m_p paraphrases of each of r source rows, for each label."""

    m_p: Annotated[int, Option(min=0, help="paraphrases of each source row")]
    r: Annotated[int, Option(min=1, help="source rows of each label")] = 2
    max_m_p: Annotated[int | None, Option(min=0, help="the largest --m-p of a series, so that the results nest")] = None
    seed: Seed = 0


@options.expand_options
def replace(
    ctx: typer.Context,
    base: Annotated[Path, Argument(help="rows of which some are replaced")],
    paraphrases: Annotated[Path, Argument(help="paraphrases of rows of BASE")],
    how: Replacing,
    columns: Annotated[Columns, PLAIN],
    output: Annotated[Output, {"out": Path("replaced.parquet")}],
) -> None:
    """Replace rows by m_p paraphrases of each of r rows of a label; --group names the source row."""
    output.check(ctx)
    if how.max_m_p is not None and how.max_m_p < how.m_p:
        raise ConfigError(f"--max-m-p {how.max_m_p} is below --m-p {how.m_p}; give the largest --m-p of the series")
    columns = columns.checked(ctx, base, paraphrases)
    rows = change(columns, group=None).load(base, labelled=True)
    others = columns.like(rows).load(paraphrases, origin="synthetic", labelled=True)
    made = room.replace_with_paraphrases(rows, others, **asdict(how))
    write_corpus(made.corpus, output.out, guard_cells=output.guard_cells)
    told = {name: getattr(made, name) for name in ("m_p", "r", "m_r", "unused")}
    output({"path": output.out, "rows": len(made.corpus), **told}, f"{made}\nwrote {output.out}")
