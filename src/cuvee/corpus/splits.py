"""Splitting real data before anything else: the locked test, folds, training sets of several sizes."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus.content import normalise_text
from cuvee.corpus.table import Corpus
from cuvee.errors import InputError, LockedTestError
from cuvee.fingerprint import derive_rng


class LockedTest:
    """The held-out real rows that only the final confirmation may read, once.

    Args:
        corpus: the test rows.
        log: called with ``leak-guard`` or ``confirmation`` at each read; it raises LockedTestError where a
            persistent log (a run folder's) already holds a confirmation.
    """

    def __init__(self, corpus: Corpus, log: Callable[[str], None] | None = None) -> None:
        self._corpus = corpus
        self._log = log or (lambda _reason: None)
        self._opened = False

    def __len__(self) -> int:
        return len(self._corpus)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the test rows."""
        return self._corpus.fingerprint

    def logged(self, log: Callable[[str], None]) -> LockedTest:
        """The same test with another log."""
        return LockedTest(self._corpus, log)

    def texts_for_leak_guard(self) -> list[str]:
        """The texts alone, for finding leaks; logged."""
        self._log("leak-guard")
        return self._corpus.texts

    def sources_for_leak_guard(self) -> list[str]:
        """The contexts or passages that the rows are about, each once, for finding leaks; logged."""
        self._log("leak-guard")
        return distinct_sources(self._corpus)

    def names_for_leak_guard(self) -> set[str]:
        """What the rows may be called (see ``row_names``), for finding leaks; logged."""
        self._log("leak-guard")
        return row_names(self._corpus)

    def open_for_confirmation(self) -> Corpus:
        """The test rows, once.

        Raises:
            LockedTestError: they were opened before.
        """
        if self._opened:
            raise LockedTestError("the locked test was already opened; a second look would bias the confirmation")
        self._log("confirmation")
        self._opened = True
        return self._corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Train, validation and locked test of one real corpus.

    ``at_hand`` has one row of each cluster of rows that stay together from which those of ``train`` were chosen; None
    where all of them are in ``train``.
    """

    train: Corpus
    validation: Corpus
    test: LockedTest
    at_hand: Corpus | None = None


def split_corpus(
    corpus: Corpus,
    *,
    test: int | float,
    validation: int | float,
    rows_per_label: int | None = None,
    seed: int,
    together: Sequence[int] | NDArray[np.integer] | None = None,
) -> Split:
    """Split by group, stratified by label; exact duplicates (normalised) always fall on one side.

    Tasks without labels (generation, retrieval) are split by group and context alone, and ``rows_per_label``
    counts rows. Parts are as large as asked where rows stand alone; rows that stay together go to a part only
    while all of them fit in, so that with large groups it may end up smaller.

    Args:
        corpus: real rows. Rows with the same ``group``, the same ``context``, or the same normalised text (where there
            is no context) stay together.
        test: rows (int) or fraction of all rows (float below 1).
        validation: the same.
        rows_per_label: real training rows of each label, one of each cluster of rows that stay together; None
            keeps all that remain. The rows of a smaller number are among those of a larger one.
        seed: of the split alone.
        together: a number a row, shape (n,): rows with the same number stay together too, such as the clusters
            of near-duplicates that ``cuvee.similarity.find_near_duplicates`` gives.

    Raises:
        InputError: one label only (classification), or fewer rows than asked (with the largest possible).
        ValueError: a part is negative, ``rows_per_label`` is below 1, or ``together`` has another length.
    """
    strata = label_strata(corpus)
    if corpus.task == "classification" and len(corpus.labels) < 2:
        found = f"one label only ({corpus.labels[0]!r})" if corpus.labels else "no rows"
        where = "is the label in another column (data.label, --label)?"
        raise InputError(f"{found}: classification needs at least two labels; {where}")
    if rows_per_label is not None and rows_per_label < 1:
        raise ValueError(f"rows_per_label is {rows_per_label!r}; it must be at least 1, or None for all rows")
    rng = derive_rng(seed, "split")
    n_test, n_validation = _count("test", test, len(corpus)), _count("validation", validation, len(corpus))
    _check_rows(corpus, strata, n_test, n_validation, rows_per_label)
    clusters = linked_rows(corpus, together)
    order = rng.permutation(len(clusters))
    members: dict[str, list[list[int]]] = {"test": [], "validation": [], "train": []}
    left = _quotas(strata, {"test": n_test, "validation": n_validation})
    for index in order:
        rows = clusters[index]
        label = strata[rows[0]]
        part = next((p for p in ("test", "validation") if left[p].get(label, 0) >= len(rows)), "train")
        if part != "train":
            left[part][label] -= len(rows)
        members[part].append(rows)
    train = _first_rows(strata, members["train"], rows_per_label)
    flat = {part: sorted(i for rows in members[part] for i in rows) for part in ("test", "validation")}
    return Split(
        train=corpus.take(train),
        validation=corpus.take(flat["validation"]),
        test=LockedTest(corpus.take(flat["test"])),
        at_hand=None if rows_per_label is None else corpus.take(sorted(rows[0] for rows in members["train"])),
    )


def label_strata(corpus: Corpus) -> list[str]:
    """What rows are stratified by, a row: the label; one stratum, ``""``, for tasks without labels."""
    return corpus.targets if corpus.task == "classification" else [""] * len(corpus)


def count_strata(corpus: Corpus) -> Counter[str]:
    """Rows of each stratum, sorted by its name: shares are rounded in this order."""
    return Counter(dict(sorted(Counter(label_strata(corpus)).items())))


def row_sources(corpus: Corpus) -> list[str] | list[str | None]:
    """What each row is about: its context (generation) or its passage (retrieval); None where it is about nothing."""
    return corpus.targets if corpus.task == "retrieval" else corpus.contexts


def row_names(corpus: Corpus) -> set[str]:
    """What a row that was written from one of these may call it: its id, its group, or its text, normalised."""
    return {*corpus.ids, *filter(None, corpus.table["group"].to_pylist()), *map(normalise_text, corpus.texts)}


def written_from(corpus: Corpus, names: Collection[str]) -> list[bool]:
    """Whether each row names a real row of ``row_names`` among those that it was written from."""
    seeds = corpus.table["seed_ids"]
    if not names or seeds.null_count == len(corpus):
        return [False] * len(corpus)
    return [any(s in names or normalise_text(s) in names for s in own or () if s) for own in seeds.to_pylist()]


def distinct_sources(corpus: Corpus) -> list[str]:
    """The contexts or passages of a corpus, each once, in the order of its rows."""
    return list(dict.fromkeys(source for source in row_sources(corpus) if source is not None))


def _check_rows(corpus: Corpus, strata: list[str], n_test: int, n_validation: int, rows_per_label: int | None) -> None:
    kinds = len(set(strata)) or 1
    needed = (rows_per_label or 1) * kinds
    if n_test + n_validation + needed <= len(corpus):
        return
    most = (len(corpus) - n_test - n_validation) // kinds
    limit = (
        f"; beside those parts the largest split.rows_per_label is {most}"
        if most > 0 and rows_per_label is not None
        else f"; test and validation can have {len(corpus) - needed} rows together"
        if needed < len(corpus)
        else ""
    )
    raise InputError(
        f"split asks for {n_test} test, {n_validation} validation and {needed} training rows, "
        f"but the data has {len(corpus)} rows; lower split.test, split.validation or split.rows_per_label{limit}"
    )


def _count(name: str, part: int | float, rows: int) -> int:
    if not (math.isfinite(part) and part >= 0):
        raise ValueError(f"{name} is {part!r}; give rows, or a fraction of all rows from 0 to below 1")
    return round(part * rows) if isinstance(part, float) and part < 1 else int(part)


def linked_rows(corpus: Corpus, together: Sequence[int] | NDArray[np.integer] | None) -> list[list[int]]:
    """Connected rows: same group, context, normalised text or number in ``together`` (union-find).

    Where rows have a context, the text may be a question or an instruction that many contexts share.
    """
    if together is not None and len(together) != len(corpus):
        raise ValueError(f"together has {len(together)!r} entries for {len(corpus)} rows; give one each")
    contexts = [None if context is None else normalise_text(context) for context in corpus.contexts]
    inputs = [(normalise_text(t), c) for t, c in zip(corpus.texts, contexts, strict=True)]
    return link_rows(corpus.groups, inputs, contexts, None if together is None else [int(n) for n in together])


def link_rows(*columns: Sequence[Hashable] | None) -> list[list[int]]:
    """The rows in clusters: rows with an equal value in some column, None apart, are linked, and linked to theirs."""
    from scipy.sparse import coo_array  # takes 25 MB, which no generating client needs
    from scipy.sparse.csgraph import connected_components

    given = [column for column in columns if column is not None]
    rows, linked = len(given[0]), list[int]()
    for column in given:
        first: dict[Hashable, int] = {}
        linked += [row if cell is None else first.setdefault(cell, row) for row, cell in enumerate(column)]
    pairs = np.tile(np.arange(rows), len(given)), np.array(linked, dtype=np.int64)
    links = coo_array((np.ones(len(linked)), pairs), shape=(rows, rows))
    gathered: dict[int, list[int]] = defaultdict(list)
    for row, number in enumerate(connected_components(links, directed=False)[1].tolist()):
        gathered[number].append(row)
    return list(gathered.values())


def _quotas(strata: list[str], sizes: dict[str, int]) -> dict[str, dict[str, int]]:
    """Rows of each stratum in each part, in proportion, by largest remainder."""
    counts = dict(sorted(Counter(strata).items()))
    quotas: dict[str, dict[str, int]] = {}
    for part, size in sizes.items():
        exact = {label: size * c / len(strata) for label, c in counts.items()}
        quota = {label: int(v) for label, v in exact.items()}
        short = size - sum(quota.values())
        for label in sorted(exact, key=lambda k: (quota[k] - exact[k], k))[:short]:
            quota[label] += 1
        quotas[part] = quota
    return quotas


def _first_rows(strata: list[str], clusters: list[list[int]], rows_per_label: int | None) -> list[int]:
    """The first ``rows_per_label`` rows of each stratum in split order (nested in that number)."""
    chosen: list[int] = []
    taken: dict[str, int] = defaultdict(int)
    for rows in clusters:
        # one row of a duplicate cluster is enough: a few-shot set has no room for repeats
        for i in rows[:1] if rows_per_label is not None else rows:
            label = strata[i]
            if rows_per_label is None or taken[label] < rows_per_label:
                taken[label] += 1
                chosen.append(i)
    short = {k: taken[k] for k in sorted(set(strata)) if rows_per_label and taken[k] < rows_per_label}
    if short:
        label, have = next(iter(short.items()))
        raise InputError(
            f"{_subject(label)} {have} training rows left after the split, {rows_per_label} were asked for; "
            f"the largest split.rows_per_label is {min(short.values())}: "
            "lower it, split.test or split.validation"
        )
    return sorted(chosen, key=lambda i: strata[i])


def _subject(label: str) -> str:
    return f"label {label!r} has" if label else "there are"


# --- folds, each of which is held out once ---------------------------------------------------------
def number_folds(
    corpus: Corpus, folds: int, *, seed: int, together: Sequence[int] | NDArray[np.integer] | None = None
) -> NDArray[np.int64]:
    """The fold that each row is held out in, from 0, shape (n,): folds of like size and label counts.

    Rows that ``split_corpus`` keeps on one side lie in one fold.

    Args:
        corpus: real rows.
        folds: how many, 2 or more.
        seed: of the cut alone.
        together: as for ``split_corpus``.

    Raises:
        InputError: a label, or all rows where there are no labels, cannot be spread over so many folds.
        ValueError: ``together`` has another length.
    """
    strata = label_strata(corpus)
    clusters = linked_rows(corpus, together)
    by_label = Counter(strata[rows[0]] for rows in clusters)
    scarce = min(sorted(by_label), key=lambda label: by_label[label], default="")
    if by_label[scarce] < folds:
        raise InputError(
            f"{_subject(scarce)} {by_label[scarce]} rows (or groups of rows) that can be held out apart, "
            f"for {folds} folds; lower split.crossfit or give more rows"
        )
    fold_of = np.zeros(len(corpus), dtype=np.int64)
    held: list[Counter[str]] = [Counter() for _ in range(folds)]
    order = derive_rng(seed, "folds").permutation(len(clusters)).tolist()
    # large clusters first, while all folds still have room for them
    for index in sorted(order, key=lambda i: -len(clusters[i])):
        rows = clusters[index]
        label = strata[rows[0]]
        fold = min(range(folds), key=lambda k: (held[k][label], held[k].total(), k))
        held[fold].update(strata[row] for row in rows)
        fold_of[rows] = fold
    return fold_of


# --- training sets of several sizes, each within the next -------------------------------------------
def few_shot_sets(train: Corpus, sizes: Sequence[int | str], *, seed: int) -> Mapping[str, Corpus]:
    """Training sets of several sizes, nested: the rows of a smaller one are among those of a larger one.

    A size is the exact number of rows of each label (of rows, for tasks without labels); no two rows of a label
    have the same text (normalised) and context. ``all`` is the training corpus as it is. Rows keep the order of
    ``train``.

    Args:
        train: training rows.
        sizes: numbers of rows of each label, or ``all``.
        seed: of the choice.

    Returns:
        ``str(size)`` -> its rows, in the order of ``sizes``.

    Raises:
        InputError: a label has fewer different texts than asked (with the largest possible).
    """
    ranked = _ranked_rows(train, seed)
    asked = max((int(s) for s in sizes if s != "all"), default=0)
    scarce = min(ranked, key=lambda label: len(ranked[label]), default="")
    most = len(ranked[scarce]) if ranked else 0
    if asked > most:
        raise InputError(
            f"{f'label {scarce!r}: ' if scarce else ''}{most} training rows have different texts, {asked} were asked "
            f"for; the largest few-shot size is {most}"
        )

    def first(size: int) -> Corpus:
        return train.take(sorted(row for order in ranked.values() for row in order[:size]))

    return {str(size): train if size == "all" else first(int(size)) for size in sizes}


def _ranked_rows(corpus: Corpus, seed: int) -> dict[str, list[int]]:
    """Rows of each stratum in a seeded order, one of each normalised text and context."""
    members: dict[str, list[int]] = defaultdict(list)
    seen: set[tuple[str, str, str | None]] = set()
    texts = map(normalise_text, corpus.texts)
    for row, key in enumerate(zip(label_strata(corpus), texts, corpus.contexts, strict=True)):
        if key not in seen:
            seen.add(key)
            members[key[0]].append(row)
    return {
        label: derive_rng(seed, "few-shot", label).permutation(np.array(members[label], dtype=np.int64)).tolist()
        for label in sorted(members)
    }
