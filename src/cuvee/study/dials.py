"""From the dials of a config to dials that know the study's training rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from cuvee.config import CombinedConfig, DialConfig, ExamplesConfig, TopicsConfig
from cuvee.errors import ConfigError
from cuvee.fingerprint import derive_seed
from cuvee.generate import Dial, make_dial, order_examples, topics_from_words
from cuvee.generate.dials import Setting
from cuvee.study.setup import Study

_OF_THE_STUDY = ("name", "draws", "selection")


def make_dials(study: Study) -> list[tuple[DialConfig, Dial]]:
    """Every dial of the study, with its section of the config, in order.

    Raises:
        ConfigError: settings that do not fit together, naming dial and setting; or two dials of one name.
    """
    made: list[tuple[DialConfig, Dial]] = []
    for number, settings in enumerate(study.config.dials):
        try:
            made.append((settings, make_dial(settings.name, _read_settings(study, settings))))
        except ConfigError as exc:
            raise ConfigError(f"dials.{number}: {exc}") from exc
    names = [dial.name for _, dial in made]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"dial {name!r} is listed twice; put all its levels into one entry")
    return made


def _read_settings(study: Study, settings: DialConfig) -> Mapping[str, Setting]:
    """The keyword arguments of a dial: its section, and what has to be looked up in the training rows."""
    found = cast("dict[str, Setting]", settings.model_dump(exclude=set(_OF_THE_STUDY), exclude_none=True))
    if isinstance(settings, CombinedConfig):
        for part, inner in (("first", settings.first), ("second", settings.second)):
            found[part] = {"name": inner.name, **_read_settings(study, inner)}
    if isinstance(settings, TopicsConfig) and settings.topics == "data":
        found["topics"] = topics_from_words(study.train, max(settings.levels), seed=study.config.seed)
    if isinstance(settings, ExamplesConfig) and settings.selection != "random":
        found["order"] = order_examples(
            study.train,
            study.encoder.encode(study.train.texts),
            selection=settings.selection,
            seed=derive_seed(study.config.seed, "examples"),
        )
    return found
