"""Pools: generated, or read from files and cut into draws; kept in the run folder, measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from cuvee import mix
from cuvee.config import generators
from cuvee.config.sections import ExecuteConfig
from cuvee.corpus import Corpus, count_strata, label_strata, load_corpus, row_names, written_from
from cuvee.defects import longest_answer
from cuvee.encoders import WorkerPool, load_encoder
from cuvee.errors import InputError, naming
from cuvee.execute import StageCounter, open_executor
from cuvee.fingerprint import derive_seed, hash_value
from cuvee.inputs import read_prompts
from cuvee.measure import measure_corpus
from cuvee.records import Cell, Level, Measurement, Rejected
from cuvee.store import StoredPool
from cuvee.study.draws import bound_draws, usual_draws
from cuvee.study.generation import DialPart, generate_levels, note_failed, study_dials, wanted_levels
from cuvee.study.grids import LevelRows, count_pool, find_needed, note_amounts
from cuvee.study.judge import make_scored
from cuvee.study.prepare import FRESH, Pools, Study

_FOREIGN = "has a label the real data lacks"


def read_pools(study: Study, progress: StageCounter) -> dict[Level, StoredPool]:
    """Pools from files: checked against the real labels, filtered, cut into draws."""
    filters = [_make_filter(study, settings) for settings in study.config.filters]
    ranks: Counter[str] = Counter()
    pools: dict[Level, StoredPool] = {}
    for number, file in enumerate(study.config.pools, start=1):
        for pool in _read_file(study, file, ranks[file.dial], filters):
            pools[pool.level] = pool
            study.folder.save_pool(pool)
        ranks[file.dial] += len(file.levels)
        progress(number, len(study.config.pools))
    for (dial, level), files in generators.list_levels(study.config.pools).items():
        if len(files) > 1:
            joined = Level(dial=dial, name=level, rank=ranks[dial])
            made = _join_pools(study, joined, list(pools.values()), mix.row_wise(filters))
            pools[made.level] = made
            study.folder.save_pool(made)
    return pools


def _join_pools(study: Study, level: Level, pools: Sequence[StoredPool], filters: Sequence[mix.Filter]) -> StoredPool:
    """The pool of the rows of all pools of a dial: each text once, cut into draws anew.

    Filters judge again where not all rows were needed: of the joined rows others may be.
    """
    parts = [pool for pool in pools if pool.level.dial == level.dial]
    joined, needed = parts[0].corpus.joined(*(part.corpus for part in parts[1:])), _find_needed(study, level.key)
    again = () if needed is None else filters
    once = mix.apply_filters(joined, [mix.Dedupe(), *again], encode=study.encoder.encode, needed=needed)
    made = _cut_draws(study, once.corpus)
    note = f"{len(made)} of the {len(joined)} rows of {len(parts)} pools, each text once"
    rows = made.with_columns(level=[level.name] * len(made))
    return StoredPool(level=level, corpus=rows, rejected=once.rejected, note=note, read=len(joined))


def _find_needed(study: Study, key: str) -> mix.Needed | None:
    """Which rows of a file any blend may hold, however many draws are chosen; None for all of them."""
    most = bound_draws(study.config)[1]
    numbers = [number for fresh in (False, True) for number in study.samplings(most, fresh=fresh)]
    taken = find_needed(study, key, numbers)
    return None if taken is None else lambda rows: taken(_cut_draws(study, rows))


def check_files(study: Study) -> dict[Level, LevelRows]:
    """Read the files of all pools, before anything is trained or kept: what each level has at most.

    Filters are not run, so a file that passes may still turn out smaller.

    Raises:
        InputError: a file is missing or broken, or lacks a column.
    """
    found, needed = dict[Level, LevelRows](), study.block_rows()
    for number, file in enumerate(study.config.pools):
        with naming(f"pools.{number}"):
            strata = label_strata(_load_pool(study, file))
        counts = Counter(strata)
        most = min((counts[label] // rows for label, rows in needed.items() if rows), default=0)
        blocks = range(min(most, study.most_blocks)) if most > 1 else range(0)
        chosen = {label: min(counts[label], rows * max(1, len(blocks))) for label, rows in needed.items()}
        has = LevelRows(blocks=blocks, labels=counts if file.select is None else chosen)
        found |= {Level(dial=file.dial, name=name, rank=len(found) + k): has for k, name in enumerate(file.levels)}
    for (dial, name), files in generators.list_levels(study.config.pools).items():
        if len(files) > 1:
            labels = sum((Counter(has.labels) for level, has in found.items() if level.dial == dial), Counter[str]())
            found[Level(dial=dial, name=name, rank=len(found))] = LevelRows(blocks=range(0), labels=labels)
    return found


def _make_filter(study: Study, settings: generators.FilterConfig) -> mix.Filter:
    texts = study.train.texts
    if isinstance(settings, generators.DedupeConfig):
        return mix.Dedupe(against=study.train.prompts if settings.against_real else (), near=settings.near)
    if isinstance(settings, generators.DegenerateConfig):
        prompts = read_prompts(Path(settings.prompts)) if settings.prompts else ()
        return mix.Degenerate(reference=texts if settings.reference else (), prompts=prompts)
    if isinstance(settings, generators.LeakConfig):
        held_out, sources, names = study.held_out_texts(), study.held_out_sources(), study.held_out_names
        return mix.Leak(held_out=held_out, reference=texts, sources=sources, names=names, whole=settings.whole)
    if isinstance(settings, generators.AgreementConfig):
        return mix.Agreement(train=study.train, threshold=settings.threshold, top=settings.top, seed=study.config.seed)
    if isinstance(settings, generators.FewerPerClusterConfig):
        return mix.FewerPerCluster(limit=settings.limit, threshold=settings.threshold)
    if isinstance(settings, generators.PairsConfig):
        return mix.Pairs(grounded=settings.grounded, longest=longest_answer(study.train.targets))
    if isinstance(settings, generators.ReaderConfig | generators.JudgeConfig):
        return make_scored(settings, study.folder.path / f"{settings.name}.filter.sqlite", real=study.train)
    return mix.Keep.load(settings.name)


def _read_file(study: Study, file: generators.PoolFile, rank: int, filters: Sequence[mix.Filter]) -> list[StoredPool]:
    """The pools of the levels that a file gives, without foreign labels and what filters take; both are listed."""
    corpus = _load_pool(study, file)
    labels = set(study.train.labels) if corpus.task == "classification" else set(corpus.targets)
    known = np.array([target in labels for target in corpus.targets], dtype=bool)
    others = corpus.keep(~known)
    foreign = [Rejected(slot=i, reason=_FOREIGN, text=t) for i, t in zip(others.ids, others.texts, strict=True)]
    needed = None if file.select else _find_needed(study, f"{file.dial}={file.levels[0]}")
    own = corpus.keep(known) if foreign else corpus
    filtered = mix.apply_filters(own, filters, encode=study.encoder.encode, needed=needed)
    rejected = (*foreign, *filtered.rejected)
    note = "\n".join([f"{len(filtered.corpus)} of {len(corpus)} rows kept", str(filtered)])
    taken = [("foreign labels", len(foreign)), *((step.name, step.removed) for step in filtered.steps)]
    went = ", ".join(f"{name} took {rows}" for name, rows in taken if rows) or "no filter took any"
    study.note(f"{file.path}: {len(corpus)} rows read, {went}, {len(filtered.corpus)} left")
    if file.select is None:
        pools = [_cut_draws(study, filtered.corpus)]
    else:
        pools = _select_levels(study, file, file.select, filtered.corpus)
    made = []
    for place, (name, pool) in enumerate(zip(file.levels, pools, strict=True)):
        level, rows = Level(dial=file.dial, name=name, rank=rank + place), pool.with_columns(level=[name] * len(pool))
        made.append(StoredPool(level=level, corpus=rows, rejected=rejected, note=note, read=len(corpus)))
    return made


def _load_pool(study: Study, file: generators.PoolFile) -> Corpus:
    """The rows of a file, with what the real rows have too: labels, or contexts."""
    config = study.config
    context = file.context or (config.data.context if config.task == "generation" else None)
    corpus = load_corpus(
        file.path, text=file.text, label=file.label, group=file.group, context=context, seed=file.source,
        origin="synthetic", task=config.task, where=file.wanted,
    )  # fmt: skip
    if file.source and not any(written_from(corpus, study.held_out_names | row_names(study.train))):
        raise InputError(
            f"{file.path}: column {file.source!r} (source) names no real row, as {corpus.table['seed_ids'][0]}; its "
            "values are those of data.group, or the texts of real rows"
        )
    if config.task == "classification" and not set(study.train.labels) & set(corpus.labels):
        raise InputError(
            f"{file.path}: the pool has rows of none of the real labels: it has {corpus.labels[0]!r}, the real data "
            f"{study.train.labels[0]!r}; rename its labels"
        )
    without = corpus.table["context"].null_count
    if without and config.task == "generation" and None not in study.train.contexts:
        raise InputError(f"{file.path}: {without} rows have no context, as real rows do; name its column with context")
    return corpus.with_columns(origin=["synthetic"] * len(corpus), dial=[file.dial] * len(corpus))


def _cut_draws(study: Study, pool: Corpus, *, whole: bool = False) -> Corpus:
    """Disjoint blocks for the shape over levels, as many as were asked and there are rows for; else the pool uncut.

    ``whole`` deals all rows out, at least to one block, else a block holds what a draw needs.
    """
    counts, cut = count_strata(pool), mix.deal_blocks if whole else mix.assign_blocks
    rows = {label: min(count, counts[label]) if whole else count for label, count in study.block_rows().items()}
    for count in range(usual_draws(study.config).generation if whole else study.most_blocks, 0, -1):
        try:
            if whole or count > 1:
                return cut(pool, blocks=range(count), rows=rows, seed=study.config.seed)
        except InputError:
            continue
    return pool


def _select_levels(
    study: Study, file: generators.PoolFile, select: generators.SelectConfig, pool: Corpus
) -> list[Corpus]:
    """The levels of a file with ``select``: in each draw, subsets of the draw's own rows."""
    if not len(pool):
        raise InputError(f"{file.path}: filters left no row to select levels from; use fewer, or give a larger pool")
    dealt = _cut_draws(study, pool, whole=True)
    parts: list[list[Corpus]] = [[] for _ in range(select.levels)]
    for block in sorted({int(b) for b in dealt.blocks if b >= 0}):
        drawn = mix.take_blocks(dealt, {block})
        has = count_strata(drawn)
        named = f"draw {block}" if block < FRESH else f"draw {block - FRESH} of the confirmation"
        rows = {label: min(rows, has[label]) for label, rows in study.block_rows().items() if has[label]}
        seed = derive_seed(study.config.seed, "select", file.dial, block)
        with naming(f"{file.path}, {named}"):
            selector = mix.Selector(drawn, study.encoder.encode(drawn.texts), rows, seed=seed)
            found = selector.levels(select.levels, select.metric)
        for part, selection in zip(parts, found, strict=True):
            part.append(selection.corpus)
        if notes := {selection.note for selection in found if selection.note}:
            study.note(f"{file.path}, {named}: {'; '.join(sorted(notes))}")
    return [part[0].joined(*part[1:]) for part in parts]


REAL = "real"
# Fewer are embedded and compared in this process, whatever ``execute`` says: starting workers takes longer.
SPREAD_TEXTS = 20_000


def make_pools(study: Study) -> dict[Level, StoredPool]:
    """The pool of every level, in order, from the run folder where it is there already.

    Raises:
        EndpointError, GenerationError, InputError: what stands in the way; everything answered is kept.
    """
    with study.stages.stage("generate", "rows") as progress:
        if study.ready_made:
            return read_pools(study, progress)
        parts = []
        for settings, dial in study_dials(study):
            draws = range(study.draws_of(settings))
            part = DialPart(settings=settings, dial=dial, levels=dial.levels, blocks=draws)
            parts.append(replace(part, levels=wanted_levels(study, part, progress)))
        pools = {pool.level: pool for pool in generate_levels(study, parts, progress)}
        note_failed(study, pools.values())
    return pools


def fresh_pool(study: Study, level: Level, draws: int) -> tuple[Corpus, Sequence[int]] | None:
    """Rows of ``level`` in so many draws that no trial on validation has seen, with their numbers; None without any."""
    wanted = range(FRESH, FRESH + draws)
    settings, dial = next((s, d) for s, d in study_dials(study) if d.name == level.dial)
    with study.stages.stage("confirm", "rows") as progress:
        part = DialPart(settings=settings, dial=dial, levels=[level], blocks=wanted)
        (pool,) = generate_levels(study, [part], progress, suffix=" confirm")
        note_failed(study, [pool])
    usable = sorted(mix.full_blocks(pool.corpus, study.block_rows()))
    return (pool.corpus, usable) if usable else None


class PooledStudy:
    """A study with its pools, each thing made when it is first asked for, unless the run folder holds it."""

    def __init__(self, study: Study) -> None:
        self.study = study

    @cached_property
    def pools(self) -> Pools:
        """Generate or read the pool of every level."""
        return make_pools(self.study)

    @cached_property
    def measurements(self) -> dict[str, Measurement]:
        """Measure every pool, and the real training rows."""
        return _measure_pools(self)

    @cached_property
    def corpora(self) -> dict[str, Corpus]:
        """Level key -> its rows."""
        return {level.key: pool.corpus for level, pool in self.pools.items()}

    def find_level(self, cell: Cell) -> Level:
        """The level that a cell names."""
        return next(level for level in self.pools if (level.dial, level.name) == (cell.dial, cell.level))

    @cached_property
    def levels(self) -> dict[Level, LevelRows]:
        """What the levels that take part have: the generation draws in which every level of a dial has all its rows,
        so that they pair, and the rows in all.

        A level that fills no draw that the others of its dial fill is left out: it is out of this generator's reach.
        Those of files take part all the same, with no draws of the recipe; fewer than two are none there.

        Raises:
            InputError: no dial has a level left.
        """
        study, rows, usable = self.study, self.study.block_rows(), dict[Level, list[int]]()
        for dial in dict.fromkeys(level.dial for level in self.pools):
            own = {level: pool.corpus for level, pool in self.pools.items() if level.dial == dial}
            full = {level: {b for b in mix.full_blocks(c, rows) if b < study.most_blocks} for level, c in own.items()}
            least = 2 if study.ready_made else 1
            while full and len(shared := set.intersection(*full.values())) < least:
                del full[min(full, key=lambda level: len(full[level]))]
            if study.ready_made:
                usable |= {level: sorted(shared) if level in full and len(full) > 1 else [] for level in own}
            else:
                usable |= {level: sorted(shared) for level in full}
        if not usable:
            level, pool = next(iter(self.pools.items()))
            raise InputError(
                f"no pool fills a generation draw ({level.key} has {len(pool.corpus)} rows; {sum(rows.values())} are "
                "needed a draw, in equal parts of each label); lower mix.shape_share or split.rows_per_label"
            )
        return {level: count_pool(self.pools[level].corpus, blocks) for level, blocks in usable.items()}


def _note_left_out(made: PooledStudy) -> None:
    """Say which levels and draws are not full, and so take no part; of files, which amounts lie beyond them."""
    study, levels = made.study, made.levels
    note_amounts(study, levels)
    if study.ready_made:
        return
    rows, asked = sum(study.block_rows().values()), {d.name: s for s, d in study_dials(study)}
    for level, pool in made.pools.items():
        if level not in levels:
            has = len(pool.corpus)
            study.note(f"{level.key} is left out: with {has} rows it fills no draw of {rows} that the others fill")
    for dial, full in {level.dial: len(has.blocks) for level, has in levels.items()}.items():
        if full < (wanted := study.draws_of(asked.get(dial))):
            study.note(f"{dial}: {full} of {wanted} draws are full at every level")


def _measure_pools(made: PooledStudy) -> dict[str, Measurement]:
    """Measure the real training rows and every pool, pools at equal rows (the draws that all of them have)."""
    study, held_out = made.study, made.study.held_out_texts()
    draws = set.intersection(*(set(has.blocks) for has in made.levels.values()))
    corpora = {REAL: study.train}
    for level, pool in made.pools.items():
        needed, own = None if draws else _find_needed(study, level.key), pool.corpus
        own = mix.take_blocks(own, draws) if draws else own
        corpora[level.key] = own if needed is None else own.keep(needed(own))
    rows = min(len(corpora[level.key]) for level in made.levels)
    corpora = {name: c for name, c in corpora.items() if len(c)}
    measured: dict[str, Measurement] = {}
    _note_left_out(made)
    texts = sum(len(c) for c in corpora.values()) + len(held_out)
    with study.stages.stage("measure", "pools") as progress, open_workers(study.config.execute, texts) as workers:
        seed = study.config.seed
        same = [rows, study.train.fingerprint, study.encoder.hash, seed, held_out]
        encoder = study.encoder if workers is None else load_encoder(study.config.encoder, workers=workers)
        for number, (name, corpus) in enumerate(corpora.items(), start=1):
            key = hash_value([corpus.fingerprint, *same])
            found = study.folder.load_measurement(name, key)
            if found is None:
                most = None if name == REAL else min(rows, len(corpus))
                found = measure_corpus(
                    corpus, against=study.train, held_out=held_out, encoder=encoder, name=name, rows=most, seed=seed
                )
                study.folder.save_measurement(name, found, key)
            measured[name] = found
            progress(number, len(corpora))
    return measured


@contextmanager
def open_workers(settings: ExecuteConfig, texts: int) -> Iterator[WorkerPool | None]:
    """Workers that embed and compare; None where all runs here, or where there is too little for it to pay."""
    if settings.kind == "local" or texts < SPREAD_TEXTS:
        yield None
        return
    terms = replace(settings.terms(), timeout_s=None)  # which is that of a trial
    with open_executor(settings.kind, terms, address=settings.cluster()) as executor:
        yield executor
