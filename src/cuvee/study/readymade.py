"""Pools from files: checked against the real labels, cleaned, cut into draws."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa

from cuvee.config import PoolFile
from cuvee.corpus import SCHEMA, Corpus, load_corpus
from cuvee.defects import degenerate_reasons, duplicate_mask
from cuvee.errors import InputError
from cuvee.execute.stages import Progress
from cuvee.mix import assign_blocks
from cuvee.records import Level, Rejected
from cuvee.store import StoredPool
from cuvee.study.guard import LeakGuard
from cuvee.study.setup import FRESH, Study


def read_pools(study: Study, progress: Progress) -> dict[Level, StoredPool]:
    """Pools from files: checked against the real labels, cleaned, cut into draws."""
    guard = LeakGuard(study)
    ranks: Counter[str] = Counter()
    pools: dict[Level, StoredPool] = {}
    for number, file in enumerate(study.config.pools, start=1):
        level = Level(dial=file.dial, name=file.level, rank=ranks[file.dial])
        ranks[file.dial] += 1
        pools[level] = _read_pool(study, file, level, guard)
        study.folder.save_pool(pools[level])
        progress(number, len(study.config.pools))
    return pools


def _read_pool(study: Study, file: PoolFile, level: Level, guard: LeakGuard) -> StoredPool:
    corpus = load_corpus(file.path, text=file.text, label=file.label, group=file.group, origin="synthetic")
    corpus = _with_columns(corpus, {"origin": "synthetic", "dial": level.dial, "level": level.name})
    missing = sorted(set(study.train.labels) - set(corpus.labels))
    if missing:
        raise InputError(
            f"{file.path}: the pool has no rows of label {missing[0]!r} ({len(missing)} labels of the real data "
            "are missing); rename its labels or drop them from the real data"
        )
    kept, rejected = clean_pool(corpus, study.train, guard)
    blocked = _cut_draws(study, kept, file.path)
    counts = Counter(r.reason.split(" (")[0] for r in rejected)
    note = f"{len(kept)} of {len(corpus)} rows kept" + "".join(
        f"; {n} {reason}" for reason, n in sorted(counts.items())
    )
    return StoredPool(level=level, corpus=blocked, rejected=rejected, note=note)


def _cut_draws(study: Study, pool: Corpus, path: str) -> Corpus:
    """Blocks for the confirmation first, then those of the grid; without the former where rows are too few."""
    draws, rows, seed = study.config.draws, study.block_rows(), study.config.seed
    try:
        return assign_blocks(
            pool, blocks=draws.generation + draws.confirm, rows=rows, seed=seed, reserved=draws.confirm, fresh=FRESH
        )
    except InputError:
        study.stages.listener.noted(f"{path}: too few rows to set fresh draws aside for the confirmation")
    try:
        return assign_blocks(pool, blocks=draws.generation, rows=rows, seed=seed)
    except InputError as exc:
        raise InputError(f"{path}: {exc}") from exc


def clean_pool(corpus: Corpus, train: Corpus, guard: LeakGuard) -> tuple[Corpus, tuple[Rejected, ...]]:
    """Without foreign labels, degenerate rows, duplicates, copies of training rows and leaks; each is listed."""
    known = set(train.labels)
    repeats = duplicate_mask([*train.texts, *corpus.texts])[len(train) :]
    degenerate = degenerate_reasons(corpus.texts)
    leaks = guard.reasons(corpus.texts)
    reasons = [
        "has a label the real data lacks" if target not in known else bad or ("duplicate" if repeat else leak)
        for target, bad, repeat, leak in zip(corpus.targets, degenerate, repeats, leaks, strict=True)
    ]
    rejected = tuple(
        Rejected(slot=i, reason=reason, text=text)
        for i, reason, text in zip(corpus.ids, reasons, corpus.texts, strict=True)
        if reason is not None
    )
    return corpus.keep(np.array([r is None for r in reasons], dtype=bool)), rejected


def _with_columns(corpus: Corpus, values: dict[str, str]) -> Corpus:
    table = corpus.table
    for name, value in values.items():
        column = pa.array([value] * len(corpus), pa.string())
        table = table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
    return replace(corpus, table=table)
