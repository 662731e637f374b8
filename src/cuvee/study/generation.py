"""Pools that an LLM writes: asked for, searched for a target, kept in the run folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from os import environ

from cuvee.config import DialConfig, EmbeddedGenerator, EndpointGenerator, FileGenerator, TransformersGenerator
from cuvee.corpus import write_table
from cuvee.errors import ConfigError, GenerationError
from cuvee.execute.stages import Progress
from cuvee.fingerprint import hash_value
from cuvee.generate import (
    Budget,
    Dial,
    EmbeddedLLM,
    Endpoint,
    Ledger,
    OpenedLLM,
    Sampling,
    Target,
    TargetResult,
    TransformersLLM,
    generate_pools,
    generate_to_target,
    provenance_table,
    write_quarantine,
)
from cuvee.generate.embedded import LONG_TEXTS, SHORT_TEXTS
from cuvee.generate.spending import Meter
from cuvee.generate.targets import Score
from cuvee.records import Level
from cuvee.store import StoredPool
from cuvee.study.dials import make_dials
from cuvee.study.guard import LeakGuard
from cuvee.study.lists import KeptLists
from cuvee.study.setup import Study
from cuvee.study.spending import account_pool, find_prices, lacks_forgotten, note_findings
from cuvee.study.targets import known_level, reach_target
from cuvee.study.writing import check_labels, commission

ATTEMPTS = 12
"""Answers that a row may be given before it stays empty."""


def study_dials(study: Study) -> list[tuple[DialConfig, Dial]]:
    """The study's dials, with the topics and attributes that its LLM was, or now is, asked for."""
    return make_dials(study, KeptLists(study, open_llm))


def wanted_levels(study: Study, settings: DialConfig, dial: Dial, blocks: range, progress: Progress) -> Sequence[Level]:
    """All levels of a dial; of one with a target the level that comes nearest to it, searched for once."""
    config, target, generator = study.config, settings.target, study.config.generator
    if target is None or isinstance(generator, FileGenerator):
        return dial.levels
    wanted = commission(study)
    base = [generator.model_dump(exclude=SPEED), config.describe, config.seed, wanted.key, wanted.rows, list(blocks)]
    key = hash_value([study.train.fingerprint, study.encoder.hash, base, settings.model_dump(exclude={"draws"})])
    if (known := known_level(study, dial, key)) is not None:
        return [known]
    with open_llm(study) as llm, Ledger(study.folder.ledger_path) as ledger:

        def search(*, score: Score, target: Target, budget_rows: int) -> TargetResult:
            return generate_to_target(
                study.train,
                dial=dial,
                score=score,
                target=target,
                budget_rows=budget_rows,
                blocks=list(blocks),
                rows_per_label=wanted.rows,
                endpoint=llm.endpoint,
                open_client=llm.open_client,
                ledger=ledger,
                sampling=_sampling(generator),
                describe=config.describe,
                seed=config.seed,
                nearest=lambda queries, candidates: nearest_rows(study, queries, candidates),
                refuse=LeakGuard(study).reasons,
                near_duplicate=config.writing.near_duplicate,
                agrees=check_labels(study),
                kind=wanted.kind,
                sources=wanted.sources,
                prompts=wanted.prompts,
                attempts=ATTEMPTS,
                keep_truncated=generator.truncated == "keep",
                progress=progress,
            )

        return [reach_target(study, target, dial, blocks=blocks, key=key, search=search).level]


def generate_levels(
    study: Study,
    settings: DialConfig,
    dial: Dial,
    levels: Sequence[Level],
    blocks: range,
    progress: Progress,
    suffix: str = "",
) -> list[StoredPool]:
    """Pools of these levels in these blocks: loaded if they were made before, else generated and saved.

    Pools that lack rows of failed requests are loaded too, unless the ledger has forgotten one of these failures.
    """
    config = study.config
    if isinstance(config.generator, FileGenerator):
        raise ValueError("generator is 'files'; there is nothing to generate")
    wanted = commission(study)
    known = config.generator.model_dump(exclude=SPEED)
    base = [known, config.describe, config.seed, wanted.key, wanted.rows, list(blocks)]
    own = settings.model_dump(exclude={"draws"})
    keys = {level: hash_value([study.train.fingerprint, study.encoder.hash, base, own, suffix]) for level in levels}
    stored = {level: study.folder.load_pool(level, keys[level], suffix) for level in levels}
    kept = [pool for pool in stored.values() if pool is not None]
    if len(kept) == len(levels) and not lacks_forgotten(study, kept):
        return kept
    with open_llm(study) as llm, Ledger(study.folder.ledger_path) as ledger:
        progress.show(Meter(ledger, llm.endpoint.prices))
        before = ledger.sessions()
        with _explaining_failed(study, ledger):
            made = generate_pools(
                study.train,
                dial=dial,
                levels=[level.name for level in levels],
                blocks=list(blocks),
                rows_per_label=wanted.rows,
                endpoint=llm.endpoint,
                open_client=llm.open_client,
                ledger=ledger,
                sampling=_sampling(config.generator),
                describe=config.describe,
                seed=config.seed,
                nearest=lambda queries, candidates: nearest_rows(study, queries, candidates),
                refuse=LeakGuard(study).reasons,
                near_duplicate=config.writing.near_duplicate,
                agrees=check_labels(study),
                kind=wanted.kind,
                sources=wanted.sources,
                prompts=wanted.prompts,
                attempts=ATTEMPTS,
                keep_truncated=config.generator.truncated == "keep",
                progress=progress,
            )
        sessions = ledger.sessions()[len(before) :]
        note_findings(study, before, sessions)
        pools = [account_pool(pool, keys[pool.level], ledger, llm.endpoint.prices, sessions) for pool in made]
    for short in (pool for pool in made if pool.short):
        study.stages.listener.noted(f"{short.level.key}: {short.note}")
    for pool, details in zip(pools, made, strict=True):
        write_quarantine([details], study.folder.beside_pool(pool.level, suffix, "quarantine"))
        write_table(provenance_table(details), study.folder.beside_pool(pool.level, suffix, "provenance"))
        study.folder.save_pool(pool, suffix)  # last: its presence says that the files beside it are whole
    return pools


@contextmanager
def _explaining_failed(study: Study, ledger: Ledger) -> Iterator[None]:
    """Where rows are missing and requests failed for good, say how to ask these again."""
    try:
        yield
    except GenerationError as exc:
        if not ledger.failures():
            raise
        raise GenerationError(f"{exc} (cuvee generate {study.folder.path} --retry-failed)") from exc


SPEED = {
    *("slots", "threads", "concurrency", "timeout_s", "give_up_s", "api_key_env"),
    *("requests_per_minute", "tokens_per_minute", "budget", "prices", "batch"),
}


def _sampling(generator: EmbeddedGenerator | EndpointGenerator | TransformersGenerator) -> Sampling:
    found = Sampling(temperature=generator.temperature, top_p=generator.top_p, max_tokens=generator.max_tokens)
    if isinstance(generator, EmbeddedGenerator):
        return found
    return replace(found, min_p=generator.min_p, top_k=generator.top_k)


@contextmanager
def open_llm(study: Study) -> Iterator[OpenedLLM]:
    """The configured LLM: the embedded one started, a transformers model loaded, or the HTTP endpoint with its key.

    Raises:
        ConfigError: the environment variable is not set.
    """
    generator = study.config.generator
    with ExitStack() as stack:
        if isinstance(generator, EmbeddedGenerator):
            room = SHORT_TEXTS if study.config.task == "classification" else LONG_TEXTS
            llm = EmbeddedLLM(
                generator.gguf,
                slots=generator.slots or room.slots,
                context=generator.context or room.context,
                threads=generator.threads,
            )
            yield OpenedLLM(endpoint=stack.enter_context(llm).endpoint)
        elif isinstance(generator, TransformersGenerator):
            model = TransformersLLM(
                generator.model,
                device=generator.device,
                dtype=generator.dtype,
                batch=generator.batch,
                context=generator.context,
                api=generator.api,
                adapter=generator.adapter,
            )
            opened = stack.enter_context(model)
            yield OpenedLLM(endpoint=opened.endpoint, open_client=opened.open_client)
        elif isinstance(generator, EndpointGenerator):
            key = environ.get(generator.api_key_env) if generator.api_key_env else None
            if generator.api_key_env and not key:
                raise ConfigError(
                    f"generator.api_key_env: the environment variable {generator.api_key_env} is not set; export it"
                )
            yield OpenedLLM(
                endpoint=Endpoint(
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
                    prices=find_prices(study),
                    omit=generator.omit,
                    timeout_s=generator.timeout_s,
                    give_up_s=generator.give_up_s,
                )
            )


def nearest_rows(study: Study, queries: Sequence[str], candidates: Sequence[str]) -> list[int]:
    """For each query the index of the nearest candidate by cosine."""
    similarity = study.encoder.encode(queries) @ study.encoder.encode(candidates).T
    return [int(i) for i in similarity.argmax(axis=1)]
