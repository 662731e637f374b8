"""The LLM of a study, its dials with the lists that they ask it for, and the pools that it writes."""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, TypeAdapter

from cuvee.characters import check_name
from cuvee.config.dials import AttributesConfig, CombinedConfig, DialConfig, TopicsConfig
from cuvee.config.generators import SPEED, EmbeddedGenerator, EndpointGenerator, FileGenerator, LanguageModel
from cuvee.config.opening import find_sampling, make_endpoint, open_model
from cuvee.corpus import Corpus, write_table
from cuvee.defects import LeakFinder
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import ConfigError, GenerationError
from cuvee.execute import Listener, StageCounter
from cuvee.fingerprint import hash_value
from cuvee.generate.asking import ListAsker
from cuvee.generate.calls import Endpoint
from cuvee.generate.client import OpenedLLM
from cuvee.generate.dials import PARTS, Dial, Setting, Slot, make_dial, texts_by_label, topics_from_words
from cuvee.generate.dials.slots import chosen_slots, shared_request
from cuvee.generate.filling import AcceptanceRules
from cuvee.generate.ledger import Ledger, settle_identity, tell_spending
from cuvee.generate.parsing import WRITINGS
from cuvee.generate.pools import GenerationSpec, PoolMaker, fill_pools, write_quarantine
from cuvee.generate.targets import Score, generate_to_target
from cuvee.measure import Subject, choose_metrics, draw_rows
from cuvee.model_files import MODEL_SUFFIXES, SMOLLM2_SHA256, hash_path
from cuvee.records import Level
from cuvee.registry import hash_own
from cuvee.store import RunFolder, StoredPool
from cuvee.study.prepare import Study, check_labels

MODELS = "models.json"  # of the run folder: the hash of every model file and folder that the study used
# Of the run folder: every list that was asked for, for the user to read or edit, and for the next call to use.
ASKED = "asked.json"

# Settings of how rows are drawn.
DRAWING = {"temperature", "top_p", "min_p", "top_k", "max_tokens", "truncated", "rows_per_request"}
_SAID_OTHERWISE = {"base_url", "gguf"}  # settings that an identity stands for


def language_model(study: Study) -> LanguageModel:
    """The generator of a study that asks an LLM.

    Raises:
        ConfigError: its pools are files.
    """
    generator = study.config.generator
    if isinstance(generator, FileGenerator):
        raise ConfigError("generator.kind is files: there is nothing to ask an LLM for")
    return generator


def identify_generator(study: Study, leave_out: frozenset[str] = frozenset()) -> str:
    """Hash of what determines the answers of the study's LLM.

    A model's file or folder counts by its contents, an endpoint by the identity that the ledger knows it by: replicas
    that come and go change nothing.

    Args:
        study: whose LLM.
        leave_out: settings that do not matter to what is asked.
    """
    generator, folder = language_model(study), study.folder
    hidden = SPEED | _SAID_OTHERWISE | leave_out
    if isinstance(generator, EmbeddedGenerator):
        known_by = [SMOLLM2_SHA256 if generator.gguf is None else hash_model(folder, generator.gguf)]
    elif isinstance(generator, EndpointGenerator):
        known_by = [_settled_endpoint(study, generator).identity]
    else:
        own = hash_model(folder, generator.model)
        known_by = [own or "", ""]  # the second was an adapter's, in keys of pools
        hidden = hidden | ({"model"} if own else set())
    return hash_value([[*known_by, generator.model_dump(mode="json", exclude=hidden)]])


def _settled_endpoint(study: Study, part: EndpointGenerator) -> Endpoint:
    """The endpoint of a section, under the identity that the run folder's ledger knows it by; without its key."""
    endpoint = make_endpoint(part, key=None)
    if not study.folder.ledger_path.is_file():
        return endpoint
    with Ledger(study.folder.ledger_path) as ledger:
        return settle_identity(endpoint, ledger)


def open_llm(study: Study) -> AbstractContextManager[OpenedLLM]:
    """The configured LLM, as :func:`open_model` opens it; a ConfigError where the study asks none."""
    return open_model(language_model(study), study.config.task)


# --- what model files hold ---
_HASHES = TypeAdapter(dict[str, str])


def hash_model(folder: RunFolder, given: str) -> str | None:
    """SHA-256 of a file, or of the model files of a folder; None of what is no path here (a name on the hub).

    The run folder remembers it: a path that is there no more goes by the hash that it last had, so that what it wrote
    stays usable.
    """
    path = Path(given.removeprefix("hf:")).expanduser()
    remedy = "model files are hashed again; pools of a model that is no longer there need it back"
    known, name = folder.read_json(MODELS, _HASHES, remedy) or {}, str(path.absolute())
    if not path.exists():
        return known.get(name)
    files = sorted(p for p in path.iterdir() if p.suffix in MODEL_SUFFIXES) if path.is_dir() else [path]
    stats = [(file.name, file.stat()) for file in files if file.is_file()]
    found = _hash_model(path, tuple((name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in stats))
    if known.get(name) != found:
        folder.save_text(MODELS, json.dumps({**known, name: found}, indent=1))
    return found


@cache
def _hash_model(path: Path, files: tuple[tuple[str, int, int, int, int], ...]) -> str:
    """Hashed again when a file there has another size, time of change or inode.

    The time of change (ctime) moves with every write, whatever time of modification a copy is given.
    """
    del files
    return hash_path(path)


# --- lists that are asked for ---
# Settings of a generator, beside its speed, that lists do not depend on.
_NO_MATTER = frozenset({"context", "omit", "extra_body", "system"} | DRAWING)


def needs_lists(settings: DialConfig) -> bool:
    """Whether a dial's topics or attributes are asked from the LLM."""
    if isinstance(settings, CombinedConfig):
        return needs_lists(settings.first) or needs_lists(settings.second)
    if isinstance(settings, TopicsConfig):
        return settings.topics == "llm"
    return isinstance(settings, AttributesConfig) and settings.dimensions == "llm"


class KeptLists:
    """The lists of a study, from its run folder; the LLM is started only for those that are not there yet.

    What stands in the file holds: a list that was edited by hand is used as it now is, and the pools that use it are
    made again (:func:`generate_levels` looks at what rows are asked for with).

    Args:
        study: whose lists.
        start: starts its LLM.
    """

    def __init__(self, study: Study, start: Callable[[Study], AbstractContextManager[OpenedLLM]] = open_llm) -> None:
        self._study, self._start = study, start

    def find(
        self, asked: Literal["topics", "attributes"], texts: Mapping[str, Sequence[str]], **counts: int
    ) -> Mapping[str, Sequence[str]]:
        """What :meth:`ListAsker.topics` or :meth:`ListAsker.attributes` gives for these texts and counts.

        Raises:
            ConfigError, EndpointError: as there.
            RunFolderError: the file is not what was written.
        """
        config, folder = self._study.config, self._study.folder
        who = identify_generator(self._study, leave_out=_NO_MATTER)
        question: dict[str, object] = {"asked": asked, **counts}
        key = hash_value([who, config.describe, config.seed, question, texts])
        kept = folder.read_json(ASKED, _KEPT, _REMEDY) or {}
        if key not in kept:
            with self._start(self._study) as llm, Ledger(folder.ledger_path) as ledger:
                asker = ListAsker(llm, ledger, describe=config.describe, seed=config.seed)
                kept[key] = {**question, "describe": config.describe, "found": getattr(asker, asked)(texts, **counts)}
            folder.save_text(ASKED, json.dumps(kept, indent=1, ensure_ascii=False))
        return cast("Mapping[str, Sequence[str]]", kept[key]["found"])


def _check_found(entry: dict[str, object]) -> dict[str, object]:
    """See that an entry holds what was found: names, and under each a list or more names."""
    found = entry.get("found")
    if not isinstance(found, dict) or not all(isinstance(below, dict | list) for below in found.values()):
        raise ValueError("it is not what was written there")
    return entry


_KEPT = TypeAdapter(dict[str, Annotated[dict[str, object], AfterValidator(_check_found)]])
_REMEDY = "its lists are made again from the answers in ledger.sqlite; changes made by hand are lost"


# --- dials ---
_OF_THE_STUDY = {"name", "draws", "target"}  # keys of a dial's section that are no settings of the dial


def make_dials(study: Study, ask: KeptLists | None = None) -> list[tuple[DialConfig, Dial]]:
    """Every dial of the study, with its section of the config, in order.

    Args:
        study: the prepared study.
        ask: gives the topics and attributes that are to be asked from the LLM; None takes lists of the right shape in
            their place, to check and count before a token is spent.

    Raises:
        ConfigError: settings that do not fit together, naming dial and setting; or two dials of one name.
        EndpointError: a list had to be asked for, and the endpoint failed.
    """
    made: list[tuple[DialConfig, Dial]] = []
    for number, settings in enumerate(study.config.dials):
        try:
            dial = make_dial(settings.name, _read_settings(study, settings, ask))
            for name in (dial.name, *(level.name for level in dial.levels)):
                check_name(name)
            check_target(study, settings, dial)
            made.append((settings, dial))
        except (ConfigError, ValueError) as exc:
            raise ConfigError(f"dials.{number}: {exc}") from exc
    names = [dial.name for _, dial in made]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"dial {name!r} is listed twice; put all its levels into one entry")
    return made


def _read_settings(study: Study, settings: DialConfig, ask: KeptLists | None) -> Mapping[str, Setting]:
    """The keyword arguments of a dial: its section, and what has to be looked up in the training rows or asked for."""
    hidden = _OF_THE_STUDY | ({"count", "values"} if isinstance(settings, AttributesConfig) else set())
    found = cast("dict[str, Setting]", settings.model_dump(exclude=hidden, exclude_none=True))
    if isinstance(settings, CombinedConfig):
        for part, inner in (("first", settings.first), ("second", settings.second)):
            found[part] = {"name": inner.name, **_read_settings(study, inner, ask)}
    if isinstance(settings, TopicsConfig) and settings.topics == "data":
        found["topics"] = topics_from_words(texts_by_label(study.train), max(settings.levels), seed=study.config.seed)
    if isinstance(settings, TopicsConfig) and settings.topics == "llm":
        texts, count = texts_by_label(study.train), max(settings.levels)
        found["topics"] = {label: [f"topic {number + 1}" for number in range(count)] for label in texts}
        if ask is not None:
            found["topics"] = ask.find("topics", texts, count=count)
    if isinstance(settings, AttributesConfig) and settings.dimensions == "llm":
        count, values = settings.count, settings.values
        found["dimensions"] = {f"attribute {i + 1}": [f"value {j + 1}" for j in range(values)] for i in range(count)}
        if ask is not None:
            found["dimensions"] = ask.find("attributes", texts_by_label(study.train), count=count, values=values)
    return found


def check_target(study: Study, settings: DialConfig, dial: Dial) -> None:
    """Check a dial's target, if it has one, before anything is asked.

    Raises:
        ConfigError: no such metric, or ``rows`` that do not reach the first level of the dial.
    """
    target = settings.target
    if target is None:
        return
    choose_metrics([target.metric])
    needed = len(study.writing.slots(dial, range(study.draws_of(settings)), [dial.levels[0].name]))
    if target.rows is not None and target.rows < needed:
        raise ConfigError(f"target.rows is {target.rows}; level {dial.levels[0].key} alone needs {needed} rows")


# --- pools ---
TARGETS = "targets.json"  # of the run folder: for each dial with a target the level found, and what was tried
# Of a pool's rows, all levels are measured at so many: each may miss some, and diversity depends on the number.
MATCHED = 0.9
ATTEMPTS = 12  # answers that a row may be given before it stays empty


def study_dials(study: Study) -> list[tuple[DialConfig, Dial]]:
    """The study's dials, with the topics and attributes that its LLM was, or now is, asked for.

    Raises:
        ConfigError: as :func:`make_dials`.
    """
    return make_dials(study, KeptLists(study))


def count_requests(study: Study, slots: Sequence[Slot]) -> int:
    """Requests of slots where every answer is usable: several rows may share one, and drafts are requests too."""
    rows = 1 if WRITINGS[study.writing.kind].is_single else language_model(study).rows_per_request
    drafts = sum(slot.draft is not None and slot.parent is None for slot in slots)
    return len({shared_request(slot, rows) or (slot.block, slot.key) for slot in slots}) + drafts


@dataclass(frozen=True, slots=True, kw_only=True)
class DialPart:
    """Levels of a dial whose pools are wanted, in so many draws."""

    settings: DialConfig
    dial: Dial
    levels: Sequence[Level]
    blocks: range


def wanted_levels(study: Study, part: DialPart, progress: StageCounter) -> Sequence[Level]:
    """The levels of a part; of a dial with a target the one that comes nearest to it, searched for once."""
    dial, blocks, target = part.dial, part.blocks, part.settings.target
    if target is None:
        return part.levels
    key = _pool_key(study, part)
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
    with open_llm(study) as llm, Ledger(study.folder.ledger_path) as ledger:
        spec, goal = make_spec(study, blocks), target.target()
        found = generate_to_target(study.train, spec, dial, llm, ledger, score=score, target=goal, progress=progress)
    made = {
        "key": "" if found.cut_short else key,  # with a larger budget the search goes on
        "level": found.pool.level.name,
        "reached": found.reached,
        "score": found.score,
        "wanted": goal.value,
        "note": found.note,
        "tried": [{"level": t.level.name, "score": t.score, "rows": t.rows, "note": t.note} for t in found.history],
    }
    study.folder.save_text(TARGETS, json.dumps({**kept, dial.name: made}, indent=1, ensure_ascii=False))
    study.note(f"{dial.name}: {found.note}")
    progress.next_part()
    return [found.pool.level]


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
    generator = language_model(study)
    rules = AcceptanceRules(
        nearest=lambda queries, candidates: nearest_rows(study, queries, candidates),
        refuse=guard_leaks(study),
        agrees=check_labels(study),
        grounded=study.config.writing.grounded,
        keep_truncated=generator.truncated == "keep",
        attempts=ATTEMPTS,
    )
    sampling, rows = find_sampling(generator), generator.rows_per_request
    return replace(study.writing.spec, blocks=list(blocks), sampling=sampling, rows_per_request=rows, rules=rules)


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
    with open_llm(study) as llm, Ledger(study.folder.ledger_path) as ledger:
        part = "" if study.fold is None else f"fold {study.fold}"
        progress.show(tell_spending(ledger, llm.endpoint.prices, part))
        before = ledger.read_met().notes
        specs = {blocks: make_spec(study, blocks) for blocks in {part.blocks for part in parts}}
        makers = [
            PoolMaker(study.train, specs[p.blocks], p.dial, llm.endpoint, [k.name for k in p.levels]) for p in parts
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
    base = [identify_generator(study), config.describe, config.seed, wanted.key, rows, list(part.blocks)]
    own = part.settings.model_dump(exclude={"draws"})
    listed = _listed(study, part) if needs_lists(part.settings) else []
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
