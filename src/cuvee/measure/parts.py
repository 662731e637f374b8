"""Diversity of the parts of a corpus: within and between labels, and what synthetic rows add to real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.encoders import Encoder, load_encoder
from cuvee.fingerprint import derive_rng
from cuvee.measure.semantic.bins import LeftOut, estimate_over_bins, estimate_over_both, left_out_everywhere
from cuvee.measure.subject import Subject
from cuvee.records import Added, Decomposition, Estimate, Vectors
from cuvee.similarity import (
    Exponential,
    kernel_diversity,
    kernel_diversity_without,
    row_sums,
    spectra_without,
    spectrum,
    vendi_score,
)

_FEWEST_ROWS = 8  # of a comparison at equal rows
_DRAW_BINS = 16  # bins of each side in it: every draw is measured with each of them left out

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Settings = Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True)
class _Found:
    """A diversity, and the same with each of all bins left out; nan where no row is left."""

    value: float
    without: Floats


_Diversity = Callable[[Vectors, Ints, int], _Found]


def decompose_diversity(
    corpus: Corpus | Subject,
    parts: Sequence[str],
    *,
    encoder: Encoder | None = None,
    tau: float = 0.1,
    seed: int = 0,
) -> tuple[Decomposition, ...]:
    """Diversity of order 1 within and between parts, such as ``corpus.targets`` or ``corpus.origins``.

    For the Vendi score the logarithm of ``within`` is the mean von Neumann entropy of the parts, weighted by
    their rows, and that of ``between`` the Holevo information. For the Leinster-Cobbold diversity with the
    similarity ``exp((cos - 1) / tau)`` they are the normalised alpha and beta of Reeve et al. 2016
    (arXiv 1404.6520). Order 1 is the one order at which total = within * between holds for parts of any size.
    Intervals are jackknifed over groups, the shares of the parts among what varies.

    Args:
        corpus: the rows, or a subject whose vectors and spectra are used.
        parts: name of each row's part.
        encoder: of the texts; None loads the default one. Not used with a subject.
        tau: of the Leinster-Cobbold similarity.
        seed: of the jackknife bins. Not used with a subject.

    Returns:
        the decompositions ``vendi_q1`` and ``lc_q1_tau...``.

    Raises:
        ValueError: no rows, or not one part a row.
    """
    subject = corpus if isinstance(corpus, Subject) else _subject(corpus, None, encoder, seed)
    if subject.n == 0:
        raise ValueError("corpus has no rows; there is nothing to decompose")
    if len(parts) != subject.n:
        raise ValueError(f"parts has {len(parts)!r} names; the corpus has {subject.n} rows, give one each")
    labels = np.asarray(parts)
    members = {str(name): np.flatnonzero(labels == name) for name in sorted(set(parts))}
    count = int(subject.bins.max()) + 1
    if subject.sample is None:
        sums = subject.sums(Exponential(tau))
    else:  # parts must add up to the whole, so every row counts
        sums = row_sums(subject.unit, [Exponential(tau)], bins=subject.bins, compute=subject.compute)[0]
    kernel = _Found(kernel_diversity(sums.total, 1.0), np.full(count, np.nan))
    vendi = _Found(vendi_score(subject.eigenvalues, 1.0), np.full(count, np.nan))
    if count > 1:
        kernel.without[:] = kernel_diversity_without(sums, subject.bins, 1.0)
        vendi.without[:] = [vendi_score(values, 1.0) for values in subject.eigenvalues_without]
    kernel_settings: Settings = {"q": 1.0, "tau": tau, "kernel": "cosine"}
    return (
        _decompose("vendi_q1", subject, members, vendi, _vendi, {"q": 1.0, "kernel": "cosine"}),
        _decompose(f"lc_q1_tau{tau:g}", subject, members, kernel, partial(_kernel, tau, 1.0), kernel_settings),
    )


def added_diversity(
    real: Corpus,
    synthetic: Corpus,
    *,
    encoder: Encoder | None = None,
    tau: float = 0.1,
    seed: int = 0,
    draws: int = 5,
) -> tuple[Added, ...]:
    """What synthetic rows add to the diversity of real ones: Vendi of order 1, and DCScore at ``tau``.

    ``gain`` is paired: a group of real rows that is left out is left out of both the union and the real rows, so
    what they share cancels. ``gain_equal_rows`` is the mean over seeded draws of union (half real, half synthetic)
    less real, both with the same number of rows: as many as the real rows allow, at most twice the synthetic
    ones, whole groups first.

    Args:
        real, synthetic: the two corpora, with at least one row each.
        encoder: of the texts; None loads the default one.
        tau: of DCScore.
        seed: of the jackknife bins and the draws.
        draws: subsamples that ``gain_equal_rows`` is the mean of.

    Returns:
        ``vendi_q1`` and ``dcscore_tau...``.

    Raises:
        ValueError: a corpus without rows, or ``draws`` below 1.
    """
    if min(len(real), len(synthetic)) == 0:
        raise ValueError(f"real has {len(real)!r} rows and synthetic {len(synthetic)!r}; both need at least one")
    if draws < 1:
        raise ValueError(f"draws is {draws!r}; give at least 1")
    return added_diversity_of(_subject(synthetic, real, encoder, seed), tau=tau, draws=draws)


def added_diversity_of(subject: Subject, *, tau: float = 0.1, draws: int = 5) -> tuple[Added, ...]:
    """The same of a subject: what its corpus adds to the real rows it is measured against."""
    settings: Settings = {"tau": tau, "kernel": "cosine"}
    return (
        _add("vendi_q1", subject, _vendi, {"q": 1.0, "kernel": "cosine"}, draws),
        _add(f"dcscore_tau{tau:g}", subject, partial(_kernel, tau, 0.0), settings, draws),
    )


def _subject(corpus: Corpus, against: Corpus | None, encoder: Encoder | None, seed: int) -> Subject:
    return Subject(corpus=corpus, against=against, encoder=encoder or load_encoder(), seed=seed)


# --- one diversity of some rows, and with each bin left out -------------------------------------------
def _vendi(unit: Vectors, bins: Ints, count: int) -> _Found:
    value = vendi_score(spectrum(unit), 1.0)
    present, local = np.unique(bins, return_inverse=True)
    left = np.full(len(present), np.nan)
    if len(present) > 1:
        left = np.array([vendi_score(values, 1.0) for values in spectra_without(unit, local)])
    return _Found(value, left_out_everywhere(present, left, value, count))


def _kernel(tau: float, q: float, unit: Vectors, bins: Ints, count: int) -> _Found:
    present, local = np.unique(bins, return_inverse=True)
    sums = row_sums(unit, [Exponential(tau)], bins=local)[0]
    value = kernel_diversity(sums.total, q)
    left = np.full(len(present), np.nan)
    if len(present) > 1:
        left = kernel_diversity_without(sums, local, q)
    return _Found(value, left_out_everywhere(present, left, value, count))


# --- within and between -------------------------------------------------------------------------------
def _decompose(
    name: str,
    subject: Subject,
    members: Mapping[str, Ints],
    total: _Found,
    diversity: _Diversity,
    settings: Settings,
) -> Decomposition:
    bins, count = subject.bins, len(total.without)
    parts = {part: diversity(subject.unit[rows], bins[rows], count) for part, rows in members.items()}
    rows_left = np.array([len(rows) - np.bincount(bins[rows], minlength=count) for rows in members.values()])
    logs_left = np.array([np.log(found.without) for found in parts.values()])
    rows = np.array([len(r) for r in members.values()])
    logs = np.log([found.value for found in parts.values()])
    within = float(np.exp(rows @ logs / rows.sum()))
    mean_left = np.where(rows_left > 0, rows_left * logs_left, 0.0).sum(axis=0) / np.maximum(rows_left.sum(axis=0), 1)
    within_left = np.exp(mean_left)

    def estimate(value: float, without: Floats) -> Estimate:
        return estimate_over_bins(value, LeftOut(without, bins), settings)

    def estimate_part(part: str) -> Estimate:
        present, local = np.unique(bins[members[part]], return_inverse=True)
        return estimate_over_bins(parts[part].value, LeftOut(parts[part].without[present], local), settings)

    return Decomposition(
        name=name,
        total=estimate(total.value, total.without),
        within=estimate(within, within_left),
        between=estimate(total.value / within, total.without / within_left),
        parts={part: estimate_part(part) for part in members},
        rows={part: len(r) for part, r in members.items()},
    )


# --- real, synthetic and their union ------------------------------------------------------------------
def _add(name: str, subject: Subject, diversity: _Diversity, settings: Settings, draws: int) -> Added:
    real_bins, own_bins = subject.against_bins, subject.bins
    reals, owns = int(real_bins.max()) + 1, int(own_bins.max()) + 1
    real = diversity(subject.against_unit, real_bins, reals)
    synthetic = diversity(subject.unit, own_bins, owns)
    union = diversity(
        np.vstack([subject.against_unit, subject.unit]), np.concatenate([real_bins, own_bins + reals]), reals + owns
    )
    n = len(real_bins) + len(own_bins)

    def estimate(value: float, of_real: Floats, of_own: Floats) -> Estimate:
        return estimate_over_both(value, LeftOut(of_real, real_bins), LeftOut(of_own, own_bins), settings, n=n)

    return Added(
        name=name,
        real=estimate_over_bins(real.value, LeftOut(real.without, real_bins), settings),
        synthetic=estimate_over_bins(synthetic.value, LeftOut(synthetic.without, own_bins), settings),
        union=estimate(union.value, union.without[:reals], union.without[reals:]),
        gain=estimate(
            union.value - real.value, union.without[:reals] - real.without, union.without[reals:] - real.value
        ),
        gain_equal_rows=_equal_rows(subject, diversity, settings, draws),
    )


def _equal_rows(subject: Subject, diversity: _Diversity, settings: Settings, draws: int) -> Estimate | None:
    """The mean gain over draws of real rows and of a union with as many rows; None where there are too few."""
    real, own = subject.real.groups, subject.corpus.groups
    rows = min(len(real), 2 * len(own)) // 2 * 2
    if rows < _FEWEST_ROWS:
        return None
    real_bins, own_bins = subject.against_bins % _DRAW_BINS, subject.bins % _DRAW_BINS
    reals, owns = int(real_bins.max()) + 1, int(own_bins.max()) + 1
    shares = [np.bincount(bins) / len(bins) for bins in (real_bins, own_bins)]
    gains, of_real, of_own = np.empty(draws), np.empty((draws, reals)), np.empty((draws, owns))
    for draw in range(draws):
        rng = derive_rng(subject.seed, "equal-rows", draw)
        real_rows, own_rows = _draw(real, rows, rng), _draw(own, rows // 2, rng)
        half = real_rows[: rows // 2]
        alone = diversity(subject.against_unit[real_rows], real_bins[real_rows], reals)
        bins = np.concatenate([real_bins[half], own_bins[own_rows] + reals])
        union = diversity(np.vstack([subject.against_unit[half], subject.unit[own_rows]]), bins, reals + owns)
        removed = np.bincount(bins, minlength=reals + owns)
        of_real[draw] = _at_share(
            union.value, union.without[:reals], removed[:reals], rows / 2 * shares[0], rows
        ) - _at_share(
            alone.value, alone.without, np.bincount(real_bins[real_rows], minlength=reals), rows * shares[0], rows
        )
        of_own[draw] = (
            _at_share(union.value, union.without[reals:], removed[reals:], rows / 2 * shares[1], rows) - alone.value
        )
        gains[draw] = union.value - alone.value
    return estimate_over_both(
        float(gains.mean()),
        LeftOut(of_real.mean(axis=0), real_bins),
        LeftOut(of_own.mean(axis=0), own_bins),
        {**settings, "rows": rows, "draws": draws},
        n=rows,
    )


def _at_share(value: float, without: Floats, removed: Ints, wanted: Floats, rows: int) -> Floats:
    """Left-out values as if each bin had lost its share of the rows, not what the draw happened to have of it.

    A draw holds more rows of one bin than of another by chance, and diversity grows with rows. The values are
    moved along the power of the row count that they follow on average.
    """
    lost = np.log1p(-removed.mean() / rows)
    power = float(np.clip(np.log(without.mean() / value) / lost, 0.0, 1.0)) if np.isfinite(without).all() else 0.0
    out: Floats = without * ((rows - wanted) / (rows - removed)) ** power
    return out


def _draw(groups: Sequence[str], rows: int, rng: np.random.Generator) -> Ints:
    """That many rows: whole groups in a random order, the last one cut to fit."""
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    place = rng.permutation(len(names))[inverse]
    return np.lexsort((rng.random(len(groups)), place))[:rows]
