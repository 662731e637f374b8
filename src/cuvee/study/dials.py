"""The LLM of a study, and its dials with the lists that they ask it for; what pools, lists and prices know them by."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, TypeAdapter

from cuvee.characters import check_name
from cuvee.config import generators
from cuvee.config.dials import AttributesConfig, CombinedConfig, DialConfig, TopicsConfig
from cuvee.config.opening import make_endpoint, open_model
from cuvee.errors import ConfigError
from cuvee.fingerprint import hash_value
from cuvee.generate.asking import ListAsker
from cuvee.generate.calls import Endpoint
from cuvee.generate.client import OpenedLLM
from cuvee.generate.dials import Dial, Setting, make_dial, texts_by_label, topics_from_words
from cuvee.generate.ledger import Ledger, settle_identity
from cuvee.measure import choose_metrics
from cuvee.model_files import MODEL_SUFFIXES, SMOLLM2_SHA256, hash_path
from cuvee.store import RunFolder
from cuvee.study.prepare import Study

MODELS = "models.json"  # of the run folder: the hash of every model file and folder that the study used
# Of the run folder: every list that was asked for, for the user to read or edit, and for the next call to use.
ASKED = "asked.json"

# Settings that answers do not depend on.
SPEED = {
    *("slots", "threads", "concurrency", "timeout_s", "give_up_s", "api_key_env"),
    *("budget", "prices", "batch"),
}
# Settings of how rows are drawn.
DRAWING = {"temperature", "top_p", "min_p", "top_k", "max_tokens", "truncated", "rows_per_request"}
_SAID_OTHERWISE = {"base_url", "gguf"}  # settings that an identity stands for


def language_model(study: Study) -> generators.LanguageModel:
    """The generator of a study that asks an LLM.

    Raises:
        ConfigError: its pools are files.
    """
    generator = study.config.generator
    if isinstance(generator, generators.FileGenerator):
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
    if isinstance(generator, generators.EmbeddedGenerator):
        known_by = [SMOLLM2_SHA256 if generator.gguf is None else hash_model(folder, generator.gguf)]
    elif isinstance(generator, generators.EndpointGenerator):
        known_by = [_settled_endpoint(study, generator).identity]
    else:
        own = hash_model(folder, generator.model)
        known_by = [own or "", ""]  # the second was an adapter's, in keys of pools
        hidden = hidden | ({"model"} if own else set())
    return hash_value([[*known_by, generator.model_dump(mode="json", exclude=hidden)]])


def _settled_endpoint(study: Study, part: generators.EndpointGenerator) -> Endpoint:
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
    made again (:func:`~cuvee.study.generation.generate_levels` looks at what rows are asked for with).

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
