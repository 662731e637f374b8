"""Training sets of several sizes, each within the next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from cuvee.corpus.content import normalise_text
from cuvee.corpus.splits import label_strata
from cuvee.corpus.table import Corpus
from cuvee.errors import InputError
from cuvee.fingerprint import derive_rng


def few_shot(train: Corpus, sizes: Sequence[int | str], *, seed: int) -> Mapping[str, Corpus]:
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
        ValueError: a size is neither a number of at least 1 nor ``all``, or there is none.
    """
    wrong = [s for s in sizes if s != "all" and (isinstance(s, bool | str) or s < 1)]
    if wrong or not sizes:
        raise ValueError(f"sizes is {list(sizes)!r}; give numbers of at least 1, or 'all'")
    ranked = _ranked_rows(train, seed)
    asked = max((int(s) for s in sizes if s != "all"), default=0)
    scarce = min(ranked, key=lambda label: len(ranked[label]), default="")
    most = len(ranked[scarce]) if ranked else 0
    if asked > most:
        raise InputError(
            f"{_name_label(scarce)}{most} training rows have different texts, {asked} were asked; "
            f"the largest few-shot size is {most}"
        )
    out: dict[str, Corpus] = {}
    for size in sizes:
        rows = [] if size == "all" else sorted(i for order in ranked.values() for i in order[: int(size)])
        out[str(size)] = train if size == "all" else train.take(rows)
    return out


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


def _name_label(label: str) -> str:
    return f"label {label!r}: " if label else ""
