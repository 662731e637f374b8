"""Self-BLEU: how much of each row the other rows already say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.intervals import estimate_by_jackknife
from cuvee.measure.lexical.ngrams import SIZES, TOKENS, Ints, NgramCounts, count_ngrams, ngram_counts, sum_by
from cuvee.measure.subject import Subject
from cuvee.records import Estimate

Floats = NDArray[np.float64]
SMOOTHING = 0.1  # counts added to a precision of zero: method 1 of Chen and Cherry 2014, as nltk sets it


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lost:
    """Matches of one n-gram size that a row loses when a bin is left out; one entry each, sorted by bin."""

    row: Ints
    bin: Ints
    matches: Ints


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
    matches = [_matches(c, subject.n) for c in counts]
    scores = _bleu(matches, lengths, _closest(np.bincount(lengths)))

    def without() -> Floats:
        return _means_without(counts, matches, lengths, subject.bins)

    settings: dict[str, str | float] = {
        "ngram": SIZES[-1], "tokens": TOKENS, "smoothing": "method 1, 0.1", "references": "all other rows"
    }  # fmt: skip
    return estimate_by_jackknife(subject, math.fsum(scores.tolist()) / subject.n, without, settings)


def self_bleu_scores(tokens: Sequence[Sequence[str]]) -> Floats:
    """BLEU-4 of each row of words against all the others, shape (n,).

    Raises:
        ValueError: fewer than two rows.
    """
    if len(tokens) < 2:
        raise ValueError(f"tokens has {len(tokens)!r} rows; a row needs at least one other, give 2 or more")
    lengths = np.array([len(words) for words in tokens], dtype=np.int64)
    matches = [_matches(counts, len(tokens)) for counts in count_ngrams(tokens)]
    return _bleu(matches, lengths, _closest(np.bincount(lengths)))


def _bleu(matches: Sequence[Ints], lengths: Ints, closest: Ints) -> Floats:
    """BLEU of each row from its clipped matches of each size, its length, and the reference length by length."""
    log_precision = np.zeros(len(lengths))
    for size, matched in zip(SIZES, matches, strict=True):
        possible = np.maximum(1, lengths - size + 1)
        log_precision += np.log(np.where(matched == 0, SMOOTHING, matched) / possible) / len(SIZES)
    reference = closest[lengths]
    penalty = np.where(lengths > reference, 0.0, 1.0 - reference / np.maximum(1, lengths))
    out: Floats = np.where(matches[0] == 0, 0.0, np.exp(log_precision + penalty))
    return out


def _closest(rows_of_length: Ints) -> Ints:
    """For each length that occurs, the closest length of another row, the shorter at a tie; shape (longest + 1,)."""
    length = np.arange(len(rows_of_length))
    far = 4 * len(length) + 4
    present = rows_of_length > 0
    below = np.maximum.accumulate(np.where(present, length, -far))
    above = np.minimum.accumulate(np.where(present, length, far)[::-1])[::-1]
    below, above = np.append(-far, below[:-1]), np.append(above[1:], far)
    nearest = np.where(length - below <= above - length, below, above)
    out: Ints = np.where(rows_of_length > 1, length, nearest)
    return out


def _matches(counts: NgramCounts, rows: int) -> Ints:
    """Clipped matches of each row: its n-grams, each at most as often as the other row that has it most often."""
    order, starts = _largest_first(counts)
    count = counts.count[order]
    segment = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(order))))
    at = np.arange(len(order))
    first = starts[segment]
    second = np.minimum(first + 1, len(order) - 1)
    other = np.where(at == first, np.where(_within(second, segment), count[second], 0), count[first])
    return sum_by(counts.row[order], np.minimum(count, other), rows)


def _means_without(counts: Sequence[NgramCounts], matches: Sequence[Ints], lengths: Ints, bins: Ints) -> Floats:
    lost = [_lost_matches(c, bins) for c in counts]
    lengths_all = np.bincount(lengths)
    out: list[float] = []
    for left_out in range(int(bins.max()) + 1):
        kept = np.flatnonzero(bins != left_out)
        fewer = []
        for matched, change in zip(matches, lost, strict=True):
            part = slice(*np.searchsorted(change.bin, [left_out, left_out + 1]).tolist())
            fewer.append((matched - sum_by(change.row[part], change.matches[part], len(bins)))[kept])
        closest = _closest(lengths_all - np.bincount(lengths[bins == left_out], minlength=len(lengths_all)))
        out.append(float(_bleu(fewer, lengths[kept], closest).mean()))
    return np.array(out)


def _lost_matches(counts: NgramCounts, bins: Ints) -> _Lost:
    """What each row loses when the bin of the other row that has an n-gram most often is left out."""
    order, starts = _largest_first(counts)
    count, row = counts.count[order], counts.row[order]
    bin_ = bins[row]
    none = len(order)
    sizes = np.diff(np.append(starts, none))
    segment = np.repeat(np.arange(len(starts)), sizes)
    at = np.arange(none)
    padded = np.append(count, 0)

    def first_where(condition: NDArray[np.bool_]) -> Ints:
        """Place of the first entry of each n-gram that meets the condition, ``none`` where there is none."""
        return np.minimum.reduceat(np.where(condition, at, none), starts) if none else at

    top = starts
    runner_up = np.where(sizes > 1, top + 1, none)
    runner_up_bin = np.append(bin_, -1)[runner_up]
    elsewhere = first_where(bin_ != bin_[top][segment])  # outside the bin of the top entry
    elsewhere_next = first_where((bin_ != bin_[top][segment]) & (at > elsewhere[segment]))
    past_both = first_where((bin_ != runner_up_bin[segment]) & (at > top[segment]))  # outside that of the runner-up
    is_top = at == top[segment]
    largest = np.where(is_top, runner_up[segment], top[segment])
    fallback = np.where(
        is_top, past_both[segment], np.where(at == elsewhere[segment], elsewhere_next[segment], elsewhere[segment])
    )
    matches = np.minimum(count, padded[largest]) - np.minimum(count, padded[fallback])
    changes = np.flatnonzero(matches > 0)
    blame = np.append(bin_, -1)[largest[changes]]
    by_bin = np.argsort(blame, kind="stable")
    return _Lost(row=row[changes][by_bin], bin=blame[by_bin], matches=matches[changes][by_bin])


def _largest_first(counts: NgramCounts) -> tuple[Ints, Ints]:
    """Entries by n-gram, the most frequent row first; and where each n-gram starts."""
    order = np.lexsort((-counts.count, counts.gram))
    starts = np.searchsorted(counts.gram, np.arange(counts.grams))
    return order, starts


def _within(place: Ints, segment: Ints) -> NDArray[np.bool_]:
    """Whether an entry one further is of the same n-gram."""
    out: NDArray[np.bool_] = (segment[place] == segment) & (place != np.arange(len(segment)))
    return out
