"""When measures warn, and what to do: from the courses of an experiment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student

from cuvee.config.collapse import best_weight
from cuvee.records import Course, EarlyWarning, Estimate, Floats, name_measure

_CHAINS = 3  # fewer say nothing of their spread
_WIDTHS = ("label_entropy", "variance", "vendi_q1")  # how wide what is written spreads


def _find_margin(values: Floats, errors: Floats | None, level: float) -> Floats | None:
    """Half the width of the interval of means over chains, or of one chain over its rows; None where it is unknown.

    Args:
        values: shape (n, chains).
        errors: standard errors over the rows of the only chain, shape (n,).
        level: of the upper end alone.
    """
    chains = values.shape[1]
    if chains >= _CHAINS:
        error = values.std(axis=1, ddof=1) / math.sqrt(chains)
        return np.asarray(student.ppf(level, chains - 1) * error)
    return None if chains > 1 or errors is None else np.asarray(norm.ppf(level) * errors)


def average(course: Course, measure: str) -> tuple[Estimate, ...]:
    """Mean over chains with its 95% t interval, by generation; of one chain the interval over its rows, if known."""
    values, errors = course.values[measure], course.errors.get(measure)
    chains, means = values.shape[1], values.mean(axis=1).tolist()
    half = _find_margin(values, None if errors is None else errors[:, 0], 0.975)
    if half is None:
        return tuple(Estimate(value=mean, n=chains) for mean in means)
    kind, both = "t over chains" if chains >= _CHAINS else "normal over rows", zip(means, half.tolist(), strict=True)
    return tuple(Estimate(value=m, low=m - h, high=m + h, n=chains, interval=kind) for m, h in both)


def find_warning(course: Course, score: str, alpha: float) -> EarlyWarning:
    """The first generation at which each measure differs from generation 0, at ``alpha`` over all generations.

    With three chains or more: a paired t test over chains. With one: a z test from the rows' standard errors of both
    generations, which speaks of this chain alone. Bonferroni over the generations; measures stand for themselves.
    """
    first: dict[str, int | None] = {}
    for measure, values in course.values.items():
        change, errors = values[1:] - values[0], course.errors.get(measure)
        both = None if errors is None else np.hypot(errors[1:, 0], errors[0, 0])
        bound = _find_margin(change, both, 1 - alpha / len(change) / 2)
        if bound is not None:
            outside = np.flatnonzero(np.abs(change.mean(axis=1)) > bound)
            first[measure] = int(outside[0]) + 1 if len(outside) else None
    unit = "chains" if course.values[score].shape[1] >= _CHAINS else "rows"
    return EarlyWarning(course=course.name, first=first, score=score, unit=unit)


def word_warning(warning: EarlyWarning) -> str:
    """The warning as a sentence."""
    if not warning.first:
        return f"{warning.course}: two chains tell nothing of their spread; run one, or at least {_CHAINS}."
    if not warning.earliest:
        return f"{warning.course}: no measure leaves its interval of generation 0."
    *others, last = map(name_measure, warning.earliest)
    names, at = " and ".join(filter(None, [", ".join(others), last])), warning.first[warning.earliest[0]]
    score, lead = name_measure(warning.score), warning.lead
    if warning.score in warning.earliest:
        tail = "; no measure warned before the score"
    elif lead is None:
        tail = f"; the {score} never leaves its own"
    else:
        tail = f", {lead} generation{'s' * (lead > 1)} before the {score}"
    return f"{warning.course}: {names} left the interval of generation 0 first, at generation {at}{tail}."


def advise(
    courses: Sequence[Course], score: str, delta: float, *, weights: Mapping[str, float], alpha: float = 0.05
) -> list[str]:
    """What keeps the score within ``delta`` of generation 0, as a fraction of it, to the last generation.

    A course keeps it where the upper end of the interval of its change over chains lies below ``delta``, and where
    what is written (its labels, the variance, or the semantic diversity) does not narrow by more than that, for then a
    good score is that of one point. With fewer than three chains only the change itself is known, and the sentence
    says so. ``weights`` has what the real rows of each regime with fresh ones weigh together, of 1.
    """
    told, kept = [], list[Course]()
    for course in courses:
        chains, last = course.values[score].shape[1], len(course.values[score]) - 1
        mean, high = _change(course, score, alpha)
        upper = f", at most {high:+.1%} ({1 - alpha:.0%}, {chains} chains)"
        shown = f"{mean:+.1%}" + (upper if chains >= _CHAINS else f" ({chains} chain{'s' * (chains > 1)}, no interval)")
        width = _find_width(course)
        if high <= delta and width and not _change(course, width, alpha, falls=True)[1] <= delta:
            shown += f"; but {_tell_ends(course, width)}, and to narrow is to collapse too"
        elif high <= delta:
            kept.append(course)
        told.append(f"{course.name}: {name_measure(score)}, generation {last} against generation 0: {shown}.")
    if not kept:
        advice = f"Nothing here keeps the {name_measure(score)} within {delta:.0%}: raise the share of fresh real rows."
        return [*told, advice]
    fresh = [course for course in kept if course.regime.startswith("fresh")]
    told.append(f"Within {delta:.0%} of generation 0, and no narrower: {', '.join(course.name for course in kept)}.")
    if fresh:
        least = min(fresh, key=lambda course: float(course.regime.removeprefix("fresh ").rstrip("%")))
        weight = f"which together have the weight {weights[least.regime]:.3f}"
        told.append(f"The smallest share of fresh real rows here that keeps it: {least.name}, {weight}.")
    return told


def _change(course: Course, measure: str, alpha: float, *, falls: bool = False) -> tuple[float, float]:
    """Mean over chains of the rise (or fall) to the last generation, of generation 0, and its upper bound."""
    values = course.values[measure]
    change = (values[-1] - values[0]) / (values[0].mean() or 1.0) * (-1 if falls else 1)  # 0: as it is
    mean, half = float(change.mean()), _find_margin(change[None], None, 1 - alpha)
    return mean, mean if half is None else mean + float(half[0])


def _find_width(course: Course) -> str | None:
    return next((measure for measure in _WIDTHS if measure in course.values), None)


def _tell_ends(course: Course, measure: str) -> str:
    first, end = course.values[measure][[0, -1]].mean(axis=1)
    return f"the {name_measure(measure)} goes from {first:.3g} to {end:.3g}"


def judge_curated(course: Course, score: str, alpha: float = 0.05) -> str:
    """Whether a filter's gain is there, and whether it lasts: t tests over chains, corrected for the generations."""
    values = course.values[score]
    chains, last, best = values.shape[1], len(values) - 1, int(values.mean(axis=1).argmin())

    def is_clear(change: Floats) -> bool:
        half = _find_margin(change[None], None, 1 - alpha / last)
        return half is not None and bool(change.mean() > half[0])

    if chains < _CHAINS:
        found = f"{chains} chain{'s' * (chains > 1)} cannot tell a gain from chance; run at least {_CHAINS}"
    elif not is_clear(values[0] - values[best]):
        found = f"no gain over generation 0 is shown in the {name_measure(score)}"
    elif is_clear(values[-1] - values[best]):
        found = f"the {name_measure(score)} improves to generation {best}, and turns back after it"
    else:
        found = f"the {name_measure(score)} improves to generation {best}, and does not turn back by generation {last}"
    if width := _find_width(course):
        found += f", while {_tell_ends(course, width)}"
    return (
        f"{course.name}: {found}. As published (arXiv 2510.16657) a filter helps at first, then comes a plateau or a "
        "turn towards what the filter likes."
    )


def advise_in_theory(delta: float) -> str:
    """The least share of fresh real rows for a mean, with the best weight and without an end of generations.

    The error there is ``best_weight(share) / share`` times that of a generation of real rows alone.
    """
    share = brentq(lambda s: best_weight(s) / s - 1 - delta, 1e-9, 1 - 1e-9)
    return (
        f"In theory a mean stays within {delta:.0%} for ever with a share of at least {share:.1%} fresh real rows, "
        f"which together have the weight {best_weight(share):.3f}."
    )
