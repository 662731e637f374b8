"""Kinds of writing, and what dials spread rows over: the labels, passages or contexts to write for. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, overload

from cuvee.corpus import Corpus, Task
from cuvee.errors import ConfigError
from cuvee.fingerprint import hash_texts

Kind = Literal["label", "query", "question", "instruction", "story"]
"""What the LLM writes: a text for a label, a query for a passage, a question with its answer over a context, an
instruction with its response, or the beginning of a story with its continuation."""
ANY = "any"
"""The name of the one stratum of kinds that write about nothing given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How one kind is written.

    ``text`` and ``target`` name the two sides of a row, ``source`` what a row is written about, if anything. A
    ``pair`` has both sides written by the LLM; else it writes the text, and the target is given. ``lines`` says that
    the text too may have several lines, as targets of pairs may.
    """

    kind: Kind
    task: Task
    text: str
    target: str
    source: str | None = None
    pair: bool = False
    lines: bool = False


WRITINGS: Mapping[Kind, Writing] = {
    "label": Writing(kind="label", task="classification", text="text", target="label"),
    "query": Writing(kind="query", task="retrieval", text="query", target="passage", source="passage"),
    "question": Writing(
        kind="question", task="generation", text="question", target="answer", source="context", pair=True
    ),
    "instruction": Writing(
        kind="instruction", task="generation", text="instruction", target="response", pair=True, lines=True
    ),
    "story": Writing(
        kind="story", task="generation", text="beginning", target="continuation", pair=True, lines=True
    ),
}  # fmt: skip
KINDS: tuple[Kind, ...] = tuple(WRITINGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """What a dial deals rows to, and what it calls a label.

    ``name`` is short and stable, ``rows`` the places of the training rows that may be shown as examples, ``source`` the
    passage or context that is written about.
    """

    name: str
    rows: Sequence[int]
    source: str | None = None


def choose_kind(train: Corpus, kind: Kind | None, sources: Sequence[str] | None = None) -> Kind:
    """The kind asked for, or the one that fits the training rows.

    Raises:
        ConfigError: it is none, or is not for rows of this task.
    """
    if kind is None:
        if train.task == "classification":
            return "label"
        if train.task == "retrieval":
            return "query"
        return "question" if sources or any(context is not None for context in train.contexts) else "instruction"
    fitting = [name for name, writing in WRITINGS.items() if writing.task == train.task]
    if kind not in fitting:
        raise ConfigError(
            f"kind {kind!r} is not for training rows of the task {train.task!r}; valid: {', '.join(fitting)}"
        )
    return kind


def find_strata(train: Corpus, kind: Kind, sources: Sequence[str] | None = None) -> Mapping[str, Stratum]:
    """The strata of a kind by name, sorted by name.

    ``label``: one a label, with its rows. ``query`` and ``question``: one a passage or context, with the rows of all
    others, so that no example gives away what can be asked about it (all rows where there is no other). Else one,
    with all rows.

    Args:
        train: real training rows.
        kind: of writing.
        sources: passages or contexts to write about; None is the distinct ones of the training rows.

    Raises:
        ConfigError: nothing to write about, a blank source, or sources for a kind that has none.
    """
    writing = WRITINGS[kind]
    if sources is not None and writing.source is None:
        takers = ", ".join(name for name in KINDS if WRITINGS[name].source)
        raise ConfigError(f"sources are given, and kind {kind!r} writes about none; kinds that do: {takers}")
    if kind == "label":
        return {
            label: Stratum(name=label, rows=[i for i, target in enumerate(train.targets) if target == label])
            for label in train.labels
        }
    if writing.source is None:
        return {ANY: Stratum(name=ANY, rows=range(len(train)))}
    known = train.targets if kind == "query" else train.contexts
    return _source_strata(known, writing.source, _distinct(known if sources is None else sources, writing.source))


def _distinct(sources: Sequence[str | None], called: str) -> list[str]:
    if isinstance(sources, str):
        raise ConfigError(f"sources {sources[:40]!r}; give a list of texts")
    for source in sources:
        if source is not None and not source.strip():
            raise ConfigError(f"a {called} to write about is blank; drop it")
    found = list(dict.fromkeys(source for source in sources if source is not None))
    if not found:
        raise ConfigError(f"there is no {called} to write about; give sources, or training rows with one")
    return found


def _source_strata(known: Sequence[str | None], called: str, sources: Sequence[str]) -> dict[str, Stratum]:
    rows: dict[str, list[int]] = {}
    for i, source in enumerate(known):
        if source is not None:
            rows.setdefault(source, []).append(i)
    usable = sorted(i for found in rows.values() for i in found)
    if not usable:
        raise ConfigError(f"no training row has a {called}; name its column")
    places = {row: place for place, row in enumerate(usable)}
    strata = [
        Stratum(
            name=f"{called} {hash_texts([source])[:16]}",
            rows=_Without(usable, [places[i] for i in rows.get(source, ())]),
            source=source,
        )
        for source in sources
    ]
    return {stratum.name: stratum for stratum in sorted(strata, key=lambda s: s.name)}


class _Without(Sequence[int]):
    """A list without some of its places, or whole where nothing would be left: as many as there are passages."""

    def __init__(self, rows: Sequence[int], left_out: Sequence[int]) -> None:
        self._rows = rows
        places = sorted(left_out) if len(left_out) < len(rows) else []
        self._before = [place - i for i, place in enumerate(places)]  # rows kept before each place left out

    def __len__(self) -> int:
        return len(self._rows) - len(self._before)

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[int]: ...
    def __getitem__(self, place: int | slice) -> int | Sequence[int]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        wanted = range(len(self))[place]
        return self._rows[wanted + bisect_right(self._before, wanted)]
