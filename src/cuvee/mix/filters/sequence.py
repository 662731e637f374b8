"""Filters one after the other, a user's own among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, CuveeError
from cuvee.mix.filters.agreement import Agreement
from cuvee.mix.filters.defective import Degenerate, Leak, NoLeaks
from cuvee.mix.filters.duplicates import Dedupe, FewerPerCluster
from cuvee.mix.filters.steps import (
    Candidates,
    Encode,
    Filter,
    Filtered,
    FilterStep,
    Judgement,
    Removed,
    check_reasons,
    count_reasons,
)
from cuvee.records import Vectors
from cuvee.registry import Kind, nearest_name, resolve_name

Reasons = Callable[[Corpus], Sequence[str | None]]

FILTERS: dict[str, type[Agreement | Dedupe | Degenerate | FewerPerCluster | Leak]] = {
    "agreement": Agreement,
    "dedupe": Dedupe,
    "degenerate": Degenerate,
    "fewer-per-cluster": FewerPerCluster,
    "leak": Leak,
}


@dataclass(frozen=True, slots=True)
class Keep:
    """A user's own function as a filter: for each row why it goes, None where it stays."""

    name: str
    reasons: Reasons

    @classmethod
    def load(cls, name: str) -> Keep:
        """The filter made of the function at ``module:Name``, called by that name.

        Raises:
            ConfigError: no such module or function, its module fails, or it cannot be called.
        """
        if ":" not in name:
            raise ConfigError(
                f"unknown filter {name!r}; {nearest_name(name, FILTERS)}, or module:Name of a function of your own"
            )
        table: dict[str, Reasons] = {}
        return cls(name, resolve_name(name, table, Kind(name="filter", takes=("corpus",))))

    def judge(self, rows: Candidates) -> Judgement:
        """What the function says of the rows.

        Raises:
            ConfigError: it failed, or did not give one reason (or None) a row.
        """
        try:
            reasons = tuple(self.reasons(rows.corpus))
        except CuveeError:
            raise
        except Exception as exc:
            raise ConfigError(
                f"filter {self.name!r} failed with {type(exc).__name__}: {exc}; mend the function, or leave it out"
            ) from exc
        try:
            check_reasons(self.name, reasons, len(rows.corpus))
        except ValueError as exc:
            raise ConfigError(str(exc)) from exc
        return Judgement(reasons=reasons)


def apply_filters(
    pool: Corpus, filters: Sequence[Filter], *, encode: Encode | None = None, vectors: Vectors | None = None
) -> Filtered:
    """Take from ``pool`` what each filter removes, one filter after the other.

    Vectors are made once, when a filter first wants them, of the rows left by then. From a ``Leak`` filter on,
    no row may be one of its held-out texts: that is checked after it and after each later step.

    Args:
        pool: the rows, usually synthetic.
        filters: in order; cheap ones that remove much belong first.
        encode: texts to vectors, for filters that compare meanings: an Encoder's ``encode``.
        vectors: of the rows of ``pool``, shape (n, d), where they are at hand.

    Raises:
        LeakError: a row is a held-out text after a ``Leak`` filter.
        ValueError: a filter that needs vectors has none; a filter's answer does not fit the rows.
    """
    rows = Candidates(pool, encode=encode, vectors=vectors)
    places = np.arange(len(pool), dtype=np.int64)
    steps: list[FilterStep] = []
    removed: list[Removed] = []
    guards: list[NoLeaks] = []
    for each in filters:
        said = _judge(each, rows)
        gone = [(row, reason) for row, reason in enumerate(said.reasons) if reason is not None]
        ids, texts = rows.corpus.ids, rows.corpus.texts
        removed += [Removed(id=ids[row], text=texts[row], filter=each.name, reason=reason) for row, reason in gone]
        before = len(rows.corpus)
        if gone:
            stays = np.array([reason is None for reason in said.reasons], dtype=bool)
            rows, places = rows.keep(stays), places[stays]
        steps.append(
            FilterStep(
                name=each.name, rows_before=before, removed=len(gone), rows_after=len(rows.corpus),
                reasons=count_reasons(said.reasons), note=said.note,
            )
        )  # fmt: skip
        if isinstance(each, Leak):
            guards.append(NoLeaks(each.held_out, each.sources))
        for guard in guards:
            guard.check(rows.corpus, when=f"after filter {each.name!r}")
    return Filtered(corpus=rows.corpus, rows=places, steps=tuple(steps), removed=tuple(removed))


def _judge(each: Filter, rows: Candidates) -> Judgement:
    if not len(rows.corpus):
        return Judgement(reasons=(), note="no rows left to judge")
    said = each.judge(rows)
    check_reasons(each.name, said.reasons, len(rows.corpus))
    return said
