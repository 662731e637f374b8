"""Splitting real data before anything else, and the locked test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from cuvee.corpus.table import Corpus, normalise_text
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
    """Train, validation and locked test of one real corpus; ``unused`` rows were in no part."""

    train: Corpus
    validation: Corpus
    test: LockedTest
    unused: int


def split_corpus(
    corpus: Corpus, *, test: int | float, validation: int | float, rows_per_label: int | None, seed: int
) -> Split:
    """Split by group, stratified by label; exact duplicates (normalised) always fall on one side.

    Args:
        corpus: real rows. Rows with the same ``group``, or the same normalised text, stay together.
        test, validation: rows (int) or fraction of all rows (float below 1).
        rows_per_label: real training rows of each label; None keeps all that remain.
        seed: of the split alone.

    Raises:
        InputError: one label only, or fewer rows than asked (with the largest possible).
    """
    if len(corpus.labels) < 2:
        raise InputError(f"one label only ({corpus.labels[0]!r}): classification needs at least two")
    rng = derive_rng(seed, "split")
    n_test, n_validation = (_count(part, len(corpus)) for part in (test, validation))
    needed = (rows_per_label or 1) * len(corpus.labels)
    if n_test + n_validation + needed > len(corpus):
        raise InputError(
            f"split asks for {n_test} test, {n_validation} validation and {needed} training rows, "
            f"but the data has {len(corpus)} rows; lower split.test, split.validation or split.rows_per_label"
        )
    clusters = _clusters(corpus)
    order = rng.permutation(len(clusters))
    members: dict[str, list[list[int]]] = {"test": [], "validation": [], "train": []}
    left = _quotas(corpus, {"test": n_test, "validation": n_validation})
    targets = corpus.targets
    for index in order:
        rows = clusters[index]
        label = targets[rows[0]]
        part = next((p for p in ("test", "validation") if left[p].get(label, 0) >= len(rows)), "train")
        if part != "train":
            left[part][label] -= len(rows)
        members[part].append(rows)
    train, unused = _few_shot(corpus, members["train"], rows_per_label)
    flat = {part: sorted(i for rows in members[part] for i in rows) for part in ("test", "validation")}
    return Split(
        train=corpus.take(train),
        validation=corpus.take(flat["validation"]),
        test=LockedTest(corpus.take(flat["test"])),
        unused=unused,
    )


def _count(part: int | float, rows: int) -> int:
    return round(part * rows) if isinstance(part, float) and part < 1 else int(part)


def _clusters(corpus: Corpus) -> list[list[int]]:
    """Connected rows: same group or same normalised text (union-find)."""
    parent = list(range(len(corpus)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    for i, (group, text) in enumerate(zip(corpus.groups, corpus.texts, strict=True)):
        for key in ("g" + group, "t" + normalise_text(text)):
            j = first.setdefault(key, i)
            parent[find(i)] = find(j)
    gathered: dict[int, list[int]] = defaultdict(list)
    for i in range(len(corpus)):
        gathered[find(i)].append(i)
    return list(gathered.values())


def _quotas(corpus: Corpus, sizes: dict[str, int]) -> dict[str, dict[str, int]]:
    """Rows of each label in each part, in proportion, by largest remainder."""
    counts = corpus.label_counts()
    quotas: dict[str, dict[str, int]] = {}
    for part, size in sizes.items():
        exact = {label: size * c / len(corpus) for label, c in counts.items()}
        quota = {label: int(v) for label, v in exact.items()}
        short = size - sum(quota.values())
        for label in sorted(exact, key=lambda k: (quota[k] - exact[k], k))[:short]:
            quota[label] += 1
        quotas[part] = quota
    return quotas


def _few_shot(corpus: Corpus, clusters: list[list[int]], rows_per_label: int | None) -> tuple[list[int], int]:
    """The first ``rows_per_label`` rows of each label in split order (nested in that number)."""
    chosen: list[int] = []
    taken: dict[str, int] = defaultdict(int)
    total = 0
    for rows in clusters:
        total += len(rows)
        # one row of a duplicate cluster is enough: a few-shot set has no room for repeats
        for i in rows[:1] if rows_per_label is not None else rows:
            label = corpus.targets[i]
            if rows_per_label is None or taken[label] < rows_per_label:
                taken[label] += 1
                chosen.append(i)
    short = {label: taken[label] for label in corpus.labels if rows_per_label and taken[label] < rows_per_label}
    if short:
        label, have = next(iter(short.items()))
        raise InputError(
            f"label {label!r} has {have} training rows left after the split, {rows_per_label} were asked; "
            "lower split.rows_per_label, split.test or split.validation"
        )
    return sorted(chosen, key=lambda i: (corpus.targets[i], chosen.index(i))), total - len(chosen)


__all__ = ["LockedTest", "Split", "split_corpus"]
