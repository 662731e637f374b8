"""Pools: generated or read, kept in the run folder, measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from os import environ

from cuvee.config import DialConfig, EmbeddedGenerator, EndpointGenerator, FileGenerator
from cuvee.corpus import Corpus, write_table
from cuvee.errors import ConfigError, InputError
from cuvee.execute.stages import Progress
from cuvee.fingerprint import hash_value
from cuvee.generate import (
    Budget,
    Dial,
    EmbeddedLLM,
    Endpoint,
    Ledger,
    Prices,
    Sampling,
    generate_pools,
    provenance_table,
    write_quarantine,
)
from cuvee.measure import measure_corpus
from cuvee.mix import full_blocks, take_blocks
from cuvee.records import Level, Measurement
from cuvee.store import StoredPool
from cuvee.study.dials import make_dials
from cuvee.study.guard import LeakGuard
from cuvee.study.readymade import read_pools
from cuvee.study.setup import FRESH, Pools, Study

REAL = "real"
ATTEMPTS = 12
"""Answers that a row may be given before it stays empty."""


def make_pools(study: Study) -> dict[Level, StoredPool]:
    """The pool of every level, in order, from the run folder where it is there already.

    Raises:
        EndpointError, GenerationError, InputError: what stands in the way; everything answered is kept.
    """
    with study.stages.stage("generate", "rows") as progress:
        if isinstance(study.config.generator, FileGenerator):
            return read_pools(study, progress)
        pools: dict[Level, StoredPool] = {}
        for settings, dial in make_dials(study):
            draws = min(settings.draws or study.config.draws.generation, study.config.draws.generation)
            for pool in generate_levels(study, settings, dial, dial.levels, range(draws), progress):
                pools[pool.level] = pool
            progress.next_part()
    return pools


def fresh_pool(study: Study, level: Level, pools: Pools) -> tuple[Corpus, Sequence[int]] | None:
    """Rows of ``level`` in generation draws that no trial has seen, with their numbers; None if there are none."""
    wanted = range(FRESH, FRESH + study.config.draws.confirm)
    if isinstance(study.config.generator, FileGenerator):
        corpus = pools[level].corpus
        usable = sorted(full_blocks(corpus, study.block_rows()) & set(wanted))
        return (corpus, usable) if usable else None
    settings, dial = next((s, d) for s, d in make_dials(study) if d.name == level.dial)
    with study.stages.stage("confirm", "rows") as progress:
        pool = generate_levels(study, settings, dial, [level], wanted, progress, suffix=" confirm")[0]
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
    asked = {} if isinstance(study.config.generator, FileGenerator) else {d.name: s for s, d in make_dials(study)}
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
    held_out = [*study.split.validation.texts, *study.locked_test("texts, against leaks").texts_for_leak_guard()]
    draws = set.intersection(*(set(d) for d in usable_draws(study, pools).values()))
    corpora = {REAL: study.train}
    corpora |= {level.key: take_blocks(pool.corpus, draws) if draws else pool.corpus for level, pool in pools.items()}
    rows = min(len(c) for name, c in corpora.items() if name != REAL)
    measured: dict[str, Measurement] = {}
    note_left_out(study, pools)
    with study.stages.stage("measure", "pools") as progress:
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
                    encoder=study.encoder,
                    name=name,
                    rows=None if name == REAL else rows,
                    seed=study.config.seed,
                )
                study.folder.save_measurement(name, found, key)
            measured[name] = found
            progress(number, len(corpora))
    return measured


# --- generated pools ------------------------------------------------------------------------------
def generate_levels(
    study: Study,
    settings: DialConfig,
    dial: Dial,
    levels: Sequence[Level],
    blocks: range,
    progress: Progress,
    suffix: str = "",
) -> list[StoredPool]:
    """Pools of these levels in these blocks: loaded if they were made before, else generated and saved."""
    config = study.config
    if isinstance(config.generator, FileGenerator):
        raise ValueError("generator is 'files'; there is nothing to generate")
    rows = max(study.block_rows().values())
    base = [config.generator.model_dump(exclude=_SPEED), config.describe, config.seed, rows, list(blocks)]
    own = settings.model_dump(exclude={"draws"})
    keys = {level: hash_value([study.train.fingerprint, study.encoder.hash, base, own, suffix]) for level in levels}
    stored = {level: study.folder.load_pool(level, keys[level], suffix) for level in levels}
    if all(stored.values()):
        return [pool for pool in stored.values() if pool is not None]
    with open_endpoint(study) as endpoint, Ledger(study.folder.ledger_path) as ledger:
        made = generate_pools(
            study.train,
            dial=dial,
            levels=[level.name for level in levels],
            blocks=list(blocks),
            rows_per_label=rows,
            endpoint=endpoint,
            ledger=ledger,
            sampling=_sampling(config.generator),
            describe=config.describe,
            seed=config.seed,
            nearest=lambda queries, candidates: nearest_rows(study, queries, candidates),
            refuse=LeakGuard(study).reasons,
            attempts=ATTEMPTS,
            keep_truncated=config.generator.truncated == "keep",
            progress=progress,
        )
    for short in (pool for pool in made if pool.short):
        study.stages.listener.noted(f"{short.level.key}: {short.note}")
    pools = [
        StoredPool(
            level=pool.level,
            corpus=pool.corpus,
            rejected=pool.rejected,
            usage=pool.usage,
            note=pool.note,
            key=keys[pool.level],
        )
        for pool in made
    ]
    for pool, details in zip(pools, made, strict=True):
        write_quarantine([details], study.folder.beside_pool(pool.level, suffix, "quarantine"))
        write_table(provenance_table(details), study.folder.beside_pool(pool.level, suffix, "provenance"))
        study.folder.save_pool(pool, suffix)  # last: its presence says that the files beside it are whole
    return pools


_SPEED = {
    *("slots", "threads", "concurrency", "timeout_s", "give_up_s", "api_key_env"),
    *("requests_per_minute", "tokens_per_minute", "budget", "prices"),
}


def _sampling(generator: EmbeddedGenerator | EndpointGenerator) -> Sampling:
    found = Sampling(temperature=generator.temperature, top_p=generator.top_p, max_tokens=generator.max_tokens)
    if isinstance(generator, EmbeddedGenerator):
        return found
    return replace(found, min_p=generator.min_p, top_k=generator.top_k)


@contextmanager
def open_endpoint(study: Study) -> Iterator[Endpoint]:
    """The configured LLM: the embedded one started, or the HTTP endpoint with its key from the environment.

    Raises:
        ConfigError: the environment variable is not set.
    """
    generator = study.config.generator
    with ExitStack() as stack:
        if isinstance(generator, EmbeddedGenerator):
            yield stack.enter_context(
                EmbeddedLLM(generator.gguf, slots=generator.slots, context=generator.context, threads=generator.threads)
            ).endpoint
        elif isinstance(generator, EndpointGenerator):
            key = environ.get(generator.api_key_env) if generator.api_key_env else None
            if generator.api_key_env and not key:
                raise ConfigError(
                    f"generator.api_key_env: the environment variable {generator.api_key_env} is not set; export it"
                )
            yield Endpoint(
                base_url=generator.base_url.rstrip("/"),
                model=generator.model,
                api=generator.api,
                api_key=key,
                key_name=generator.api_key_env or "",
                identity=generator.base_url.rstrip("/"),
                concurrency=generator.concurrency,
                requests_per_minute=generator.requests_per_minute,
                tokens_per_minute=generator.tokens_per_minute,
                budget=Budget(**generator.budget.model_dump()),
                prices=None if generator.prices is None else Prices(**generator.prices.model_dump()),
                omit=generator.omit,
                timeout_s=generator.timeout_s,
                give_up_s=generator.give_up_s,
            )


def nearest_rows(study: Study, queries: Sequence[str], candidates: Sequence[str]) -> list[int]:
    """For each query the index of the nearest candidate by cosine."""
    similarity = study.encoder.encode(queries) @ study.encoder.encode(candidates).T
    return [int(i) for i in similarity.argmax(axis=1)]
