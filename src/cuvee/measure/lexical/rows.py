"""Words a row, and rows that repeat another one exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import normalise_text
from cuvee.defects import duplicate_mask
from cuvee.measure.intervals import estimate_by_jackknife
from cuvee.measure.lexical.ngrams import TOKENS
from cuvee.measure.lexical.resampling import estimate_pair_rate
from cuvee.measure.lexical.shingles import sort_unique
from cuvee.measure.subject import Subject
from cuvee.records import Estimate


def measure_mean_words(subject: Subject) -> Estimate | None:
    """Mean number of words a row; most other numbers depend on it. None where there are no rows."""
    if not subject.n:
        return None
    lengths = np.array([len(words) for words in subject.tokens], dtype=np.int64)
    total = int(lengths.sum())

    def without() -> NDArray[np.float64]:
        left = subject.n - np.bincount(subject.bins)
        out: NDArray[np.float64] = (total - np.bincount(subject.bins, weights=lengths)) / left
        return out

    return estimate_by_jackknife(subject, total / subject.n, without, {"tokens": TOKENS})


def measure_exact_duplicates(subject: Subject) -> Estimate | None:
    """Fraction of rows that repeat an earlier one, in lower case and without punctuation.

    Which of several copies counts as the first does not change how many repeat it. None where there are no rows.
    """
    if not subject.n:
        return None
    texts = subject.corpus.texts
    value = float(duplicate_mask(texts).mean())

    def without() -> NDArray[np.float64]:
        number: dict[str, int] = {}
        text = np.array([number.setdefault(normalise_text(t), len(number)) for t in texts])
        rows = np.bincount(subject.bins)
        in_text, in_bin = np.divmod(sort_unique(text * len(rows) + subject.bins), len(rows))
        only_there = np.bincount(in_text)[in_text] == 1
        vanish = np.bincount(in_bin[only_there], minlength=len(rows))
        out: NDArray[np.float64] = 1.0 - (len(number) - vanish) / (subject.n - rows)
        return out

    return estimate_pair_rate(subject, value, without, {"equal": "lower case, no punctuation, single spaces"})
