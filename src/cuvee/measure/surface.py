"""Shift that can be read off the surface: labels, lengths and words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cuvee.fingerprint import derive_rng
from cuvee.measure.intervals import count_by_bin, estimate_two_samples
from cuvee.measure.ngrams import count_ngrams
from cuvee.measure.subject import Subject
from cuvee.records import Estimate

Floats = NDArray[np.float64]


def measure_label_distance(subject: Subject) -> Estimate | None:
    """Total variation distance of the label distributions: half the sum of absolute differences, 0 to 1.

    Biased upward where rows are few: about ``sqrt(labels (1/n + 1/m) / (2 pi))`` without any shift. None for tasks
    without labels.
    """
    if subject.corpus.task != "classification":
        return None
    labels = {label: i for i, label in enumerate(sorted({*subject.corpus.labels, *subject.real.labels}))}
    ours = count_by_bin(np.array([labels[t] for t in subject.corpus.targets]), subject.bins, len(labels))
    theirs = count_by_bin(np.array([labels[t] for t in subject.real.targets]), subject.against_bins, len(labels))
    p, q = ours.sum(axis=0), theirs.sum(axis=0)
    return _at_least_zero(
        estimate_two_samples(
            subject,
            float(_total_variation(p, q)),
            lambda: (_total_variation(p - ours, q), _total_variation(p, q - theirs)),
            {"labels": len(labels), "against_rows": len(subject.real)},
        )
    )


def measure_length_distance(subject: Subject) -> Estimate | None:
    """1-Wasserstein distance of the numbers of words, in standard deviations of the real rows.

    The mean over quantiles of how much longer or shorter a row is: 1 where every row is one standard deviation too
    long. Biased upward where rows are few. None where all real rows have the same number of words.
    """
    lengths, others = (np.array([len(words) for words in rows]) for rows in (subject.tokens, subject.real_tokens))
    size = int(max(lengths.max(), others.max())) + 1
    ours = count_by_bin(lengths, subject.bins, size)
    theirs = count_by_bin(others, subject.against_bins, size)
    p, q = ours.sum(axis=0), theirs.sum(axis=0)
    scale = float(_deviation(q))
    if not scale > 0:
        if _wasserstein(p, q) > 0:
            return None
        scale = 1.0
    return _at_least_zero(
        estimate_two_samples(
            subject,
            float(_wasserstein(p, q)) / scale,
            lambda: (
                _wasserstein(p - ours, q) / scale,
                _wasserstein(p, q - theirs) / _positive(_deviation(q - theirs)),
            ),
            {
                "mean_words": float(p @ np.arange(size) / p.sum()),
                "real_mean_words": float(q @ np.arange(size) / q.sum()),
                "real_sd_words": scale,
                "against_rows": len(subject.real),
            },
        )
    )


def measure_ngram_jsd(subject: Subject) -> Estimate | None:
    """Jensen-Shannon divergence (Lin 1991, IEEE Trans. Inf. Theory 37) of the n-gram distributions, in bits.

    Two samples of one distribution have a plain divergence (the setting ``plain``) well above 0, for most n-grams
    are rare. Its mean over random deals of the groups of both sides, in about the true numbers of rows, is taken
    off: 0 on average where there is no shift, and it can be negative. Where all groups are single rows the p-value is
    the share of deals that diverge as much. The interval comes from the plain divergence without each bin. None where
    a side has no n-gram.
    """
    deals = _Deals(subject)
    here, there = deals.by_bin
    p, q = here.sum(axis=0), there.sum(axis=0)
    if not (p.sum() > 0 and q.sum() > 0):
        return None
    plain = float(_divergence(p, q))
    nulls = np.zeros(1) if subject.is_real else deals.divergences(subject.permutations)
    p_value = None
    if deals.single and subject.permutations and not subject.is_real:
        p_value = (1 + int(np.sum(nulls >= plain - 1e-12))) / (len(nulls) + 1)
    bias = float(nulls.mean()) if len(nulls) else 0.0
    return estimate_two_samples(
        subject,
        plain - bias,
        lambda: (
            _each(lambda part: _divergence(p - part, q), here) - bias,
            _each(lambda part: _divergence(p, q - part), there) - bias,
        ),
        {"ngram": 1, "plain": plain, "permutations": len(nulls), "tokens": "lower-case words",
         "against_rows": len(subject.real)},
        p_value=p_value,
    )  # fmt: skip


class _Deals:
    """The word counts of the groups of both sides, and deals of the groups into two new sides."""

    def __init__(self, subject: Subject) -> None:
        from scipy import sparse

        names: list[tuple[bool, str]] = []
        tokens: list[list[str]] = []
        bins: list[int] = []
        sides = {True: (subject.corpus, subject.tokens, subject.bins)}
        sides[False] = (subject.real, subject.real_tokens, subject.against_bins)
        for ours, (corpus, words, bin_of) in sides.items():
            for row in sorted(range(len(corpus)), key=corpus.ids.__getitem__):  # whatever the order of the file
                names.append((ours, corpus.groups[row]))
                tokens.append(words[row])
                bins.append(int(bin_of[row]))
        number = {name: unit for unit, name in enumerate(dict.fromkeys(names))}
        unit = np.array([number[name] for name in names])
        counts = count_ngrams(tokens, most=1)[0]
        self._counts = sparse.csr_array(
            (counts.count.astype(np.float64), (unit[counts.row], counts.gram)), shape=(len(number), counts.grams)
        )
        self._rows = np.bincount(unit)
        self._bins = np.array(bins)[np.unique(unit, return_index=True)[1]]
        self._ours = np.array([ours for ours, _ in number])
        self._n = subject.n
        self._seed = subject.seed
        self.single = bool((self._rows == 1).all())

    @property
    def by_bin(self) -> tuple[Floats, Floats]:
        """n-gram counts of each bin, shape (bins, n-grams), of the corpus and of the real rows."""
        found = []
        for mine in (self._ours, ~self._ours):
            bins = self._bins[mine]
            member = np.zeros((int(bins.max()) + 1, len(self._bins)))
            member[bins, np.flatnonzero(mine)] = 1.0
            found.append(self._sum(member))
        return found[0], found[1]

    def divergences(self, times: int) -> Floats:
        """Plain divergence of random deals, shape (times,)."""
        rng = derive_rng(self._seed, "ngram-deals")
        whole = self._sum(np.ones((1, len(self._rows))))
        out = np.empty(times)
        for start in range(0, times, 25):
            some = min(25, times - start)
            member = np.zeros((some, len(self._rows)))
            for deal in range(some):
                order = rng.permutation(len(self._rows))
                before = np.cumsum(self._rows[order]) - self._rows[order]
                member[deal, order[before < self._n]] = 1.0
            ours = self._sum(member)
            out[start : start + some] = _divergence(ours, whole - ours)
        return out

    def _sum(self, member: Floats) -> Floats:
        """Counts of the groups that each row of ``member`` holds."""
        out: Floats = np.asarray(self._counts.T @ member.T).T
        return out


def _at_least_zero(estimate: Estimate) -> Estimate:
    return estimate if estimate.low is None else replace(estimate, low=max(0.0, estimate.low))


def _total_variation(p: Floats, q: Floats) -> Floats:
    """Half the absolute difference of histograms of counts, along the last axis."""
    out: Floats = 0.5 * np.abs(_shares(p) - _shares(q)).sum(axis=-1)
    return out


def _wasserstein(p: Floats, q: Floats) -> Floats:
    """1-Wasserstein distance of histograms of 0, 1, 2, ... words: the area between their cumulative shares."""
    out: Floats = np.abs(np.cumsum(_shares(p) - _shares(q), axis=-1)).sum(axis=-1)
    return out


def _deviation(counts: Floats) -> Floats:
    """Standard deviation of histograms of 0, 1, 2, ... words."""
    shares, words = _shares(counts), np.arange(counts.shape[-1])
    mean = shares @ words
    out: Floats = np.sqrt(np.maximum(shares @ words.astype(np.float64) ** 2 - mean**2, 0.0))
    return out


def _positive(scales: Floats) -> Floats:
    """1 in the place of 0: rows of one length leave nothing to scale."""
    out: Floats = np.where(scales > 0, scales, 1.0)
    return out


def _divergence(p: Floats, q: Floats) -> Floats:
    """Jensen-Shannon divergence in bits of histograms, along the last axis."""
    one, two = _shares(p), _shares(q)
    middle = 0.5 * (one + two)
    out: Floats = _entropy(middle) - 0.5 * (_entropy(one) + _entropy(two))
    return out


def _entropy(shares: Floats) -> Floats:
    from scipy.special import entr

    out: Floats = entr(shares).sum(axis=-1) / np.log(2.0)
    return out


def _shares(counts: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        out: Floats = counts / counts.sum(axis=-1, keepdims=True)
    return out


def _each(divergence: Callable[[Floats], Floats], parts: Floats) -> Floats:
    """One at a time: all bins by all n-grams at once would take hundreds of megabytes."""
    return np.array([float(divergence(part)) for part in parts])
