"""Rows of a corpus replaced by ready-made paraphrases of others: m_r = m_p x r rows a label (arXiv 2506.19262)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus, normalise_text
from cuvee.errors import ConfigError, InputError
from cuvee.fingerprint import derive_rng

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """A corpus in which paraphrases of some rows stand in for others.

    Attributes:
        corpus: as many rows as before, each paraphrase in the place of the row it replaced.
        m_p: paraphrases of each source row.
        r: source rows of each label.
        unused: paraphrases that could not be used, by reason; those beyond m_p or r are not counted.
    """

    corpus: Corpus
    m_p: int
    r: int
    unused: Mapping[str, int]

    @property
    def m_r(self) -> int:
        """Rows of each label that were replaced, m_p x r."""
        return self.m_p * self.r

    def __str__(self) -> str:
        rows = self.m_r * len(self.corpus.labels)
        return (
            f"Replaced: {rows} of {len(self.corpus)} rows by paraphrases of others "
            f"(m_p = {self.m_p} of each of r = {self.r} sources a label, m_r = {self.m_r} rows a label)"
        )


def replace_with_paraphrases(
    base: Corpus, paraphrases: Corpus, *, m_p: int, r: int, seed: int, max_m_p: int | None = None
) -> Replaced:
    """Let ``m_p`` paraphrases of each of ``r`` source rows a label stand in for m_p x r other rows of that label.

    The definition is that of the dial *paraphrase*: rows of a label have one seeded order; the first r are the
    sources, and paraphrase p of source s takes the place of the row p x r + s from the end. So the sources,
    the rows replaced and the paraphrases used at (m_p, r) are among those at any larger m_p and r. Rows with more
    paraphrases come first in that order. A paraphrase that repeats a row of the base, or an earlier paraphrase
    (by ``normalise_text``), is never used, whether or not that other row is in the result: so nothing repeats, and
    a level's rows do not depend on other levels.

    Sources and their paraphrases are one group in the result. A paraphrase without ``seed_ids`` gets the id of
    its source where that is real, else the source's own; one without ``block`` that of the row it replaces. A base
    of several generation draws must be replaced draw by draw, else a source and its paraphrases part.

    Args:
        base: real or synthetic rows with unique ids.
        paraphrases: synthetic rows whose ``group`` names the source row: by its id, by a group that it alone has,
            or by its text. Those used are the first ones in the given order.
        m_p: paraphrases of each source, 0 or more; 0 leaves the base as it is.
        r: source rows of each label, 1 or more.
        seed: of the order of rows.
        max_m_p: the largest m_p of a series: rows with that many paraphrases or more then have equal chances to
            be sources. None: the more paraphrases, the sooner.

    Raises:
        InputError: too few rows or paraphrases, with the largest possible m_p and r; no paraphrase has a source
            in the base; a paraphrase has another label than its source; ids are not unique.
        ConfigError: the task has no labels.
        ValueError: ``m_p``, ``r`` or ``max_m_p`` out of range.
    """
    if m_p < 0 or r < 1 or (max_m_p is not None and max_m_p < max(m_p, 1)):
        raise ValueError(f"m_p is {m_p!r}, r {r!r}, max_m_p {max_m_p!r}; needed: 0 <= m_p <= max_m_p and r >= 1")
    _check_corpora(base, paraphrases)
    made, unused = _usable_paraphrases(base, paraphrases)
    counts = np.array([len(made.get(row, ())) for row in range(len(base))], dtype=np.int64)
    orders = _ordered_rows(base, counts if max_m_p is None else np.minimum(counts, max_m_p), seed)
    if m_p:
        _check_supply(counts, orders, m_p, r)
    take = np.arange(len(base), dtype=np.int64)
    source_of: dict[int, int] = {}  # place in the result -> source row, for the paraphrases
    for order in orders.values():
        out = [int(order[len(order) - 1 - number]) for number in range(m_p * r)]
        new = [made[order[number % r]][number // r] for number in range(m_p * r)]
        take[out] = [len(base) + row for row in new]
        source_of |= {place: int(order[number % r]) for number, place in enumerate(out)}
    corpus = _with_provenance(base, base.joined(paraphrases).take(take), source_of)
    return Replaced(corpus=corpus, m_p=m_p, r=r, unused=unused)


def _check_corpora(base: Corpus, paraphrases: Corpus) -> None:
    if base.task != "classification" or paraphrases.task != "classification":
        raise ConfigError(
            f"rows of tasks {base.task!r} and {paraphrases.task!r} cannot be replaced by label; only classification"
        )
    if not len(base):
        raise InputError("the base has no rows; there is nothing to replace")
    wrong = len(paraphrases) - paraphrases.origins.count("synthetic")
    if wrong:
        raise InputError(
            f"{wrong} of {len(paraphrases)} paraphrases are not marked synthetic; load them with origin='synthetic'"
        )
    repeated, times = Counter([*base.ids, *paraphrases.ids]).most_common(1)[0]
    if times > 1:
        raise InputError(f"row id {repeated!r} occurs {times} times in base and paraphrases; ids must be unique")


def _usable_paraphrases(base: Corpus, paraphrases: Corpus) -> tuple[dict[int, list[int]], dict[str, int]]:
    """Row of the base -> rows of its usable paraphrases, in order; and how many are of no use, by reason."""
    found = _source_rows(base, paraphrases)
    seen = {normalise_text(text) for text in base.texts}
    made: defaultdict[int, list[int]] = defaultdict(list)
    unused: Counter[str] = Counter()
    for row, (source, text) in enumerate(zip(found, paraphrases.texts, strict=True)):
        if source is None:
            unused["no source row in the base"] += 1
            continue
        if paraphrases.targets[row] != base.targets[source]:
            raise InputError(
                f"paraphrase {paraphrases.ids[row]!r} has label {paraphrases.targets[row]!r}, its source "
                f"{base.ids[source]!r} has {base.targets[source]!r}; make them agree, or drop the paraphrase"
            )
        key = normalise_text(text)
        if key in seen:
            unused["repeats another row"] += 1
            continue
        seen.add(key)
        made[source].append(row)
    if len(paraphrases) and unused["no source row in the base"] == len(paraphrases):
        group = next((g for g in paraphrases.table["group"].to_pylist() if g is not None), None)
        raise InputError(
            f"no paraphrase has a source in the base; their group must name its id, group or text (the first is "
            f"{group!r}, the first id of the base {base.ids[0]!r})"
        )
    return dict(made), dict(sorted(unused.items()))


def _source_rows(base: Corpus, paraphrases: Corpus) -> list[int | None]:
    """The row of the base that each paraphrase was made of."""
    by_id = {name: row for row, name in enumerate(base.ids)}
    groups = paraphrases.table["group"].to_pylist()
    alone = Counter(base.groups)
    by_group = {group: row for row, group in enumerate(base.groups) if alone[group] == 1}
    by_text: dict[tuple[str, str], int] = {}
    for row, (text, label) in enumerate(zip(base.texts, base.targets, strict=True)):
        by_text.setdefault((normalise_text(text), label), row)

    def find(group: str | None, label: str) -> int | None:
        if group is None:
            return None
        return by_id.get(group, by_group.get(group, by_text.get((normalise_text(group), label))))

    return [find(group, label) for group, label in zip(groups, paraphrases.targets, strict=True)]


def _ordered_rows(base: Corpus, counts: Rows, seed: int) -> dict[str, Rows]:
    """The rows of each label, sources from the front, rows to replace from the end; the same for all m_p and r."""
    targets = np.array(base.targets)
    orders = {}
    for label in base.labels:
        order = derive_rng(seed, "paraphrases", label).permutation(np.flatnonzero(targets == label))
        orders[label] = order[np.argsort(-counts[order], kind="stable")]
    return orders


def _check_supply(counts: Rows, orders: Mapping[str, Rows], m_p: int, r: int) -> None:
    """Refuse too few rows or paraphrases (``counts`` of each row of the base), with what is possible."""

    def largest_m_p(order: Rows) -> int:
        return 0 if r > len(order) else int(min(len(order) // r - 1, counts[order[:r]].min()))

    def largest_r(order: Rows) -> int:
        short = np.flatnonzero(counts[order] < m_p)
        return int(min([*short[:1], len(order) // (1 + m_p)]))

    label = next((label for label, order in orders.items() if largest_m_p(order) < m_p), None)
    if label is None:
        return
    order = orders[label]
    raise InputError(
        f"label {label!r}: m_p={m_p} and r={r} need {r * (1 + m_p)} rows, {r} of them with {m_p} paraphrases; it has "
        f"{len(order)} rows, {int((counts[order] >= m_p).sum())} of them with so many. With r={r} the largest possible "
        f"m_p is {min(map(largest_m_p, orders.values()))}; with m_p={m_p} the largest possible r is "
        f"{min(map(largest_r, orders.values()))}"
    )


def _with_provenance(base: Corpus, corpus: Corpus, source_of: Mapping[int, int]) -> Corpus:
    """Sources and their paraphrases as one group; the seed examples and the generation draw of the paraphrases."""
    if not source_of:
        return corpus
    columns = ("group", "seed_ids", "block")
    named, seeds, drawn = (base.table[name].to_pylist() for name in columns)
    groups, seed_ids, blocks = (corpus.table[name].to_pylist() for name in columns)
    for place, source in source_of.items():
        groups[source] = groups[place] = named[source] or base.ids[source]
        if not seed_ids[place]:
            seed_ids[place] = [base.ids[source]] if base.origins[source] == "real" else seeds[source]
        if blocks[place] is None:
            blocks[place] = drawn[place]
    return corpus.with_columns(group=groups, seed_ids=seed_ids, block=blocks)
