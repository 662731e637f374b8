"""Pools that an LLM writes: asked for, searched for a target, kept in the run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from cuvee.config import DialConfig, FileGenerator
from cuvee.corpus import write_table
from cuvee.errors import GenerationError
from cuvee.execute import Progress
from cuvee.fingerprint import hash_value
from cuvee.generate import (
    Dial,
    Ledger,
    Target,
    TargetResult,
    generate_pools,
    generate_to_target,
    provenance_table,
    write_quarantine,
)
from cuvee.generate.dials import wanted_slots
from cuvee.generate.dials.making import PARTS
from cuvee.generate.spending import Meter
from cuvee.generate.targets import Score
from cuvee.records import Level
from cuvee.store import StoredPool
from cuvee.study.dials import make_dials
from cuvee.study.generators import (
    SPEED,
    find_sampling,
    identify_generator,
    open_llm,
)
from cuvee.study.guard import LeakGuard
from cuvee.study.lists import KeptLists, needs_lists
from cuvee.study.running import hash_own
from cuvee.study.setup import Study
from cuvee.study.spending import account_pool, find_prices, lacks_forgotten, note_findings
from cuvee.study.targets import known_level, reach_target
from cuvee.study.writing import check_labels, commission

__all__ = ["ATTEMPTS", "SPEED", "generate_levels", "nearest_rows", "open_llm", "study_dials", "wanted_levels"]

ATTEMPTS = 12
"""Answers that a row may be given before it stays empty."""


def study_dials(study: Study) -> list[tuple[DialConfig, Dial]]:
    """The study's dials, with the topics and attributes that its LLM was, or now is, asked for.

    Raises:
        ConfigError: as :func:`make_dials`.
    """
    return make_dials(study, KeptLists(study, open_llm))


def wanted_levels(study: Study, settings: DialConfig, dial: Dial, blocks: range, progress: Progress) -> Sequence[Level]:
    """All levels of a dial; of one with a target the level that comes nearest to it, searched for once."""
    config, target, generator = study.config, settings.target, study.config.generator
    if target is None or isinstance(generator, FileGenerator):
        return dial.levels
    wanted = commission(study)
    key = _pool_key(study, settings, dial, dial.levels, blocks)
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
                sampling=find_sampling(generator),
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
    keys = {level: _pool_key(study, settings, dial, [level], blocks, suffix) for level in levels}
    stored = {level: study.folder.load_pool(level, keys[level], suffix) for level in levels}
    kept = [pool for pool in stored.values() if pool is not None]
    if len(kept) == len(levels) and not lacks_forgotten(study, kept):
        return kept
    prices = find_prices(study)
    with open_llm(study) as llm, Ledger(study.folder.ledger_path) as ledger:
        progress.show(Meter(ledger, prices))
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
                sampling=find_sampling(config.generator),
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
        pools = [account_pool(study, pool, keys[pool.level], ledger, sessions) for pool in made]
    for short in (pool for pool in made if pool.short):
        study.stages.listener.noted(f"{short.level.key}: {short.note}")
    for pool, details in zip(pools, made, strict=True):
        write_quarantine([details], study.folder.beside_pool(pool.level, suffix, "quarantine"))
        write_table(provenance_table(details), study.folder.beside_pool(pool.level, suffix, "provenance"))
        study.folder.save_pool(pool, suffix)  # last: its presence says that the files beside it are whole
    return pools


def _pool_key(
    study: Study, settings: DialConfig, dial: Dial, levels: Sequence[Level], blocks: range, suffix: str = ""
) -> str:
    """Hash of all that determines the pools of these levels, other than the answers."""
    config, wanted = study.config, commission(study)
    base = [identify_generator(study), config.describe, config.seed, wanted.key, wanted.rows, list(blocks)]
    own = settings.model_dump(exclude={"draws"})
    listed = _listed(study, dial, levels, blocks) if needs_lists(settings) else []
    code = hash_own(_list_names(own))
    return hash_value([study.train.fingerprint, study.encoder.hash, base, own, listed, suffix, *code])


def _list_names(section: object) -> list[str]:
    """The names of a dial, of the dials it is made of, and of the measure that its target is in."""
    if not isinstance(section, Mapping):
        return []
    own = [section.get(key) for key in ("name", "metric")]
    parts = [section.get(key) for key in (*PARTS, "target")]
    return [name for name in own if isinstance(name, str)] + [name for part in parts for name in _list_names(part)]


def _listed(study: Study, dial: Dial, levels: Sequence[Level], blocks: range) -> list[str]:
    """The topics and attributes that rows of these levels are asked for with, as their lists now are."""
    wanted = commission(study)
    names = [level.name for level in levels]
    batches = dial.batches(list(wanted.strata), blocks=list(blocks), rows_per_label=wanted.rows, levels=names)
    return sorted({repr((s.label, s.topic, s.attributes)) for s in wanted_slots(batches).values()})


@contextmanager
def _explaining_failed(study: Study, ledger: Ledger) -> Iterator[None]:
    """Where rows are missing and requests failed for good, say how to ask these again."""
    try:
        yield
    except GenerationError as exc:
        if not ledger.failures():
            raise
        raise GenerationError(f"{exc} (cuvee generate {study.folder.path} --retry-failed)") from exc


def nearest_rows(study: Study, queries: Sequence[str], candidates: Sequence[str]) -> list[int]:
    """For each query the index of the nearest candidate by cosine."""
    similarity = study.encoder.encode(queries) @ study.encoder.encode(candidates).T
    return [int(i) for i in similarity.argmax(axis=1)]
