"""Numbers of words and characters that are not made of n-grams: MTLD, ROUGE-L, compression, duplicates, length."""

from __future__ import annotations

import bz2
import math
import re
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from cuvee.defects import NEAR_TEXTS, SHINGLE, find_near_texts, first_rows
from cuvee.fingerprint import derive_seed
from cuvee.measure.intervals import Settings, estimate_by_jackknife, estimate_rate, means_without
from cuvee.measure.ngrams import TOKENS
from cuvee.measure.subject import Subject
from cuvee.records import Estimate

FACTOR = 0.72  # type-token ratio at which a factor of MTLD ends
SHORTEST_FACTOR = 10
MOST_ROWS = 2_000  # of ROUGE-L, two million pairs; above, a sample of rows
_MOST_BYTES = 4_000_000  # above, compressing once more for each merged bin takes over five seconds or so
_TILE = 256
_TOKEN = re.compile(r"[a-z0-9]+")
_WORD_CHARACTER = re.compile(r"[^\W_]")
_LATIN_ENOUGH = 0.5
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


# --- running text ---
def measure_mtld(subject: Subject) -> Estimate | None:
    """MTLD (McCarthy and Jarvis 2010): words it takes until the type-token ratio falls below 0.72.

    The measure of lexical diversity that depends least on the amount of text. It is made for running text: rows
    are joined in the order of a seeded hash of their text, so that their order does not matter and neighbours
    have nothing in common but the corpus; unlike distinct-n it does not fall with the number of rows.

    The interval computes it anew with each of at most 16 merged bins left out. None where all words differ, as
    the ratio then never falls.
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
    the interval covers the chance of the sample. None below two rows, and where over half of the letters are of
    other alphabets, which these tokens leave out.
    """
    order = _text_order(subject.corpus.texts, seed=subject.seed, label="rouge_l")[:MOST_ROWS]
    texts = [subject.corpus.texts[row] for row in order.tolist()]
    rows = [_TOKEN.findall(text.lower()) for text in texts]
    if len(rows) < 2 or not _is_latin(texts, rows):
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
        out: Floats = np.maximum(0.0, rest) / np.where(left > 1, left * (left - 1.0), np.nan)
        return out

    settings: dict[str, str | float] = {
        "tokens": "runs of a-z and 0-9", "stemmer": "none", "rows": m, "pairs": m * (m - 1) // 2
    }  # fmt: skip
    return estimate_by_jackknife(subject, value, without, settings, bins=bins)


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
    out; there is none above 4 MB, where that takes many seconds. None where all texts are empty.
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
        return Estimate(value=value, n=subject.n, settings=settings)
    return estimate_by_jackknife(
        subject, value, lambda: np.array([ratio(b) for b in range(int(bins.max()) + 1)]), settings, bins=bins
    )  # fmt: skip


# --- rows that say the same, and how long they are ---
def measure_exact_duplicates(subject: Subject) -> Estimate | None:
    """Fraction of rows that repeat an earlier one, in lower case and without punctuation.

    Which of several copies counts as the first does not change how many repeat it. None where there are no rows.
    """
    if not subject.n:
        return None
    first = first_rows(subject.corpus.texts)
    number = np.unique(first, return_inverse=True)[1]
    value = float((first != np.arange(subject.n)).mean())

    def without() -> Floats:
        rows = np.bincount(subject.bins)
        inside = np.zeros((int(number.max()) + 1, len(rows)), dtype=bool)
        inside[number, subject.bins] = True
        vanish = inside[inside.sum(axis=1) == 1].sum(axis=0)
        out: Floats = 1.0 - (len(inside) - vanish) / (subject.n - rows)
        return out

    settings = {"equal": "lower case, no punctuation, single spaces"}
    return estimate_rate(subject, value, without, settings, paired=True)


def measure_near_duplicates(subject: Subject) -> Estimate | None:
    """Fraction of rows that have another row at a Jaccard similarity of at least 0.8.

    See ``find_near_texts`` for what is compared. It rises with the number of rows. None below two rows.
    """
    if subject.n < 2:
        return None
    found = find_near_texts(subject.corpus.texts, seed=subject.seed)
    rows_of = np.bincount(found.unit, minlength=found.units)
    partners = rows_of - 1 + found.sum_of_partners(rows_of[:, None])[:, 0]
    value = float(rows_of[partners > 0].sum()) / subject.n

    def without() -> Floats:
        bins = int(subject.bins.max()) + 1
        inside = np.bincount(found.unit * bins + subject.bins, minlength=found.units * bins).reshape(-1, bins)
        # a row outside the bin keeps a partner unless all its partners are inside
        keeps = partners[:, None] > inside + found.sum_of_partners(inside)
        hits = np.where(keeps, rows_of[:, None] - inside, 0).sum(axis=0)
        out: Floats = hits / (subject.n - inside.sum(axis=0))
        return out

    settings: Settings = {
        "threshold": NEAR_TEXTS, "shingles": f"{SHINGLE} characters of the normalised text",
        "candidates": found.candidates, "verified": "exact Jaccard",
    }  # fmt: skip
    return estimate_rate(subject, value, without, settings, paired=True)


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
