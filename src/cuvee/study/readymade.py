"""Pools from files: checked against the real labels, filtered, cut into draws, and selected from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from cuvee.config import FilterConfig, PoolFile
from cuvee.config.pools import AgreementConfig, DedupeConfig, DegenerateConfig, FewerPerClusterConfig, LeakConfig
from cuvee.corpus import SCHEMA, Corpus, label_strata, load_corpus
from cuvee.errors import InputError
from cuvee.execute import Progress
from cuvee.fingerprint import derive_seed
from cuvee.mix import (
    Agreement,
    Dedupe,
    Degenerate,
    FewerPerCluster,
    Filter,
    Filtered,
    Keep,
    Leak,
    apply_filters,
    assign_blocks,
    deal_blocks,
    select_levels,
    take_blocks,
)
from cuvee.records import Level, Rejected
from cuvee.store import StoredPool
from cuvee.study.guard import held_out_sources, held_out_texts
from cuvee.study.setup import FRESH, Study

_FOREIGN = "has a label the real data lacks"


def read_pools(study: Study, progress: Progress) -> dict[Level, StoredPool]:
    """Pools from files: checked against the real labels, filtered, cut into draws."""
    filters = make_filters(study)
    ranks: Counter[str] = Counter()
    pools: dict[Level, StoredPool] = {}
    for number, file in enumerate(study.config.pools, start=1):
        for pool in _read_file(study, file, ranks[file.dial], filters):
            pools[pool.level] = pool
            study.folder.save_pool(pool)
        ranks[file.dial] += len(file.levels)
        progress(number, len(study.config.pools))
    return pools


def check_files(study: Study) -> None:
    """Read the files of all pools, before anything is trained or kept.

    Filters are not run, so a file that passes may still turn out too small.

    Raises:
        InputError: a file is missing or broken, lacks a column, or has too few rows of a label whatever filters leave.
    """
    for number, file in enumerate(study.config.pools):
        try:
            _check_rows(study, _load_pool(study, file), file.path)
        except InputError as exc:
            raise InputError(f"pools.{number}: {exc}") from exc


def _check_rows(study: Study, pool: Corpus, path: str) -> None:
    counts, draws = Counter(label_strata(pool)), study.config.draws.generation
    for label, rows in study.block_rows().items():
        if counts[label] < draws * rows:
            raise InputError(
                f"{path}: label {label!r} has {counts[label]} rows in all: enough for {counts[label] // rows} draws of "
                f"{rows} rows, {draws} were asked; lower draws, mix.shape_share or split.rows_per_label, or give more"
            )


def make_filters(study: Study) -> list[Filter]:
    """The filters of the config, knowing the real rows and what is held out."""
    held_out, sources = held_out_texts(study), held_out_sources(study)
    return [_make_filter(study, settings, held_out, sources) for settings in study.config.filters]


def _make_filter(study: Study, settings: FilterConfig, held_out: Sequence[str], sources: Sequence[str]) -> Filter:
    texts = study.train.texts
    if isinstance(settings, DedupeConfig):
        return Dedupe(against=study.train.prompts if settings.against_real else (), near=settings.near)
    if isinstance(settings, DegenerateConfig):
        return Degenerate(reference=texts if settings.reference else ())
    if isinstance(settings, LeakConfig):
        return Leak(held_out=held_out, reference=texts, sources=sources)
    if isinstance(settings, AgreementConfig):
        return Agreement(train=study.train, threshold=settings.threshold, top=settings.top, seed=study.config.seed)
    if isinstance(settings, FewerPerClusterConfig):
        return FewerPerCluster(limit=settings.limit, threshold=settings.threshold)
    return Keep.load(settings.name)


def clean_pool(study: Study, corpus: Corpus, filters: Sequence[Filter]) -> tuple[Filtered, tuple[Rejected, ...]]:
    """Without foreign labels and without what the filters take; all that went is listed."""
    labels = set(study.train.labels) if corpus.task == "classification" else set(corpus.targets)
    known = np.array([target in labels for target in corpus.targets], dtype=bool)
    others = corpus.keep(~known)
    foreign = [Rejected(slot=i, reason=_FOREIGN, text=t) for i, t in zip(others.ids, others.texts, strict=True)]
    found = apply_filters(corpus.keep(known) if foreign else corpus, filters, encode=study.encoder.encode)
    return found, (*foreign, *found.rejected)


def _read_file(study: Study, file: PoolFile, rank: int, filters: Sequence[Filter]) -> list[StoredPool]:
    """The pools of the levels that a file gives."""
    corpus = _load_pool(study, file)
    filtered, rejected = clean_pool(study, corpus, filters)
    note = "\n".join([f"{len(filtered.corpus)} of {len(corpus)} rows kept", str(filtered)])
    levels = [Level(dial=file.dial, name=name, rank=rank + i) for i, name in enumerate(file.levels)]
    if file.select is None:
        pools = [_cut_draws(study, filtered.corpus, file.path)]
    else:
        pools = _select_levels(study, file, filtered.corpus)
    made = []
    for level, pool in zip(levels, pools, strict=True):
        rows = _with_columns(pool, {"level": level.name})
        made.append(StoredPool(level=level, corpus=rows, rejected=rejected, note=note))
    return made


def _load_pool(study: Study, file: PoolFile) -> Corpus:
    """The rows of a file, with what the real rows have too: labels, or contexts."""
    config = study.config
    context = file.context or (config.data.context if config.task == "generation" else None)
    corpus = load_corpus(
        file.path, text=file.text, label=file.label, group=file.group, context=context, origin="synthetic",
        task=config.task,
    )  # fmt: skip
    if config.task == "classification":
        missing = sorted(set(study.train.labels) - set(corpus.labels))
        if missing:
            raise InputError(
                f"{file.path}: the pool has no rows of label {missing[0]!r} ({len(missing)} labels of the real data "
                "are missing); rename its labels or drop them from the real data"
            )
    without = corpus.table["context"].null_count
    if without and config.task == "generation" and None not in study.train.contexts:
        raise InputError(
            f"{file.path}: {without} of {len(corpus)} rows have no context, and all real rows have one; name its "
            "column with context under pools, or drop these rows"
        )
    return _with_columns(corpus, {"origin": "synthetic", "dial": file.dial})


def _cut_draws(study: Study, pool: Corpus, path: str, *, whole: bool = False) -> Corpus:
    """Blocks for the confirmation first, then those of the grid; without the former where rows are too few.

    ``whole`` deals all rows out, else a block holds what a draw needs and the rest stays unused.
    """
    draws, rows, seed = study.config.draws, study.block_rows(), study.config.seed
    cut = deal_blocks if whole else assign_blocks
    try:
        return cut(
            pool, blocks=draws.generation + draws.confirm, rows=rows, seed=seed, reserved=draws.confirm, fresh=FRESH
        )
    except InputError:
        study.stages.listener.noted(f"{path}: too few rows to set fresh draws aside for the confirmation")
    try:
        return cut(pool, blocks=draws.generation, rows=rows, seed=seed)
    except InputError as exc:
        raise InputError(f"{path}: {exc}") from exc


def _select_levels(study: Study, file: PoolFile, pool: Corpus) -> list[Corpus]:
    """The levels of a file with ``select``: in each draw, subsets of the draw's own rows."""
    assert file.select is not None
    dealt, rows = _cut_draws(study, pool, file.path, whole=True), study.block_rows()
    parts: list[list[Corpus]] = [[] for _ in range(file.select.levels)]
    for block in sorted({int(b) for b in dealt.blocks if b >= 0}):
        drawn = take_blocks(dealt, {block})
        try:
            found = select_levels(
                drawn,
                study.encoder.encode(drawn.texts),
                rows=rows,
                levels=file.select.levels,
                metric=file.select.metric,
                seed=derive_seed(study.config.seed, "select", file.dial, block),
            )
        except InputError as exc:
            raise InputError(f"{file.path}, draw {block}: {exc}") from exc
        for part, selection in zip(parts, found, strict=True):
            part.append(selection.corpus)
        if notes := {selection.note for selection in found if selection.note}:
            study.stages.listener.noted(f"{file.path}, draw {block}: {'; '.join(sorted(notes))}")
    return [part[0].joined(*part[1:]) for part in parts]


def _with_columns(corpus: Corpus, values: dict[str, str]) -> Corpus:
    table = corpus.table
    for name, value in values.items():
        column = pa.repeat(pa.scalar(value, pa.string()), len(corpus))
        table = table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
    return replace(corpus, table=table)
