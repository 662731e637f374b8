"""What rows show on their surface: labels, lengths and words beside the real ones, broken, repeated and leaked rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import first_same
from cuvee.defects import COPY, GROUNDED, SetLeakFinder, degenerate_rows, grounded_shares, pair_reason
from cuvee.errors import TrainingError
from cuvee.fingerprint import derive_seed
from cuvee.measure import intervals
from cuvee.measure.subject import Subject
from cuvee.probe import cross_validated_proba, fit_probe
from cuvee.records import Estimate, Floats

_READ_REAL = 100
LEAST_POWER = 0.2  # below, the probe knows too little of the labels to say


def measure_label_distance(subject: Subject) -> Estimate | None:
    """Total variation distance of the label distributions: half the sum of absolute differences, 0 to 1.

    Biased upward where rows are few: about ``sqrt(labels (1/n + 1/m) / (2 pi))`` without any shift. None for tasks
    without labels.
    """
    if not subject.corpus.has_labels:
        return None
    labels = {label: i for i, label in enumerate(sorted({*subject.corpus.labels, *subject.real.labels}))}
    ours = intervals.count_by_bin(np.array([labels[t] for t in subject.corpus.targets]), subject.bins, len(labels))
    theirs = intervals.count_by_bin(
        np.array([labels[t] for t in subject.real.targets]), subject.against_bins, len(labels)
    )
    p, q = ours.sum(axis=0), theirs.sum(axis=0)
    return intervals.estimate_two_samples(
        subject,
        float(_total_variation(p, q)),
        lambda: (_total_variation(p - ours, q), _total_variation(p, q - theirs)),
        {"labels": len(labels), "against_rows": len(subject.real)},
        bounds=(0.0, np.inf),
    )


def measure_length_distance(subject: Subject) -> Estimate | None:
    """1-Wasserstein distance of the numbers of words, in standard deviations of the real rows.

    The mean over quantiles of how much longer or shorter a row is: 1 where every row is one standard deviation too
    long. Biased upward where rows are few. None where all real rows have the same number of words.
    """
    lengths, others = (np.array([len(words) for words in rows]) for rows in (subject.tokens, subject.real_tokens))
    size = int(max(lengths.max(), others.max())) + 1
    ours = intervals.count_by_bin(lengths, subject.bins, size)
    theirs = intervals.count_by_bin(others, subject.against_bins, size)
    p, q = ours.sum(axis=0), theirs.sum(axis=0)
    scale = float(_deviation(q))
    if not scale > 0:
        if _wasserstein(p, q) > 0:
            return None
        scale = 1.0
    settings = {
        "mean_words": float(p @ np.arange(size) / p.sum()), "real_mean_words": float(q @ np.arange(size) / q.sum()),
        "real_sd_words": scale, "against_rows": len(subject.real),
    }  # fmt: skip
    return intervals.estimate_two_samples(
        subject,
        float(_wasserstein(p, q)) / scale,
        lambda: (_wasserstein(p - ours, q) / scale, _wasserstein(p, q - theirs) / _positive(_deviation(q - theirs))),
        settings,
        bounds=(0.0, np.inf),
    )


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


def _shares(counts: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        out: Floats = counts / counts.sum(axis=-1, keepdims=True)
    return out


def measure_label_agreement(subject: Subject) -> Estimate | None:
    """Fraction of rows whose label is what a probe fitted on the real training rows says.

    Where the corpus *is* the real data, the probe is cross-validated (5 folds, groups kept together), which
    gives the agreement to compare a pool's with. A label that the real data lacks never agrees. None for
    tasks without labels, or where the real data has rows of one label only.
    """
    real = subject.real
    if not subject.corpus.has_labels or len(real.labels) < 2:
        return None
    seed = derive_seed(subject.seed, "label-agreement")
    try:
        said = _predict_own(subject, seed) if subject.is_real else _predict_pool(subject)
    except TrainingError:  # too few real rows to hold some out
        return None
    hits: NDArray[np.bool_] = np.array(said) == np.array(subject.corpus.targets)
    how = "cross-validated" if subject.is_real else "fitted on the real rows"
    return intervals.estimate_hits(subject, hits, {"probe": how, "probe_rows": len(real)})


def measure_leakage(subject: Subject) -> Estimate | None:
    """Fraction of rows that repeat a held-out text, by words or by embedding (see ``LeakFinder``).

    The setting ``baseline`` is the same fraction of the real training rows. None without held-out texts.
    """
    if not subject.held_out:
        return None
    leaks = subject.leaks
    settings: dict[str, str | float] = {"held_out": len(subject.held_out)}
    if leaks.threshold is not None:
        settings["threshold"] = leaks.threshold
    if leaks.baseline is not None:
        settings["baseline"] = leaks.baseline
    return intervals.estimate_hits(subject, leaks.mask, settings)


def measure_set_leak(subject: Subject) -> Estimate | None:
    """Of the rows whose nearest real row is held out, the fraction much nearer to it than to any other real row.

    Rows that leak by themselves are left out. The p-value is that of ``SetLeakFinder``: below 0.01, the rows look as if
    they had been written from held-out rows. The setting ``baseline`` is the same fraction of the real rows. None
    without real and held-out texts that can be embedded, or where there are too few of them near the rows.
    """
    if subject.against is None or not subject.held_out or subject.given is not None:
        return None
    finder = SetLeakFinder(subject.held_out_unit, subject.against_unit, seed=subject.seed)
    finder.add(subject.unit[~subject.leaks.mask])
    found = finder.find()
    if found is None:
        return None
    settings: dict[str, str | float] = {"baseline": found.baseline, "held_out": len(subject.held_out)}
    settings |= {"near_rows": found.near}
    return Estimate(value=found.rate, n=subject.n, p_value=found.p_value, settings=settings)


def _predict_pool(subject: Subject) -> list[str]:
    probe = fit_probe(subject.against_unit, subject.real.targets)
    return probe.predict(subject.unit)


def _predict_own(subject: Subject, seed: int) -> list[str]:
    corpus = subject.corpus
    proba = cross_validated_proba(subject.unit, corpus.targets, groups=corpus.groups, seed=seed)
    return [corpus.labels[i] for i in proba.argmax(axis=1)]


def measure_degenerate_rate(subject: Subject) -> Estimate:
    """Fraction of rows that are empty, broken, refused, error messages, repetition and so on (``degenerate_rows``).

    Where real rows are given, rows that are cut off or in another language than those count too. The settings hold
    the number of rows of each reason that occurs.
    """
    reference = None if subject.against is None else subject.against.texts
    reasons = degenerate_rows(subject.corpus, reference=reference, prompts=subject.prompts)
    counts = Counter(reason for reason in reasons if reason is not None)
    settings: dict[str, str | float] = {"reference_rows": 0 if reference is None else len(reference)}
    settings |= {reason: float(count) for reason, count in sorted(counts.items())}
    return intervals.estimate_hits(subject, np.array([reason is not None for reason in reasons]), settings)


# --- pairs: answers beside what they answer ---
def measure_groundedness(subject: Subject) -> Estimate:
    """Fraction of rows of whose answer half the content words or more stand in the context, or in the text without one.

    ``cuvee.defects.content_words`` says which words these are. The setting ``mean_share`` is the mean share of them.
    """
    shares = grounded_shares(subject.corpus)
    settings: dict[str, str | float] = {"least": GROUNDED, "mean_share": float(shares.mean())}
    return intervals.estimate_hits(subject, shares >= GROUNDED, settings)


def measure_answer_copies(subject: Subject) -> Estimate:
    """Fraction of rows whose answer is their text or their whole context, word for word."""
    rows = zip(subject.corpus.texts, subject.corpus.targets, subject.corpus.contexts, strict=True)
    copies = np.array([pair_reason(*row, np.inf) == COPY for row in rows])
    return intervals.estimate_hits(subject, copies, {"of": "text or context"})


def measure_answer_repeats(subject: Subject) -> Estimate | None:
    """Fraction of answers that repeat an earlier row's."""
    return measure_exact_duplicates(subject.answers)


def measure_answer_lengths(subject: Subject) -> Estimate | None:
    """``measure_length_distance`` of the answers."""
    return measure_length_distance(subject.answers)


def measure_reader_agreement(subject: Subject) -> Estimate | None:
    """Mean agreement of a reader's answers with those of the rows, 0 to 1; where it has none, 0.

    The setting ``real`` is that of at most 100 real rows.
    """
    if subject.reader is None:
        return None
    own, settings = np.nan_to_num(subject.reader(subject.corpus)), dict[str, str | float](of="token F1")
    if subject.against is not None and not subject.is_real:
        real = np.nan_to_num(subject.reader(subject.against.take(range(min(_READ_REAL, len(subject.against))))))
        settings |= {"real": float(real.mean()), "real_rows": len(real)}
        settings["error"] = float(np.hypot(own.std() / len(own) ** 0.5, real.std() / len(real) ** 0.5))
    value = float(own.mean())
    return intervals.estimate_by_jackknife(subject, value, lambda: intervals.means_without(own, subject.bins), settings)


# --- label noise ---
def measure_label_noise(subject: Subject) -> Estimate | None:
    """Estimated fraction of rows that are mislabelled, by a probe of the real rows.

    Confident learning (Northcutt et al., arXiv 1911.00068): a label is doubted where another one is at least as
    probable as it is, on average, for the rows that carry it, and more probable than all such labels. The thresholds
    are those averages over the real rows, cross-validated. Doubt is not noise, so it is calibrated (Rogan and Gladen
    1978, Am. J. Epidemiol. 107): with the rate of doubt on the real rows as they are (``false_alarms``) and with
    another label in their place (``power``), noise is ``(doubted - false alarms) / (power - false alarms)``, cut to
    0 to 1. It takes the real labels as right, wrong labels as drawn evenly, and the rows as about as hard as the
    real ones. A label that the real data lacks is wrong. The interval holds the probe fixed; there is none where
    all of it lies below 0, as with rows whose labels are doubted less often than real ones.

    None for tasks without labels, where the corpus is the real data, and where the probe hardly doubts wrong labels
    more often than right ones.
    """
    real = subject.real
    if not subject.corpus.has_labels or len(real.labels) < 2 or subject.is_real:
        return None
    try:
        doubts = subject.once(_find_doubts)
    except TrainingError:  # too few real rows to hold some out
        return None
    alarms, power = float(doubts.false_alarms.mean()), float(doubts.power.mean())
    if power - alarms < LEAST_POWER:
        return None
    known = np.isin(subject.corpus.targets, real.labels)
    rows = np.where(known, (doubts.doubted - alarms) / (power - alarms), 1.0)
    raw = float(rows.mean())
    share, doubted = float(known.mean()), float(np.where(known, doubts.doubted, 0.0).mean())

    def without_theirs() -> Floats:
        left = intervals.means_without(doubts.false_alarms, subject.against_bins)
        gain = intervals.means_without(doubts.power, subject.against_bins) - left
        out: Floats = 1.0 - share + (doubted - share * left) / np.where(gain > 0, gain, np.nan)
        return out

    settings: dict[str, str | float] = {
        "doubted": float(np.where(known, doubts.doubted, 1.0).mean()),
        "false_alarms": alarms,
        "power": power,
        "unknown_labels": 1.0 - share,
        "probe_rows": len(real),
    }
    found = intervals.estimate_two_samples(
        subject, raw, lambda: (intervals.means_without(rows, subject.bins), without_theirs()), settings
    )
    # cut only here: the values without each bin must be free to vary about the raw one
    value = float(np.clip(raw, 0.0, 1.0))
    if found.low is None or found.high is None:
        return replace(found, value=value)
    if found.high <= 0.0 or found.low >= 1.0:  # easier rows than the real ones: an interval of no width would mislead
        return replace(found, value=value, low=None, high=None, interval="")
    return replace(found, value=value, low=max(0.0, found.low), high=min(1.0, found.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Doubts:
    """``doubted`` (n,): 1 where a row's label is doubted. Of each real row (m,): ``false_alarms``, the same, and
    ``power``, the share of the wrong labels that would be doubted on it. ``agrees`` (n,) and ``real_agrees`` (m,):
    whether the label is what the probe says.
    """

    doubted: Floats
    false_alarms: Floats
    power: Floats
    agrees: NDArray[np.bool_]
    real_agrees: NDArray[np.bool_]


def agreement_by_label(subject: Subject) -> dict[str, tuple[float, int, float, int]]:
    """Label -> the fraction of its rows that a probe of the real rows agrees with, rows, and both for real rows.

    The real rows' is cross-validated. Labels that either side lacks are left out; empty where there is no probe.
    """
    try:
        doubts = subject.once(_find_doubts)
    except TrainingError:
        return {}
    sides = ((np.array(subject.corpus.targets), doubts.agrees), (np.array(subject.real.targets), doubts.real_agrees))
    found = {}
    for label in subject.real.labels:
        (own, n), (real, m) = (
            (float(agrees[targets == label].mean()) if label in targets else 0.0, int((targets == label).sum()))
            for targets, agrees in sides
        )
        if n and m:
            found[label] = (own, n, real, m)
    return found


def _find_doubts(subject: Subject) -> _Doubts:
    real, seed = subject.real, derive_seed(subject.seed, "label-noise")
    labels = real.labels
    # in the order of ids, so that the order of the file changes nothing
    order = sorted(range(len(real)), key=real.ids.__getitem__)
    vectors, targets = subject.against_unit[order], [real.targets[i] for i in order]
    groups = [real.groups[i] for i in order]
    proba = np.empty((len(real), len(labels)))
    proba[order] = cross_validated_proba(vectors, targets, labels=labels, groups=groups, seed=seed)
    carried = np.array([labels.index(t) for t in real.targets])
    thresholds = np.array([proba[carried == k, k].mean() for k in range(len(labels))])
    said = _confident_label(proba, thresholds)
    false_alarms = (said >= 0) & (said != carried)
    # of the other k - 1 labels all are doubted, but for the one that the probe takes the row for
    power = np.where(said >= 0, 1.0 - false_alarms / (len(labels) - 1.0), 0.0)
    probe = fit_probe(vectors, targets, labels=labels)
    position = {label: k for k, label in enumerate(labels)}
    own = np.array([position.get(t, -1) for t in subject.corpus.targets])
    own_proba = probe.proba(subject.unit)
    ours = _confident_label(own_proba, thresholds)
    return _Doubts(
        doubted=((ours >= 0) & (ours != own)).astype(np.float64),
        false_alarms=false_alarms.astype(np.float64),
        power=power,
        agrees=own_proba.argmax(axis=1) == own,
        real_agrees=proba.argmax(axis=1) == carried,
    )


def _confident_label(proba: Floats, thresholds: Floats) -> NDArray[np.int64]:
    """The most probable of the labels that reach their threshold, -1 where none does, shape (n,)."""
    reached = proba >= thresholds
    best = np.where(reached, proba, -1.0).argmax(axis=1)
    out: NDArray[np.int64] = np.where(reached.any(axis=1), best, -1)
    return out


# --- rows that say the same, and how long they are ---
def measure_exact_duplicates(subject: Subject) -> Estimate | None:
    """Fraction of rows that repeat an earlier one, in lower case and without punctuation.

    Which of several copies counts as the first does not change how many repeat it. None where there are no rows.
    """
    if not subject.n:
        return None
    first = first_same(subject.corpus.texts)
    number = np.unique(first, return_inverse=True)[1]
    value = float((first != np.arange(subject.n)).mean())

    def without() -> Floats:
        rows = np.bincount(subject.bins)
        inside = np.zeros((int(number.max()) + 1, len(rows)), dtype=bool)
        inside[number, subject.bins] = True
        vanish = inside[inside.sum(axis=1) == 1].sum(axis=0)
        out: Floats = 1.0 - (len(inside) - vanish) / (subject.n - rows)
        return out

    settings = {"equal": "all but case, spaces, unseen characters, closing marks"}
    return intervals.estimate_rate(subject, value, without, settings, paired=True)
