"""Templates: how many rows begin alike, end alike, have one skeleton, or hold one sequence of words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from cuvee.measure.intervals import estimate_hits
from cuvee.measure.lexical import SIZES, TOKENS, count_ngrams, estimate_entropy, ngram_counts
from cuvee.measure.subject import Subject
from cuvee.records import Estimate

ENDS = 2  # words of an opening and of an ending
PARTS = 8  # of a skeleton: frequent words and gaps
FRAME = 0.5  # of all words of a corpus, those that its most frequent words make up
SHARED_ROWS, SHARED = 5, 0.01  # a sequence is shared that stands in more rows than both
_GAP = "*"
Words = Sequence[str]


def measure_openings(subject: Subject) -> Estimate | None:
    """Fraction of rows that begin with the two words with which most rows begin; the setting ``opening`` has them.

    Rows of fewer words count as rows that begin otherwise. The interval holds the opening fixed. None where no row
    has two words.
    """
    return _measure_commonest(subject, [words[:ENDS] for words in subject.tokens], "opening")


def measure_endings(subject: Subject) -> Estimate | None:
    """Fraction of rows that end with the two words with which most rows end; the setting ``ending`` has them.

    As for openings.
    """
    return _measure_commonest(subject, [words[-ENDS:] for words in subject.tokens], "ending")


def _measure_commonest(subject: Subject, parts: Sequence[Words], name: str) -> Estimate | None:
    found = [" ".join(words) if len(words) == ENDS else "" for words in parts]
    counts = Counter(filter(None, found))
    if not counts:
        return None
    most = max(counts, key=lambda part: (counts[part], part))
    settings: dict[str, str | float] = {name: most, "ngram": ENDS, "tokens": TOKENS}
    return estimate_hits(subject, np.array([part == most for part in found]), settings)


def list_skeletons(tokens: Sequence[Words]) -> list[str]:
    """The skeleton of each row: its frequent words, with one ``*`` for all words between two of them; no tagger.

    Frequent are the fewest words of the corpus, the most frequent first, that make up half of all its words, and those
    that are as frequent as the last of them. A skeleton ends after eight frequent words and gaps. A row without a
    frequent word has none: its entry is empty.
    """
    counts = Counter(word for words in tokens for word in words)
    ordered = np.sort(np.fromiter(counts.values(), dtype=np.int64))[::-1]
    enough = np.searchsorted(np.cumsum(ordered), FRAME * ordered.sum()) if len(ordered) else 0
    least = int(ordered[enough]) if len(ordered) else 0
    return [_mask(words, counts, least) for words in tokens]


def _mask(words: Words, counts: Counter[str], least: int) -> str:
    parts: list[str] = []
    for word in words:
        part = word if counts[word] >= least else _GAP
        if part != _GAP or parts[-1:] != [_GAP]:
            parts.append(part)
        if len(parts) > PARTS:
            break
    return "" if set(parts) <= {_GAP} else " ".join(parts[:PARTS])


def measure_skeletons(subject: Subject) -> Estimate | None:
    """Shannon entropy, in bits, of the distribution of rows over their skeletons (``list_skeletons``).

    At most log2 of the number of rows, which it has where no two rows share a skeleton; a row without one shares none.
    The settings tell how many skeletons there are, the commonest one, and its rows. The interval holds the frequent
    words fixed. None where no row has a skeleton. Shaib et al. 2024 (arXiv 2407.00211) count templates of
    part-of-speech tags, which take a tagger.
    """
    skeletons = list_skeletons(subject.tokens)
    counts = Counter(filter(None, skeletons))
    if not counts:
        return None
    most = max(counts, key=lambda skeleton: (counts[skeleton], skeleton))
    settings: dict[str, str | float] = {
        "skeletons": len(counts) + skeletons.count(""), "skeleton": most, "skeleton_rows": counts[most],
        "frame": FRAME, "parts": PARTS, "tokens": TOKENS,
    }  # fmt: skip
    (found,) = count_ngrams([[skeleton or f"{_GAP}{row}"] for row, skeleton in enumerate(skeletons)], most=1)
    return estimate_entropy(subject, found, settings)


def measure_shared_sequences(subject: Subject) -> Estimate | None:
    """Fraction of rows that hold a sequence of four words which over 1% of the rows, and more than five, hold.

    The settings tell how many such sequences there are, and the commonest one. The interval holds the sequences fixed.
    None where no row has four words.
    """
    counts = subject.once(ngram_counts)[-1]
    if not counts.total:
        return None
    rows_of = np.bincount(counts.gram, minlength=counts.grams)
    shared = rows_of > max(SHARED_ROWS, SHARED * subject.n)
    hits = np.bincount(counts.row[shared[counts.gram]], minlength=subject.n) > 0
    settings: dict[str, str | float] = {
        "sequences": int(shared.sum()), "ngram": SIZES[-1], "least_rows": SHARED_ROWS, "least": SHARED, "tokens": TOKENS
    }  # fmt: skip
    if shared.any():
        holders = counts.row[counts.gram == rows_of.argmax()]  # the first in the order of words, if several lead
        common = set.intersection(*(_sequences(subject.tokens[row]) for row in holders.tolist()))
        settings["sequence"], settings["sequence_rows"] = " ".join(min(common)), len(holders)
    return estimate_hits(subject, hits, settings)


def _sequences(words: Words) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + SIZES[-1]]) for start in range(len(words) - SIZES[-1] + 1)}
