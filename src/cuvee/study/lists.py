"""Topics and attributes that a study asks its LLM for, kept in the run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import cast

from cuvee.errors import RunFolderError
from cuvee.fingerprint import hash_value
from cuvee.generate import Ledger, OpenedLLM
from cuvee.generate.asking import ListAsker
from cuvee.generate.dials import Branches
from cuvee.study.setup import Study

FILE = "asked.json"
"""Of the run folder: every list that was asked for, for the user to read and for the next call to use."""
_NO_MATTER = {
    *("slots", "context", "threads", "concurrency", "timeout_s", "give_up_s", "api_key_env"),
    *("requests_per_minute", "tokens_per_minute", "budget", "prices", "omit"),
    *("temperature", "top_p", "min_p", "top_k", "max_tokens", "truncated"),
}
"""Settings of a generator that lists do not depend on: its speed, and how rows are drawn."""


class KeptLists:
    """The lists of a study, from its run folder; the LLM is started only for those that are not there yet.

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
        who = config.generator.model_dump(mode="json", exclude=_NO_MATTER)
        key = hash_value([who, config.describe, config.seed, question, texts])
        kept = _read_kept(folder.read_text(FILE), str(folder.path / FILE))
        if key not in kept:
            with self._open_llm(self._study) as llm, Ledger(folder.ledger_path) as ledger:
                asker = ListAsker(
                    llm.endpoint, ledger, describe=config.describe, seed=config.seed, open_client=llm.open_client
                )
                kept[key] = {**question, "describe": config.describe, "found": ask(asker)}
            folder.save_text(FILE, json.dumps(kept, indent=1, ensure_ascii=False))
        return cast("Mapping[str, Branches]", kept[key]["found"])


def _read_kept(content: str | None, where: str) -> dict[str, dict[str, object]]:
    """Key -> what was asked and found."""
    try:
        kept = json.loads(content or "{}")
    except ValueError as exc:
        raise RunFolderError(f"{where} is broken ({exc}); delete it: its lists are made again from the ledger") from exc
    if not isinstance(kept, dict) or not all(isinstance(e, dict) and _is_found(e.get("found")) for e in kept.values()):
        raise RunFolderError(f"{where} is not what was written there; delete it: its lists are made from the ledger")
    return kept


def _is_found(found: object) -> bool:
    return isinstance(found, dict) and all(isinstance(below, dict | list) for below in found.values())
