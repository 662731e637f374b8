"""Pools that an LLM writes: asked for, searched for a target, kept in the run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from cuvee.config import DialConfig, FileGenerator
from cuvee.corpus import write_table
from cuvee.defects import LeakFinder
from cuvee.errors import GenerationError
from cuvee.execute import Progress
from cuvee.fingerprint import hash_value
from cuvee.generate import (
    AcceptanceRules,
    Dial,
    GenerationSpec,
    Ledger,
    PoolMaker,
    Target,
    TargetResult,
    fill_pools,
    generate_to_target,
    write_quarantine,
)
from cuvee.generate.dials import PARTS, wanted_slots
from cuvee.generate.spending import Meter
from cuvee.generate.targets import Score
from cuvee.records import Level
from cuvee.store import StoredPool
from cuvee.study.dials import make_dials
from cuvee.study.generators import (
    SPEED,
    find_sampling,
    identify_generator,
    language_model,
    open_llm,
)
from cuvee.study.lists import KeptLists, needs_lists
from cuvee.study.running import hash_own
from cuvee.study.setup import Study
from cuvee.study.spending import find_prices, lacks_forgotten, note_findings, store_pool
from cuvee.study.targets import known_level, reach_target
from cuvee.study.writing import check_labels, study_writing

__all__ = [
    "ATTEMPTS",
    "SPEED",
    "DialPart",
    "LeakGuard",
    "generate_levels",
    "nearest_rows",
    "open_llm",
    "study_dials",
    "wanted_levels",
]

ATTEMPTS = 12
"""Answers that a row may be given before it stays empty."""


def study_dials(study: Study) -> list[tuple[DialConfig, Dial]]:
    """The study's dials, with the topics and attributes that its LLM was, or now is, asked for.

    Raises:
        ConfigError: as :func:`make_dials`.
    """
    return make_dials(study, KeptLists(study, open_llm))


@dataclass(frozen=True, slots=True, kw_only=True)
class DialPart:
    """Levels of a dial whose pools are wanted, in so many draws."""

    settings: DialConfig
    dial: Dial
    levels: Sequence[Level]
    blocks: range


def wanted_levels(study: Study, settings: DialConfig, dial: Dial, blocks: range, progress: Progress) -> Sequence[Level]:
    """All levels of a dial; of one with a target the level that comes nearest to it, searched for once."""
    target = settings.target
    if target is None or isinstance(study.config.generator, FileGenerator):
        return dial.levels
    key = _pool_key(study, DialPart(settings=settings, dial=dial, levels=dial.levels, blocks=blocks))
    if (known := known_level(study, dial, key)) is not None:
        return [known]
    with open_llm(study) as llm, Ledger(study.folder.ledger_path) as ledger:

        def search(score: Score, target: Target) -> TargetResult:
            spec = make_spec(study, blocks)
            return generate_to_target(
                study.train, spec, dial, llm, ledger, score=score, target=target, progress=progress
            )

        found = reach_target(study, target, dial, blocks=blocks, key=key, search=search)
    progress.next_part()
    return [found.level]


class LeakGuard:
    """Says of texts which of them leak validation or the locked test; what they are compared with is read once."""

    def __init__(self, study: Study) -> None:
        self._held_out = study.held_out_texts()
        self._reference = study.train.texts
        self._encoder = study.encoder

    @cached_property
    def _finder(self) -> LeakFinder:
        return LeakFinder(
            self._held_out,
            reference=self._reference,
            held_out_vectors=self._encoder.encode(self._held_out),
            reference_vectors=self._encoder.encode(self._reference),
        )

    def reasons(self, texts: Sequence[str]) -> list[str | None]:
        """For each text why it leaks, or None."""
        reasons: list[str | None] = [None] * len(texts)
        if not texts:
            return reasons
        for leak in self._finder.find(list(texts), self._encoder.encode(texts)).found:
            reasons[leak.row] = f"leaks held-out data ({leak.reason})"
        return reasons


def make_spec(study: Study, blocks: Sequence[int]) -> GenerationSpec:
    """What the study's LLM is to write in these draws, and what is accepted."""
    config, wanted, generator = study.config, study_writing(study), language_model(study)
    return GenerationSpec(
        rows_per_label=wanted.rows,
        blocks=list(blocks),
        sampling=find_sampling(generator),
        describe=config.describe,
        seed=config.seed,
        kind=wanted.kind,
        sources=wanted.sources,
        prompts=wanted.prompts,
        rules=AcceptanceRules(
            nearest=lambda queries, candidates: nearest_rows(study, queries, candidates),
            refuse=LeakGuard(study).reasons,
            near_duplicate=config.writing.near_duplicate,
            agrees=check_labels(study),
            keep_truncated=generator.truncated == "keep",
            attempts=ATTEMPTS,
        ),
    )


def generate_levels(study: Study, parts: Sequence[DialPart], progress: Progress, suffix: str = "") -> list[StoredPool]:
    """Pools of these levels in these draws: loaded if they were made before, else generated and saved.

    The rows of all dials are asked for together: while requests of one wait to be tried again, those of others go on.
    Pools that lack rows of failed requests are loaded too, unless the ledger has forgotten one of these failures.
    """
    keys = {level: _pool_key(study, replace(part, levels=[level]), suffix) for part in parts for level in part.levels}
    kept: dict[Level, StoredPool] = {}
    missing: list[DialPart] = []
    for part in parts:
        found = [study.folder.load_pool(level, keys[level], suffix) for level in part.levels]
        whole = [pool for pool in found if pool is not None]
        if len(whole) < len(found) or lacks_forgotten(study, whole):
            missing.append(part)
        else:
            kept |= {pool.level: pool for pool in whole}
    if missing:
        kept |= {pool.level: pool for pool in _generate(study, missing, keys, progress, suffix)}
    return [kept[level] for part in parts for level in part.levels]


def _generate(
    study: Study, parts: Sequence[DialPart], keys: Mapping[Level, str], progress: Progress, suffix: str
) -> Iterator[StoredPool]:
    """Generate and save the pools of these levels, dial after dial."""
    fold = study.fold
    with open_llm(study) as llm, Ledger(study.folder.ledger_path) as ledger:
        progress.show(Meter(ledger, find_prices(study.config), part="" if fold is None else f"fold {fold}"))
        before = ledger.sessions()
        specs = {blocks: make_spec(study, blocks) for blocks in {part.blocks for part in parts}}
        makers = [
            PoolMaker(study.train, specs[part.blocks], part.dial, llm.endpoint, [level.name for level in part.levels])
            for part in parts
        ]
        fill_pools(makers, llm, ledger, progress)
        note_findings(study.stages.listener, before, ledger.sessions()[len(before) :])
        for maker in makers:
            with _explaining_failed(study, ledger):
                made = maker.compose(ledger)
            for pool in made:
                if pool.short:
                    study.stages.listener.noted(f"{pool.level.key}: {pool.note}")
                write_quarantine([pool], study.folder.beside_pool(pool.level, suffix, "quarantine"))
                write_table(pool.provenance, study.folder.beside_pool(pool.level, suffix, "provenance"))
                stored = store_pool(pool, keys[pool.level], ledger)
                study.folder.save_pool(stored, suffix)  # last: its presence says that the files beside it are whole
                yield stored


def _pool_key(study: Study, part: DialPart, suffix: str = "") -> str:
    """Hash of all that determines the pools of a part, other than the answers."""
    config, wanted = study.config, study_writing(study)
    base = [identify_generator(study), config.describe, config.seed, wanted.key, wanted.rows, list(part.blocks)]
    own = part.settings.model_dump(exclude={"draws"})
    listed = _listed(study, part) if needs_lists(part.settings) else []
    code = hash_own(_list_names(own))
    return hash_value([study.train.fingerprint, study.encoder.hash, base, own, listed, suffix, *code])


def _list_names(section: object) -> list[str]:
    """The names of a dial, of the dials it is made of, and of the measure that its target is in."""
    if not isinstance(section, Mapping):
        return []
    own = [section.get(key) for key in ("name", "metric")]
    parts = [section.get(key) for key in (*PARTS, "target")]
    return [name for name in own if isinstance(name, str)] + [name for part in parts for name in _list_names(part)]


def _listed(study: Study, part: DialPart) -> list[str]:
    """The topics and attributes that rows of these levels are asked for with, as their lists now are."""
    wanted, names = study_writing(study), [level.name for level in part.levels]
    slots = wanted_slots(part.dial, list(wanted.strata), blocks=part.blocks, rows_per_label=wanted.rows, levels=names)
    return sorted({repr((s.label, s.topic, s.attributes)) for s in slots.values()})


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
