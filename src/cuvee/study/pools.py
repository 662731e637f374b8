"""Pools: generated or read, kept in the run folder, measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from cuvee.config import FileGenerator
from cuvee.config.execution import ExecuteConfig
from cuvee.corpus import Corpus
from cuvee.encoders import WorkerPool, load_encoder
from cuvee.errors import InputError
from cuvee.execute import ExecutorPool, open_executor
from cuvee.fingerprint import hash_value
from cuvee.measure import measure_corpus
from cuvee.mix import full_blocks, take_blocks
from cuvee.records import Level, Measurement
from cuvee.store import StoredPool
from cuvee.study.generation import DialPart, generate_levels, study_dials, wanted_levels
from cuvee.study.guard import held_out_texts
from cuvee.study.readymade import read_pools
from cuvee.study.setup import FRESH, Pools, Study
from cuvee.study.spending import note_failed

REAL = "real"
SPREAD_TEXTS = 20_000
"""Fewer are embedded and compared in this process, whatever ``execute`` says: starting workers takes longer."""


def make_pools(study: Study) -> dict[Level, StoredPool]:
    """The pool of every level, in order, from the run folder where it is there already.

    Raises:
        EndpointError, GenerationError, InputError: what stands in the way; everything answered is kept.
    """
    with study.stages.stage("generate", "rows") as progress:
        if isinstance(study.config.generator, FileGenerator):
            return read_pools(study, progress)
        parts = []
        for settings, dial in study_dials(study):
            draws = range(min(settings.draws or study.config.draws.generation, study.config.draws.generation))
            levels = wanted_levels(study, settings, dial, draws, progress)
            parts.append(DialPart(settings=settings, dial=dial, levels=levels, blocks=draws))
        pools = {pool.level: pool for pool in generate_levels(study, parts, progress)}
        note_failed(study, pools.values())
    return pools


def fresh_pool(study: Study, level: Level, pools: Pools) -> tuple[Corpus, Sequence[int]] | None:
    """Rows of ``level`` in generation draws that no trial has seen, with their numbers; None if there are none."""
    wanted = range(FRESH, FRESH + study.config.draws.confirm)
    if isinstance(study.config.generator, FileGenerator):
        corpus = pools[level].corpus
        usable = sorted(full_blocks(corpus, study.block_rows()) & set(wanted))
        return (corpus, usable) if usable else None
    settings, dial = next((s, d) for s, d in study_dials(study) if d.name == level.dial)
    with study.stages.stage("confirm", "rows") as progress:
        part = DialPart(settings=settings, dial=dial, levels=[level], blocks=wanted)
        (pool,) = generate_levels(study, [part], progress, suffix=" confirm")
        note_failed(study, [pool])
    usable = sorted(full_blocks(pool.corpus, study.block_rows()))
    return (pool.corpus, usable) if usable else None


def usable_draws(study: Study, pools: Pools) -> dict[Level, list[int]]:
    """Level -> the generation draws in which every level of its dial has all its rows, so that they pair.

    A level that fills no draw that the others of its dial fill is left out: it is out of this generator's reach.

    Raises:
        InputError: no dial has a level left.
    """
    rows, limit = study.block_rows(), study.config.draws.generation
    usable: dict[Level, list[int]] = {}
    for dial in dict.fromkeys(level.dial for level in pools):
        full = {
            level: {b for b in full_blocks(pool.corpus, rows) if b < limit}
            for level, pool in pools.items()
            if level.dial == dial
        }
        while full and not (shared := set.intersection(*full.values())):
            del full[min(full, key=lambda level: len(full[level]))]
        usable |= {level: sorted(shared) for level in full}
    if not usable:
        level, pool = next(iter(pools.items()))
        raise InputError(
            f"no pool fills a generation draw ({level.key} has {len(pool.corpus)} rows; {sum(rows.values())} are "
            "needed a draw, in equal parts of each label); lower mix.shape_share or split.rows_per_label"
        )
    return usable


def note_left_out(study: Study, pools: Pools) -> None:
    """Say which levels and draws are not full, and so take no part."""
    usable, rows = usable_draws(study, pools), sum(study.block_rows().values())
    asked = {} if isinstance(study.config.generator, FileGenerator) else {d.name: s for s, d in study_dials(study)}
    for level, pool in pools.items():
        if level not in usable:
            study.stages.listener.noted(
                f"{level.key} is left out: with {len(pool.corpus)} rows it fills no draw of {rows} that the others fill"
            )
    for dial in dict.fromkeys(level.dial for level in usable):
        settings = asked.get(dial)
        wanted = min(study.config.draws.generation, (settings.draws if settings else None) or 10**9)
        shared = next(draws for level, draws in usable.items() if level.dial == dial)
        if len(shared) < wanted:
            study.stages.listener.noted(f"{dial}: {len(shared)} of {wanted} draws are full at every level")


def measure_pools(study: Study, pools: Pools) -> dict[str, Measurement]:
    """Measure the real training rows and every pool, pools at equal rows (the draws that all of them have)."""
    held_out = held_out_texts(study)
    draws = set.intersection(*(set(d) for d in usable_draws(study, pools).values()))
    corpora = {REAL: study.train}
    corpora |= {level.key: take_blocks(pool.corpus, draws) if draws else pool.corpus for level, pool in pools.items()}
    taking_part = {level.key for level in usable_draws(study, pools)}
    rows = min(len(c) for name, c in corpora.items() if name in taking_part)
    corpora = {name: c for name, c in corpora.items() if len(c)}
    measured: dict[str, Measurement] = {}
    note_left_out(study, pools)
    texts = sum(len(c) for c in corpora.values()) + len(held_out)
    with study.stages.stage("measure", "pools") as progress, open_crew(study.config.execute, texts) as crew:
        encoder = study.encoder if crew is None else load_encoder(study.config.encoder, workers=crew)
        for number, (name, corpus) in enumerate(corpora.items(), start=1):
            key = hash_value(
                [corpus.fingerprint, rows, study.train.fingerprint, study.encoder.hash, study.config.seed, held_out]
            )
            found = study.folder.load_measurement(name, key)
            if found is None:
                found = measure_corpus(
                    corpus,
                    against=study.train,
                    held_out=held_out,
                    encoder=encoder,
                    name=name,
                    rows=None if name == REAL else min(rows, len(corpus)),
                    seed=study.config.seed,
                )
                study.folder.save_measurement(name, found, key)
            measured[name] = found
            progress(number, len(corpora))
    return measured


@contextmanager
def open_crew(settings: ExecuteConfig, texts: int) -> Iterator[WorkerPool | None]:
    """Workers that embed and compare; None where all runs here, or where there is too little for it to pay."""
    if settings.kind == "local" or texts < SPREAD_TEXTS:
        yield None
        return
    terms = replace(settings.terms(), timeout_s=None)  # which is that of a trial
    with open_executor(settings.kind, terms, address=settings.cluster()) as executor:
        yield ExecutorPool(executor)
