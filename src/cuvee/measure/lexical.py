"""Diversity of words: what n-grams say (counted once, as arrays), running text, pairs of rows, compression, length."""

from __future__ import annotations

import bz2
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from cuvee.fingerprint import derive_seed
from cuvee.measure.intervals import SHARE, Settings, estimate_by_jackknife, means_without
from cuvee.measure.subject import Subject
from cuvee.records import Estimate, Floats, Ints

SIZES = (1, 2, 3, 4)
TOKENS = "lower-case words of Unicode's annex 29, graphemes without spaces"
SMOOTHING = 0.1  # counts added to a precision of zero: method 1 of Chen and Cherry 2014, as nltk sets it
FACTOR = 0.72  # type-token ratio at which a factor of MTLD ends
SHORTEST_FACTOR = 10
MOST_WORDS = 2_000  # of a row in ROUGE-L, whose time is quadratic in them; what follows is cut
MOST_ROWS = 2_000  # of ROUGE-L, two million pairs; above, a sample of rows
_MOST_BYTES, _MOST_JOINED = 2_000_000, 300_000  # bytes compressed, words joined: above, no bin is left out in turn
_TILE = 256
_TOKEN = re.compile(r"[a-z0-9]+")
_WORD_CHARACTER = re.compile(r"[^\W_]")
_LATIN_ENOUGH = 0.5


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


# --- running text ---
def measure_mtld(subject: Subject) -> Estimate | None:
    """MTLD (McCarthy and Jarvis 2010): words it takes until the type-token ratio falls below 0.72.

    The measure of lexical diversity that depends least on the amount of text. It is made for running text: rows
    are joined in the order of a seeded hash of their text, so that their order does not matter and neighbours
    have nothing in common but the corpus; unlike distinct-n it does not fall with the number of rows.

    The interval computes it anew with each of at most 16 merged bins left out; there is none above 300,000 words.
    None where all words differ, as the ratio then never falls.
    """
    texts, tokens = subject.corpus.texts, subject.tokens
    value = _joined_mtld(texts, tokens, subject.seed)
    if value is None:
        return None
    bins = subject.merged_bins

    def without() -> NDArray[np.float64]:
        out: list[float] = []
        for left_out in range(int(bins.max()) + 1):
            kept = np.flatnonzero(bins != left_out).tolist()
            found = _joined_mtld([texts[i] for i in kept], [tokens[i] for i in kept], subject.seed)
            out.append(math.nan if found is None else found)
        return np.array(out)

    settings: dict[str, str | float] = {
        "factor": FACTOR, "shortest_factor": SHORTEST_FACTOR, "tokens": TOKENS, "order": "seeded hash of the text"
    }  # fmt: skip
    if sum(map(len, tokens)) > _MOST_JOINED:
        return Estimate(value=value, n=subject.n, settings=settings | {"no_interval": f"above {_MOST_JOINED} words"})
    return estimate_by_jackknife(subject, value, without, settings, bins=bins)


def mtld(words: Sequence[str]) -> float | None:
    """MTLD of running text, the mean of a forward and a backward pass; None where all words differ.

    A factor ends where at least ten words have a type-token ratio below 0.72; the rest counts as the part of a
    factor that its ratio has fallen (McCarthy and Jarvis 2010, Behavior Research Methods 42:381).
    """
    if len(set(words)) == len(words):
        return None
    # a word that repeats makes factors of either pass positive: within a factor the ratio is below 1
    return (len(words) / _factors(words) + len(words) / _factors(words[::-1])) / 2


def _factors(words: Sequence[str]) -> float:
    factors, length, seen = 0.0, 0, set[str]()
    for word in words[:-1]:
        seen.add(word)
        length += 1
        if length >= SHORTEST_FACTOR and len(seen) / length < FACTOR:
            factors, length = factors + 1.0, 0
            seen.clear()
    seen.add(words[-1])
    return factors + (1.0 - len(seen) / (length + 1)) / (1.0 - FACTOR)


def _joined_mtld(texts: Sequence[str], tokens: Sequence[Sequence[str]], seed: int) -> float | None:
    order = _text_order(texts, seed=seed, label="mtld").tolist()
    return mtld([word for row in order for word in tokens[row]])


# --- pairs of rows ---
def measure_rouge_l(subject: Subject) -> Estimate | None:
    """Homogenisation by ROUGE-L (Padmakumar and He 2024, arXiv 2309.05196; Shaib et al., arXiv 2403.00553).

    The mean over all pairs of different rows of the F1 of ROUGE-L (Lin 2004): twice the longest common
    subsequence of words over the words of both rows, the same whichever row is the reference. Tokens are those of
    the rouge-score package without stemming: runs of a-z and 0-9. A row of no token scores 0 with every other.

    Above 2,000 rows the pairs are those of a seeded sample of 2,000 rows, which does not depend on their order;
    the interval covers the chance of the sample. Of each row the first 2,000 words are read, as time grows with their
    square; the settings say how many rows were cut. None below two rows, and where over half of the letters are of
    other alphabets, which these tokens leave out.
    """
    order = _text_order(subject.corpus.texts, seed=subject.seed, label="rouge_l")[:MOST_ROWS]
    texts = [subject.corpus.texts[row] for row in order.tolist()]
    whole = [_TOKEN.findall(text.lower()) for text in texts]
    rows = [words[:MOST_WORDS] for words in whole]
    if len(rows) < 2 or not _is_latin(texts, whole):
        return None
    bins = np.unique(subject.bins[order], return_inverse=True)[1]
    by_bin = rouge_l_sums(rows, bins)
    m = len(rows)
    value = math.fsum(by_bin.sum(axis=1).tolist()) / (m * (m - 1))

    def without() -> Floats:
        between = np.zeros((by_bin.shape[1], by_bin.shape[1]))
        np.add.at(between, bins, by_bin)
        left = m - np.bincount(bins)
        rest = between.sum() - 2.0 * between.sum(axis=1) + np.diag(between)
        return np.asarray(np.maximum(0.0, rest) / np.where(left > 1, left * (left - 1.0), np.nan))

    settings: dict[str, str | float] = {
        "tokens": "runs of a-z and 0-9", "stemmer": "none", "rows": m, "pairs": m * (m - 1) // 2
    }  # fmt: skip
    if cut := sum(len(words) > MOST_WORDS for words in whole):
        settings |= {"cut to words": MOST_WORDS, "rows cut": cut}
    return estimate_by_jackknife(subject, value, without, settings, bins=bins, bounds=SHARE)


def rouge_l_sums(rows: Sequence[Sequence[str]], bins: NDArray[np.int64]) -> Floats:
    """Sums of ROUGE-L F1 of each row with the other rows of each bin, shape (n, bins).

    Args:
        rows: words of n rows.
        bins: bin of each row, shape (n,), numbered from 0.
    """
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cdist

    number: dict[str, int] = {}
    # one code point a word: the longest common subsequence of strings is then that of words
    coded = ["".join(chr(number.setdefault(word, len(number))) for word in words) for words in rows]
    lengths = np.array([len(words) for words in rows], dtype=np.float64)
    member = np.zeros((len(rows), int(bins.max(initial=0)) + 1))
    member[np.arange(len(rows)), bins] = 1.0
    out = np.zeros_like(member)
    for start in range(0, len(rows), _TILE):
        stop = min(start + _TILE, len(rows))
        common = cdist(coded[start:stop], coded[start:], scorer=LCSseq.similarity, dtype=np.int32)
        both = lengths[start:stop, None] + lengths[None, start:]
        score = 2.0 * common / np.maximum(both, 1.0)
        score[np.arange(stop - start), np.arange(stop - start)] = 0.0
        out[start:stop] += score @ member[start:]
        # the pairs with rows past the tile count for both of their rows
        out[stop:] += score[:, stop - start :].T @ member[start:stop]
    return out


def _is_latin(texts: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    kept = sum(len(word) for words in rows for word in words)
    return kept > 0 and kept >= _LATIN_ENOUGH * sum(len(_WORD_CHARACTER.findall(text)) for text in texts)


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


def _text_order(texts: Sequence[str], *, seed: int, label: str) -> Ints:
    """Rows in the order of a seeded hash of their text, shape (n,).

    Copies of one text are told apart by their number, so that each falls to a place of its own: the first m rows
    of the order are a simple random sample of m rows. Which copy stands at which place is arbitrary, and no
    matter where only texts count.

    Args:
        texts: n texts.
        seed, label: name the order; other names, another order.
    """
    key = derive_seed(seed, label).to_bytes(8, "little")
    copies: dict[str, int] = {}
    hashes: list[tuple[bytes, int]] = []
    for row, text in enumerate(texts):
        copy = copies.get(text, 0)
        copies[text] = copy + 1
        data = copy.to_bytes(4, "little") + text.encode("utf-8", "surrogatepass")
        hashes.append((blake2b(data, digest_size=16, key=key).digest(), row))
    return np.array([row for _, row in sorted(hashes)], dtype=np.int64)
