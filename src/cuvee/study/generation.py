"""Pools that an LLM writes: asked for, searched for a target, kept in the run folder."""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from pydantic import TypeAdapter

from cuvee.config.dials import DialConfig, TargetConfig
from cuvee.config.generators import FileGenerator
from cuvee.config.opening import find_sampling
from cuvee.corpus import Corpus, write_table
from cuvee.defects import LeakFinder
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import ConfigError, GenerationError
from cuvee.execute import Listener, StageCounter
from cuvee.fingerprint import hash_value
from cuvee.generate.dials import PARTS, Dial, Slot, chosen_slots
from cuvee.generate.dials.slots import shared_request
from cuvee.generate.filling import AcceptanceRules
from cuvee.generate.ledger import Ledger, tell_spending
from cuvee.generate.parsing import WRITINGS
from cuvee.generate.pools import GenerationSpec, PoolMaker, fill_pools, write_quarantine
from cuvee.generate.targets import Score, Target, generate_to_target
from cuvee.measure import Subject, choose_metrics, draw_rows
from cuvee.records import Level
from cuvee.store import StoredPool
from cuvee.study import dials
from cuvee.study.prepare import Study, check_labels
from cuvee.study.running import hash_own

TARGETS = "targets.json"  # of the run folder: for each dial with a target the level found, and what was tried
# Of a pool's rows, all levels are measured at so many: each may miss some, and diversity depends on the number.
MATCHED = 0.9
ATTEMPTS = 12  # answers that a row may be given before it stays empty


def study_dials(study: Study) -> list[tuple[DialConfig, Dial]]:
    """The study's dials, with the topics and attributes that its LLM was, or now is, asked for.

    Raises:
        ConfigError: as :func:`make_dials`.
    """
    return dials.make_dials(study, dials.KeptLists(study))


def count_requests(study: Study, slots: Sequence[Slot]) -> int:
    """Requests of slots where every answer is usable: several rows may share one, and drafts are requests too."""
    rows = 1 if WRITINGS[study.writing.kind].is_single else dials.language_model(study).rows_per_request
    drafts = sum(slot.draft is not None and slot.parent is None for slot in slots)
    return len({shared_request(slot, rows) or (slot.block, slot.key) for slot in slots}) + drafts


@dataclass(frozen=True, slots=True, kw_only=True)
class DialPart:
    """Levels of a dial whose pools are wanted, in so many draws."""

    settings: DialConfig
    dial: Dial
    levels: Sequence[Level]
    blocks: range


def wanted_levels(
    study: Study, settings: DialConfig, dial: Dial, blocks: range, progress: StageCounter
) -> Sequence[Level]:
    """All levels of a dial; of one with a target the level that comes nearest to it, searched for once."""
    target = settings.target
    if target is None or isinstance(study.config.generator, FileGenerator):
        return dial.levels
    key = _pool_key(study, DialPart(settings=settings, dial=dial, levels=dial.levels, blocks=blocks))
    remedy = "the search is made again from the answers in ledger.sqlite"
    kept = study.folder.read_json(TARGETS, TypeAdapter(dict[str, object]), remedy) or {}
    entry = kept.get(dial.name)
    if isinstance(entry, Mapping) and entry.get("key") == key:
        known = [level for level in dial.levels if level.name == entry.get("level")]
        if known:
            return known
    rows = len(chosen_slots(study.writing.slots(dial, blocks, [dial.levels[0].name])))
    score = make_score(
        target.metric, rows=matched_rows(rows), encoder=study.encoder, against=study.train, seed=study.config.seed
    )
    with dials.open_llm(study) as llm, Ledger(study.folder.ledger_path) as ledger:
        spec, goal = make_spec(study, blocks), make_target(target)
        found = generate_to_target(study.train, spec, dial, llm, ledger, score=score, target=goal, progress=progress)
    made = {
        "key": "" if found.cut_short else key,  # with a larger budget the search goes on
        "level": found.level.name,
        "reached": found.reached,
        "score": found.score,
        "wanted": goal.value,
        "note": found.note,
        "tried": [{"level": t.level.name, "score": t.score, "rows": t.rows, "note": t.note} for t in found.history],
    }
    study.folder.save_text(TARGETS, json.dumps({**kept, dial.name: made}, indent=1, ensure_ascii=False))
    study.note(f"{dial.name}: {found.note}")
    progress.next_part()
    return [found.level]


def make_score(
    metric: str, *, rows: int, encoder: Encoder | None = None, against: Corpus | None = None, seed: int = 0
) -> Score:
    """A function that measures one metric on ``rows`` rows of a corpus, the same number for every corpus.

    It gives nan for a corpus of fewer rows, and where the metric is not defined: neither compares with the others.

    Args:
        metric: a name in METRICS, or ``module:Name``.
        rows: whole groups first, in a seeded order.
        encoder: for metrics of vectors; None loads the default one.
        against: the real training rows, for metrics that need them.
        seed: of the rows.

    Raises:
        ConfigError: no such metric.
    """
    (chosen,) = choose_metrics([metric])
    found = load_encoder() if encoder is None and "vectors" in chosen.needs else encoder

    def score(corpus: Corpus) -> float:
        if len(corpus) < rows:
            return math.nan
        subject = Subject(corpus=corpus, against=against, encoder=found, seed=seed)
        estimate = chosen.compute(draw_rows(subject, rows))
        return math.nan if estimate is None else estimate.value

    return score


def make_target(settings: TargetConfig) -> Target:
    """What is searched for."""
    return Target(
        metric_name=settings.metric, value=settings.value, tolerance=settings.near_enough, budget_rows=settings.rows
    )


def matched_rows(rows: int) -> int:
    """At how many rows pools of ``rows`` rows are measured, so that one that misses a few still compares."""
    return max(1, int(MATCHED * rows))


def guard_leaks(study: Study) -> Callable[[Sequence[str]], list[str | None]]:
    """Says of texts for each why it leaks validation or the locked test, or None; these are read once."""
    held_out, real, encode = study.held_out_texts(), study.train.texts, study.encoder.encode

    @cache
    def finder() -> LeakFinder:
        return LeakFinder(held_out, reference=real, held_out_vectors=encode(held_out), reference_vectors=encode(real))

    def find(texts: Sequence[str]) -> list[str | None]:
        found = finder().find(list(texts), encode(texts)).found if texts else ()
        reasons = {leak.row: f"leaks held-out data ({leak.reason})" for leak in found}
        return [reasons.get(row) for row in range(len(texts))]

    return find


def make_spec(study: Study, blocks: Sequence[int]) -> GenerationSpec:
    """What the study's LLM is to write in these draws, and what is accepted."""
    generator = dials.language_model(study)
    return replace(
        study.writing.spec,
        blocks=list(blocks),
        sampling=find_sampling(generator),
        rows_per_request=generator.rows_per_request,
        rules=AcceptanceRules(
            nearest=lambda queries, candidates: nearest_rows(study, queries, candidates),
            refuse=guard_leaks(study),
            agrees=check_labels(study),
            grounded=study.config.writing.grounded,
            keep_truncated=generator.truncated == "keep",
            attempts=ATTEMPTS,
        ),
    )


def generate_levels(
    study: Study, parts: Sequence[DialPart], progress: StageCounter, suffix: str = ""
) -> list[StoredPool]:
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
    study: Study, parts: Sequence[DialPart], keys: Mapping[Level, str], progress: StageCounter, suffix: str
) -> Iterator[StoredPool]:
    """Generate and save the pools of these levels, dial after dial."""
    with dials.open_llm(study) as llm, Ledger(study.folder.ledger_path) as ledger:
        part = "" if study.fold is None else f"fold {study.fold}"
        progress.show(tell_spending(ledger, llm.endpoint.prices, part))
        before = ledger.read_met().notes
        specs = {blocks: make_spec(study, blocks) for blocks in {part.blocks for part in parts}}
        makers = [
            PoolMaker(study.train, specs[part.blocks], part.dial, llm.endpoint, [level.name for level in part.levels])
            for part in parts
        ]
        fill_pools(makers, llm, ledger, progress)
        note_findings(study.stages.listener, ledger, before)
        for maker in makers:
            try:
                made = maker.compose(ledger)
            except GenerationError as exc:
                remedy = f" (cuvee generate {study.folder.path} --retry-failed)" if ledger.failures() else ""
                raise GenerationError(f"{exc}{remedy}") from exc
            for pool in made:
                if pool.short:
                    study.note(f"{pool.level.key}: {pool.note}")
                write_quarantine([pool], study.folder.beside_pool(pool.level, suffix, "quarantine"))
                write_table(pool.provenance, study.folder.beside_pool(pool.level, suffix, "provenance"))
                stored = StoredPool(
                    level=pool.level,
                    corpus=pool.corpus,
                    rejected=pool.rejected,
                    note=pool.note,
                    key=keys[pool.level],
                    failed=tuple(sorted({q.request_key for q in pool.quarantine} & ledger.failures().keys())),
                )
                study.folder.save_pool(stored, suffix)  # last: its presence says that the files beside it are whole
                yield stored


def _pool_key(study: Study, part: DialPart, suffix: str = "") -> str:
    """Hash of all that determines the pools of a part, other than the answers."""
    config, wanted = study.config, study.writing
    rows = wanted.spec.rows_per_label
    base = [dials.identify_generator(study), config.describe, config.seed, wanted.key, rows, list(part.blocks)]
    own = part.settings.model_dump(exclude={"draws"})
    listed = _listed(study, part) if dials.needs_lists(part.settings) else []
    code = hash_own(_list_names(own))
    seen = [study.train.fingerprint, study.encoder.hash, study.held_out_texts()]
    return hash_value([*seen, base, own, listed, suffix, *code])


def _list_names(section: object) -> list[str]:
    """The names of a dial, of the dials it is made of, and of the measure that its target is in."""
    if not isinstance(section, Mapping):
        return []
    own = [section.get(key) for key in ("name", "metric")]
    parts = [section.get(key) for key in (*PARTS, "target")]
    return [name for name in own if isinstance(name, str)] + [name for part in parts for name in _list_names(part)]


def _listed(study: Study, part: DialPart) -> list[str]:
    """The topics and attributes that rows of these levels are asked for with, as their lists now are."""
    slots = study.writing.slots(part.dial, part.blocks, [level.name for level in part.levels])
    return sorted({repr((s.label, s.topic, s.attributes)) for s in slots})


def nearest_rows(study: Study, queries: Sequence[str], candidates: Sequence[str]) -> list[int]:
    """For each query the index of the nearest candidate by cosine."""
    similarity = study.encoder.encode(queries) @ study.encoder.encode(candidates).T
    return [int(i) for i in similarity.argmax(axis=1)]


def retry_failed(study: Study) -> int:
    """Forget the requests that failed for good, so that pools that lack their rows are composed anew.

    Returns:
        How many there were.

    Raises:
        ConfigError: the study asks no LLM.
    """
    if study.config.generator.kind == "files":
        raise ConfigError("--retry-failed has no effect here: the pools of this study are files")
    if not study.folder.ledger_path.is_file():  # a fold that nothing was asked for yet
        return 0
    with Ledger(study.folder.ledger_path) as ledger:
        return ledger.forget_failures()


def lacks_forgotten(study: Study, pools: Iterable[StoredPool]) -> bool:
    """Whether one of these pools lacks rows of failed requests that the ledger has forgotten, to ask them again."""
    failed = {key for pool in pools for key in pool.failed}
    if not failed:
        return False
    with Ledger(study.folder.ledger_path) as ledger:
        return bool(failed - ledger.failures().keys())


def note_failed(study: Study, pools: Iterable[StoredPool]) -> None:
    """Where pools lack rows of failed requests, say how many failed in the run folder, and how to ask them again."""
    if not any(pool.failed for pool in pools):
        return
    with Ledger(study.folder.ledger_path) as ledger:
        reasons = Counter(failure.reason for failure in ledger.failures().values())
    kinds = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    requests, are = ("request", "is") if reasons.total() == 1 else ("requests", "are")
    study.note(
        f"{reasons.total()} {requests} failed for good ({kinds}) and {are} not asked again; "
        f"to ask again: cuvee generate {shlex.quote(str(study.folder.path))} --retry-failed"
    )


def note_findings(listener: Listener, ledger: Ledger, before: Collection[str]) -> None:
    """Say what was found out about the endpoint and is not among the notes of runs ``before``."""
    for note in ledger.met.notes:
        if note not in before:
            listener.noted(note)
