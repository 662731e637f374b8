"""Iterated self-training: a model is trained again and again on what it wrote, measured, and judged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student

from cuvee._version import __version__
from cuvee.characters import no_number, to_plain
from cuvee.collapse.exact import SCORES, run_exact
from cuvee.config.collapse import CausalModel, CollapseConfig, TrainedModel, best_weight
from cuvee.config.reading import config_to_yaml, make_config
from cuvee.errors import ConfigError
from cuvee.execute import Listener, Stages
from cuvee.fingerprint import hash_value
from cuvee.records import CollapsePlan, CollapseResult, Course, EarlyWarning, Estimate, Floats, name_measure
from cuvee.store import RunFolder

if TYPE_CHECKING:
    from cuvee.collapse.experiment import Experiment


def run_collapse(
    config: CollapseConfig | str | Path | dict[str, object],
    *,
    out: str | Path | None = None,
    listener: Listener | None = None,
) -> CollapseResult:
    """Train a model generation after generation on what it writes, or go on with such an experiment.

    Args:
        config: a YAML file, a mapping, or a config.
        out: the folder of the experiment, ``runs/NAME`` by default; it gets ``collapse.yaml``, ``collapse.json`` and
            ``report.html``. Of a causal model it holds every finished generation, which is not trained again.
        listener: told how it goes on.

    Raises:
        ConfigError: the config is wrong. InputError: too few rows, or a model that cannot be loaded.
        RunFolderMismatch: the folder holds an experiment with other data, model or seed.
    """
    read = make_config(config, CollapseConfig)
    with RunFolder(out or Path("runs") / read.name) as folder:
        if isinstance(read.model, TrainedModel):
            kept = {"encoder": folder.keep_encoder(read.model.encoder)}
            read = read.model_copy(update={"model": read.model.model_copy(update=kept)})
        folder.check_identity({"model": hash_value(read.model.model_dump(exclude={"keep_models", "decodings"}))})
        folder.save_text("collapse.yaml", config_to_yaml(read))
        theory = [advise_in_theory(read.delta)] if read.model.kind == "gaussian" else []
        if isinstance(read.model, TrainedModel):
            experiment = _open_experiment(read, folder, listener)
            score, courses, untuned = experiment.score, experiment.run(), dict(experiment.untuned)
        else:
            score, courses, untuned = SCORES[read.model.kind], run_exact(read), {}
        weights = {diet.name: diet.weight for diet in read.list_diets()}
        curated = [judge_curated(course, score) for course in courses if course.regime == "curated"]
        warnings = tuple(find_warning(course, score, read.alpha) for course in courses)
        result = CollapseResult(
            name=read.name,
            model=read.model.kind,
            generations=read.generations,
            chains=read.chains,
            score=score,
            courses=tuple(courses),
            points={each.name: {name: average(each, name) for name in each.values} for each in courses},
            warnings=warnings,
            warned=tuple(map(word_warning, warnings)),
            advice=(*advise(courses, score, read.delta, weights=weights), *curated, *theory),
            untuned=untuned,
            version=__version__,
        )
        folder.save_text("collapse.json", json.dumps(collapse_to_json(result), indent=1))
        from cuvee.report.collapse_page import render_collapse  # charts take long to load

        folder.save_text("report.html", render_collapse(result))
    return result


def _open_experiment(config: CollapseConfig, folder: RunFolder, listener: Listener | None = None) -> Experiment:
    """The experiment with a model that is trained."""
    if isinstance(config.model, CausalModel):
        from cuvee.collapse.causal import CausalExperiment

        return CausalExperiment(config, folder, Stages(listener))
    from cuvee.collapse.classifier import ClassifierExperiment

    return ClassifierExperiment(config, folder, Stages(listener))


def plan_collapse(config: CollapseConfig) -> CollapsePlan:
    """What an experiment takes: trainings, time and disk, from a training, or a part of one, that is timed here.

    Raises:
        ConfigError: the model is none that is trained.
    """
    if not isinstance(config.model, TrainedModel):
        raise ConfigError(f"model.kind is {config.model.kind}, which takes seconds; leave out --plan")
    with TemporaryDirectory() as folder, RunFolder(folder) as empty:
        return _open_experiment(config, empty).plan()


def collapse_to_json(result: CollapseResult) -> dict[str, object]:
    """The result of plain values; means over chains where there are many, NaN as null."""

    def other(value: object) -> object:
        if not isinstance(value, np.ndarray):
            return no_number(value)
        whole = value.ndim < 2 or value.shape[1] <= 20
        return to_plain((value if whole else value.mean(axis=1)).tolist(), other=other)

    return cast("dict[str, object]", to_plain(result, other=other))


# --- when measures warn, and what to do: from the courses of an experiment ---
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
