"""Diversity of words: what n-grams say (counted once, as arrays), running text, compression, length."""

from __future__ import annotations

import bz2
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.intervals import SHARE, Settings, estimate_by_jackknife, estimate_hits, means_without
from cuvee.measure.subject import Subject
from cuvee.records import Estimate, Floats, Ints

SIZES = (1, 2, 3, 4)
TOKENS = "lower-case words of Unicode's annex 29, graphemes without spaces"
SMOOTHING = 0.1  # counts added to a precision of zero: method 1 of Chen and Cherry 2014, as nltk sets it
ENDS = 2  # words of an opening and of an ending
PARTS = 8  # of a skeleton: frequent words and gaps
FRAME = 0.5  # of all words of a corpus, those that its most frequent words make up
SHARED_ROWS, SHARED = 5, 0.01  # a sequence is shared that stands in more rows than both
_GAP = "*"
_MOST_BYTES = 2_000_000  # compressed: above, no bin is left out in turn


@dataclass(frozen=True, slots=True, kw_only=True)
class NgramCounts:
    """How often each n-gram stands in each row; n-grams do not cross rows.

    One entry for each (n-gram, row) that occurs, sorted by n-gram, then row. n-grams are numbered from 0.

    Attributes:
        size: words of an n-gram.
        gram, row, count: shape (entries,): n-gram, row, and how often it stands there.
        grams: number of different n-grams.
    """

    size: int
    gram: Ints
    row: Ints
    count: Ints
    grams: int

    @property
    def total(self) -> int:
        """All n-grams of all rows, with repetitions."""
        return int(self.count.sum())

    @property
    def counts(self) -> Ints:
        """How often each n-gram stands in the corpus, shape (grams,)."""
        return sum_by(self.gram, self.count, self.grams)


@dataclass(frozen=True, slots=True, kw_only=True)
class NgramBins:
    """The same counts for jackknife bins: one entry for each (n-gram, bin) that occurs.

    Attributes:
        gram, bin: shape (entries,).
        count: how often the n-gram stands in the bin, shape (entries,).
        rows: in how many rows of the bin, shape (entries,).
        total: n-grams of each bin, with repetitions, shape (bins,).
    """

    gram: Ints
    bin: Ints
    count: Ints
    rows: Ints
    total: Ints


def sum_by(index: Ints, weights: Ints, length: int) -> Ints:
    """Sums of integer ``weights`` for each value of ``index``, shape (length,); exact below 2**53."""
    return np.bincount(index, weights=weights, minlength=length).astype(np.int64)


def count_ngrams(tokens: Sequence[Sequence[str]], *, most: int = SIZES[-1]) -> tuple[NgramCounts, ...]:
    """n-grams of 1 to ``most`` words of each row, one entry of the tuple for each size."""
    lengths = np.array([len(words) for words in tokens], dtype=np.int64)
    flat = [word for words in tokens for word in words]
    number = {word: i for i, word in enumerate(sorted(set(flat)))}
    words = np.array([number[word] for word in flat], dtype=np.int64)
    row = np.repeat(np.arange(len(tokens)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(flat))  # words from here to the end of the row
    out: list[NgramCounts] = []
    gram = words
    for size in range(1, most + 1):
        starts = np.flatnonzero(left >= size)
        if size > 1:
            # a gram is the gram one word shorter, and its last word
            wider = np.full(len(flat), -1, dtype=np.int64)
            key = gram[starts] * max(1, len(number)) + words[starts + size - 1]
            wider[starts] = np.unique(key, return_inverse=True)[1]
            gram = wider
        out.append(_count(size, gram[starts], row[starts], len(tokens)))
    return tuple(out)


def _count(size: int, gram: Ints, row: Ints, rows: int) -> NgramCounts:
    entries, count = np.unique(gram * max(1, rows) + row, return_counts=True)
    gram, row = np.divmod(entries, max(1, rows))
    grams = int(gram[-1]) + 1 if len(gram) else 0
    return NgramCounts(size=size, gram=gram, row=row, count=count.astype(np.int64), grams=grams)


def ngram_counts(subject: Subject) -> tuple[NgramCounts, ...]:
    """The n-grams of a subject; read it with ``subject.once(ngram_counts)[size - 1]``."""
    return count_ngrams(subject.tokens)


def ngram_bins(subject: Subject) -> tuple[NgramBins, ...]:
    """The n-grams of a subject by jackknife bin; read it with ``subject.once(ngram_bins)[size - 1]``."""
    bins = int(subject.bins.max(initial=0)) + 1
    return tuple(_by_bin(counts, subject.bins, bins) for counts in subject.once(ngram_counts))


def _by_bin(counts: NgramCounts, bin_of_row: Ints, bins: int) -> NgramBins:
    entries, inverse = np.unique(counts.gram * bins + bin_of_row[counts.row], return_inverse=True)
    gram, bin_ = np.divmod(entries, bins)
    count = sum_by(inverse, counts.count, len(entries))
    rows = np.bincount(inverse, minlength=len(entries)).astype(np.int64)
    return NgramBins(gram=gram, bin=bin_, count=count, rows=rows, total=sum_by(bin_, count, bins))


# --- how many, how evenly, how often again ---
def measure_distinct(subject: Subject, size: int) -> Estimate | None:
    """Distinct-n (Li et al. 2016, arXiv 1510.03055): different n-grams over all n-grams of the corpus.

    n-grams do not cross rows. It falls as a corpus grows: compare at equal rows and lengths only. None where
    no row has ``size`` words.
    """
    counts = subject.once(ngram_counts)[size - 1]
    if not counts.grams:
        return None

    def without() -> NDArray[np.float64]:
        bins = subject.once(ngram_bins)[size - 1]
        # only n-grams that stand in one bin vanish when it is left out
        in_one = np.bincount(bins.gram, minlength=counts.grams)[bins.gram] == 1
        alone = np.bincount(bins.bin[in_one], minlength=len(bins.total))
        return _ratio(counts.grams - alone, counts.total - bins.total)

    return estimate_by_jackknife(
        subject, counts.grams / counts.total, without, {"ngram": size, "tokens": TOKENS}, bounds=SHARE
    )


def measure_entropy(subject: Subject, size: int = 2) -> Estimate | None:
    """Shannon entropy, in bits, of the distribution of the corpus over its n-grams (Shannon 1948).

    The plug-in estimate: at most log2 of the number of n-grams, so it rises with the number of rows. Unlike
    distinct-n it sees how evenly the n-grams are used, and not only how many there are (Zhang et al. 2018,
    arXiv 1809.05972, use it for dialogue). None where no row has ``size`` words.
    """
    counts = subject.once(ngram_counts)[size - 1]
    return estimate_entropy(subject, counts, {"ngram": size, "tokens": TOKENS}) if counts.grams else None


def estimate_entropy(subject: Subject, counts: NgramCounts, settings: Settings) -> Estimate:
    """The plug-in entropy, in bits, of what ``counts`` has of the subject's rows: at least one n-gram."""
    all_counts = counts.counts
    values, times = np.unique(all_counts, return_counts=True)
    spread = math.fsum((times * _count_log(values)).tolist())
    value = max(0.0, math.log2(counts.total) - spread / counts.total)

    def without() -> NDArray[np.float64]:
        bins = _by_bin(counts, subject.bins, int(subject.bins.max(initial=0)) + 1)
        before = all_counts[bins.gram]
        change = _count_log(before) - _count_log(before - bins.count)
        left = counts.total - bins.total
        rest = np.full(len(left), spread)
        np.subtract.at(rest, bins.bin, change)
        return np.asarray(np.log2(np.where(left > 0, left, np.nan)) - _ratio(rest, left))

    return estimate_by_jackknife(subject, value, without, settings)


def _count_log(counts: Ints) -> NDArray[np.float64]:
    real = counts.astype(np.float64)
    return np.asarray(real * np.log2(np.maximum(real, 1.0)))


def _ratio(top: NDArray[np.float64] | Ints, bottom: Ints) -> NDArray[np.float64]:
    """The ratio, nan where nothing is left."""
    return np.asarray(top / np.where(bottom > 0, bottom, np.nan))


def measure_self_repetition(subject: Subject) -> Estimate | None:
    """Fraction of all 4-grams of words that stand in another row too.

    Self-repetition (Salkar et al. 2022, aclanthology 2022.aacl-short.42; Shaib et al., arXiv 2403.00553) made
    independent of text length: as published, it is the mean of log(1 + number of such 4-grams of a row), and the same
    words cut into longer rows score many times higher. It rises with the number of rows. None where no row has four
    words.
    """
    counts = subject.once(ngram_counts)[-1]
    if not counts.total:
        return None
    rows_of = np.bincount(counts.gram, minlength=counts.grams)
    repeated = np.where(rows_of[counts.gram] > 1, counts.count, 0)

    def without() -> Floats:
        bins = subject.once(ngram_bins)[-1]
        mine = sum_by(subject.bins[counts.row], repeated, len(bins.total))
        # all rows but one lie in the bin: what is left of the n-gram is in one row, and no longer repeated
        last = (rows_of[bins.gram] > 1) & (rows_of[bins.gram] - bins.rows == 1)
        lost = sum_by(bins.bin[last], (counts.counts[bins.gram] - bins.count)[last], len(bins.total))
        return _ratio(int(repeated.sum()) - mine - lost, counts.total - bins.total)

    value = int(repeated.sum()) / counts.total
    return estimate_by_jackknife(subject, value, without, {"ngram": SIZES[-1], "tokens": TOKENS}, bounds=SHARE)


# --- self-BLEU ---
def measure_self_bleu(subject: Subject) -> Estimate | None:
    """Self-BLEU (Zhu et al. 2018, arXiv 1802.01886): mean BLEU-4 of each row against all the others.

    BLEU as in Papineni et al. 2002, uniform weights over 1- to 4-grams, the closest reference length (the shorter
    at a tie), zero precisions smoothed by method 1 of Chen and Cherry 2014; the value of nltk's
    ``sentence_bleu``, row by row. It needs the largest count of each n-gram among the *other* rows; the two
    largest over all rows give it, so the work grows with the number of words, not of pairs.

    The interval is exact too: when a bin is left out, the largest other count changes only where its row is in
    that bin, and is then the largest one outside of it. None where there are fewer than two rows.
    """
    if subject.n < 2:
        return None
    counts = subject.once(ngram_counts)
    lengths = np.array([len(words) for words in subject.tokens], dtype=np.int64)
    entries = [_largest_first(c) for c in counts]
    matches = [_clip(each, subject.n) for each in entries]
    rows_of_length = np.bincount(lengths)
    scores = _bleu(matches, lengths, _closest(rows_of_length))

    def without() -> Floats:
        out: list[float] = []
        for left_out in range(int(subject.bins.max()) + 1):
            kept = subject.bins != left_out
            fewer = [_clip_without(each, found, kept)[kept] for each, found in zip(entries, matches, strict=True)]
            gone = np.bincount(lengths[~kept], minlength=len(rows_of_length))
            out.append(float(_bleu(fewer, lengths[kept], _closest(rows_of_length - gone)).mean()))
        return np.array(out)

    settings: dict[str, str | float] = {
        "ngram": SIZES[-1], "tokens": TOKENS, "smoothing": "method 1, 0.1", "references": "all other rows"
    }  # fmt: skip
    return estimate_by_jackknife(subject, math.fsum(scores.tolist()) / subject.n, without, settings, bounds=SHARE)


def _bleu(matches: Sequence[Ints], lengths: Ints, closest: Ints) -> Floats:
    """BLEU of each row from its clipped matches of each size, its length, and the reference length by length."""
    log_precision = np.zeros(len(lengths))
    for size, matched in zip(SIZES, matches, strict=True):
        possible = np.maximum(1, lengths - size + 1)
        log_precision += np.log(np.where(matched == 0, SMOOTHING, matched) / possible) / len(SIZES)
    reference = closest[lengths]
    penalty = np.where(lengths > reference, 0.0, 1.0 - reference / np.maximum(1, lengths))
    return np.asarray(np.where(matches[0] == 0, 0.0, np.exp(log_precision + penalty)))


def _closest(rows_of_length: Ints) -> Ints:
    """For each length that occurs, the closest length of another row, the shorter at a tie; shape (longest + 1,)."""
    length = np.arange(len(rows_of_length))
    far = 4 * len(length) + 4
    present = rows_of_length > 0
    below = np.maximum.accumulate(np.where(present, length, -far))
    above = np.minimum.accumulate(np.where(present, length, far)[::-1])[::-1]
    below, above = np.append(-far, below[:-1]), np.append(above[1:], far)
    nearest = np.where(length - below <= above - length, below, above)
    return np.asarray(np.where(rows_of_length > 1, length, nearest))


# n-gram, row and count of each entry, by n-gram, the row that has it most often first.
Entries = tuple[Ints, Ints, Ints]


def _largest_first(counts: NgramCounts) -> Entries:
    order = np.lexsort((-counts.count, counts.gram))
    return counts.gram[order], counts.row[order], counts.count[order]


def _clip(entries: Entries, rows: int) -> Ints:
    """Clipped matches of each row: its n-grams, each at most as often as the other row that has it most often."""
    gram, row, count = entries
    is_first = np.diff(gram, prepend=-1) > 0
    first = np.flatnonzero(is_first)
    sizes = np.diff(np.append(first, len(gram)))
    second = np.where(sizes > 1, np.append(count, 0)[first + 1], 0)
    other = np.where(is_first, np.repeat(second, sizes), np.repeat(count[first], sizes))
    return sum_by(row, np.minimum(count, other), rows)


def _clip_without(entries: Entries, matches: Ints, kept: NDArray[np.bool_]) -> Ints:
    """The matches of the rows that are ``kept``, shape (n,), among each other.

    They change for n-grams only of which one of the first two rows goes.
    """
    gram, row, count = entries
    stays, leads = kept[row], np.append([-1, -1], gram)[: len(gram)] != gram
    touched = np.zeros(int(gram.max(initial=-1)) + 1, dtype=bool)
    touched[gram[leads & ~stays]] = True
    before = touched[gram]
    old, new = ((gram[part], row[part], count[part]) for part in (before, before & stays))
    return matches - _clip(old, len(matches)) + _clip(new, len(matches))


# --- compression ---
def measure_compression(subject: Subject) -> Estimate | None:
    """Bytes of the rows, one a line, over their bytes after bzip2 (Shaib et al., arXiv 2403.00553, with gzip).

    Rows are sorted first, so that their order does not matter. gzip sees a repetition within 32 kB only, bzip2 within
    900 kB; it is also the one that order touches least: sorted or shuffled, 13,000 queries of 650 kB differ by 2%
    (LZMA 11%, gzip 16%).

    It rises with the size of the corpus. The interval compresses anew with each of at most 16 merged bins left
    out; there is none above 2 MB, where that takes seconds. None where all texts are empty.
    """
    bins = subject.merged_bins
    rows = sorted(zip(subject.corpus.texts, bins.tolist(), strict=True))
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text, _ in rows)
    if not size:
        return None

    def ratio(left_out: int) -> float:
        data = "\n".join(text for text, b in rows if b != left_out).encode("utf-8", "surrogatepass")
        return len(data) / len(bz2.compress(data, 9))

    value, settings = ratio(-1), {"compressor": "bzip2, level 9", "order": "sorted"}
    if size > _MOST_BYTES:
        return Estimate(value=value, n=subject.n, settings=settings | {"no_interval": f"above {_MOST_BYTES} bytes"})
    return estimate_by_jackknife(
        subject, value, lambda: np.array([ratio(b) for b in range(int(bins.max()) + 1)]), settings, bins=bins
    )


def measure_mean_words(subject: Subject) -> Estimate | None:
    """Mean number of words a row; most other numbers depend on it. None where there are no rows."""
    if not subject.n:
        return None
    lengths = np.array([len(words) for words in subject.tokens], dtype=np.int64)
    value = int(lengths.sum()) / subject.n
    return estimate_by_jackknife(subject, value, lambda: means_without(lengths, subject.bins), {"tokens": TOKENS})


# --- templates: rows that begin alike, end alike, have one skeleton, or hold one sequence of words ---
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


def _measure_commonest(subject: Subject, parts: Sequence[Sequence[str]], name: str) -> Estimate | None:
    found = [" ".join(words) if len(words) == ENDS else "" for words in parts]
    counts = Counter(filter(None, found))
    if not counts:
        return None
    most = max(counts, key=lambda part: (counts[part], part))
    settings: dict[str, str | float] = {name: most, "ngram": ENDS, "tokens": TOKENS}
    return estimate_hits(subject, np.array([part == most for part in found]), settings)


def list_skeletons(tokens: Sequence[Sequence[str]]) -> list[str]:
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


def _mask(words: Sequence[str], counts: Counter[str], least: int) -> str:
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


def _sequences(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + SIZES[-1]]) for start in range(len(words) - SIZES[-1] + 1)}
