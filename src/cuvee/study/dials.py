"""From the dials of a config to dials that know the study's training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from cuvee.characters import check_name
from cuvee.config import AttributesConfig, CombinedConfig, DialConfig, ExamplesConfig, TopicsConfig
from cuvee.errors import ConfigError
from cuvee.fingerprint import derive_seed
from cuvee.generate import Dial, make_dial, order_examples, topics_from_words
from cuvee.generate.dials import Branches, Setting, texts_by_label
from cuvee.study.setup import Study
from cuvee.study.targets import check_target
from cuvee.study.writing import study_writing

_OF_THE_STUDY = {"name", "draws", "target"}
"""Keys of a dial's section that are no settings of the dial; below, those that say how to find one."""
_LOOKED_UP = {TopicsConfig: {"degree"}, ExamplesConfig: {"selection"}, AttributesConfig: {"count", "values"}}


class Asker(Protocol):
    """Gives the lists that dials ask an LLM for."""

    def topics(self, texts: Mapping[str, Sequence[str]], degree: Sequence[int]) -> Mapping[str, Branches]:
        """Label -> topics, subtopics and so on, of so many branches at each depth."""

    def attributes(self, texts: Mapping[str, Sequence[str]], *, count: int, values: int) -> Mapping[str, Sequence[str]]:
        """Attribute -> its values."""


class StandIns:
    """An asker that asks nobody: lists of the right shape, to check a study before a token is spent."""

    def topics(self, texts: Mapping[str, Sequence[str]], degree: Sequence[int]) -> Mapping[str, Branches]:
        """Topics called ``topic 1``, ``topic 2``, ..."""
        return {label: _stand_in_tree(degree) for label in texts}

    def attributes(self, texts: Mapping[str, Sequence[str]], *, count: int, values: int) -> Mapping[str, Sequence[str]]:
        """Attributes called ``attribute 1``, ..., with values called ``value 1``, ..."""
        return {f"attribute {i + 1}": [f"value {j + 1}" for j in range(values)] for i in range(count if texts else 0)}


def make_dials(study: Study, ask: Asker | None = None) -> list[tuple[DialConfig, Dial]]:
    """Every dial of the study, with its section of the config, in order.

    Args:
        study: the prepared study.
        ask: gives the topics and attributes that are to be asked from the LLM; None where no dial needs them.

    Raises:
        ConfigError: settings that do not fit together, naming dial and setting; two dials of one name; or a dial whose
            lists are to be asked for, without ``ask``.
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


def _read_settings(study: Study, settings: DialConfig, ask: Asker | None) -> Mapping[str, Setting]:
    """The keyword arguments of a dial: its section, and what has to be looked up in the training rows or asked for."""
    hidden = _OF_THE_STUDY | _LOOKED_UP.get(type(settings), set())
    found = cast("dict[str, Setting]", settings.model_dump(exclude=hidden, exclude_none=True))
    if isinstance(settings, CombinedConfig):
        for part, inner in (("first", settings.first), ("second", settings.second)):
            found[part] = {"name": inner.name, **_read_settings(study, inner, ask)}
    if isinstance(settings, TopicsConfig) and settings.topics == "data":
        found["topics"] = topics_from_words(texts_by_label(study.train), max(settings.levels), seed=study.config.seed)
    if isinstance(settings, TopicsConfig) and settings.topics == "llm":
        degree = settings.degree or (max(settings.levels),)
        found["topics"] = _need(ask, "topics: llm").topics(texts_by_label(study.train), degree)
    if isinstance(settings, AttributesConfig) and settings.dimensions == "llm":
        found["dimensions"] = _need(ask, "dimensions: llm").attributes(
            texts_by_label(study.train), count=settings.asked_count, values=settings.asked_values
        )
    if isinstance(settings, ExamplesConfig) and settings.selection != "random":
        found["order"] = order_examples(
            study.train,
            study.encoder.encode(study.train.texts),
            selection=settings.selection,
            seed=derive_seed(study.config.seed, "examples"),
            count=max(settings.levels),
            strata={name: list(found.rows) for name, found in study_writing(study).strata.items()},
        )
    return found


def _need(ask: Asker | None, key: str) -> Asker:
    if ask is None:
        raise ConfigError(f"{key} has to be asked from the generator, and none is at hand here; give the list by hand")
    return ask


def _stand_in_tree(degree: Sequence[int]) -> Branches:
    names = [f"topic {number + 1}" for number in range(degree[0])]
    return names if len(degree) == 1 else {name: _stand_in_tree(degree[1:]) for name in names}
