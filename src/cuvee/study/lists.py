"""Topics and attributes that a study asks its LLM for, kept in the run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Annotated, cast

from pydantic import AfterValidator, TypeAdapter

from cuvee.config import AttributesConfig, CombinedConfig, DialConfig, TopicsConfig
from cuvee.fingerprint import hash_value
from cuvee.generate import Ledger, OpenedLLM
from cuvee.generate.asking import ListAsker
from cuvee.generate.dials import Branches
from cuvee.study.generators import DRAWING, identify_generator
from cuvee.study.setup import Study

FILE = "asked.json"
"""Of the run folder: every list that was asked for, for the user to read or edit, and for the next call to use."""
_NO_MATTER = frozenset({"context", "omit"} | DRAWING)
"""Settings of a generator, beside its speed, that lists do not depend on."""


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
        open_llm: starts the study's LLM.
    """

    def __init__(self, study: Study, open_llm: Callable[[Study], AbstractContextManager[OpenedLLM]]) -> None:
        self._study = study
        self._open_llm = open_llm

    def topics(self, texts: Mapping[str, Sequence[str]], degree: Sequence[int]) -> Mapping[str, Branches]:
        """See :meth:`ListAsker.topics`; the file holds what it found.

        Raises:
            ConfigError, EndpointError: as there.
            RunFolderError: the file is not what was written.
        """
        return self._find(texts, {"asked": "topics", "degree": list(degree)}, lambda a: a.topics(texts, degree))

    def attributes(self, texts: Mapping[str, Sequence[str]], *, count: int, values: int) -> Mapping[str, Sequence[str]]:
        """See :meth:`ListAsker.attributes` and :meth:`topics`."""
        found = self._find(
            texts,
            {"asked": "attributes", "count": count, "values": values},
            lambda asker: asker.attributes(texts, count=count, values=values),
        )
        return {name: tuple(given) for name, given in found.items()}

    def _find(
        self,
        texts: Mapping[str, Sequence[str]],
        question: Mapping[str, str | int | list[int]],
        ask: Callable[[ListAsker], Mapping[str, Branches]],
    ) -> Mapping[str, Branches]:
        config, folder = self._study.config, self._study.folder
        who = identify_generator(self._study, leave_out=_NO_MATTER)
        key = hash_value([who, config.describe, config.seed, question, texts])
        kept = folder.read_json(FILE, _KEPT, _REMEDY) or {}
        if key not in kept:
            with self._open_llm(self._study) as llm, Ledger(folder.ledger_path) as ledger:
                asker = ListAsker(
                    llm.endpoint, ledger, describe=config.describe, seed=config.seed, open_client=llm.open_client
                )
                kept[key] = {**question, "describe": config.describe, "found": dict(ask(asker))}
            folder.save_text(FILE, json.dumps(kept, indent=1, ensure_ascii=False))
        return cast("Mapping[str, Branches]", kept[key]["found"])


def _check_found(entry: dict[str, object]) -> dict[str, object]:
    """See that an entry holds what was found: names, and under each a list or more names."""
    found = entry.get("found")
    if not isinstance(found, dict) or not all(isinstance(below, dict | list) for below in found.values()):
        raise ValueError("it is not what was written there")
    return entry


_KEPT = TypeAdapter(dict[str, Annotated[dict[str, object], AfterValidator(_check_found)]])
_REMEDY = "its lists are made again from the answers in ledger.sqlite; changes made by hand are lost"
