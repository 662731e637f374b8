"""Saved numbers: a measurement as JSON text and back, and numbers measured before, compared where that is fair."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, get_args

from cuvee.defects import DegenerateReason
from cuvee.errors import IncomparableError, InputError
from cuvee.inputs import parse_json, show_value
from cuvee.measure.intervals import subtract_first
from cuvee.measure.measuring import METRICS
from cuvee.records import Comparison, Estimate, Measurement

if TYPE_CHECKING:
    from pydantic import ValidationError

_PROVENANCE = tuple(f.name for f in fields(Measurement) if f.name != "values")

RESULTS: frozenset[str] = frozenset(
    {
        # widths and dimensions found from the rows at hand
        "bandwidth", "components", "shrinkage", "sigma",
        # what the number is held against, or made of
        "baseline", "doubted", "false_alarms", "labels", "mean_words", "plain", "real_mean_words", "real_sd_words",
        "same_distribution", "unknown_labels",
        # how precise a number or its p-value is
        "draws", "no_interval", "nulls", "pairs", "permutations", "sampling_error",
        # cross-validated on the real rows themselves, to hold a pool's agreement against
        "probe",
    }
)  # fmt: skip
"""Settings that say what the data gave, or how precise a number is, and not what the number means.

So do those whose name ends in ``rows``: rows that were used. All others (tau, q, kernel, ngram, tokens, words, ...)
define the number.
"""
_RESULTS_OF: dict[str, frozenset[str]] = {
    "opening_rate": frozenset({"opening"}),
    "ending_rate": frozenset({"ending"}),
    "skeleton_entropy": frozenset({"skeletons", "skeleton"}),
    "shared_sequence_rate": frozenset({"sequences", "sequence"}),
    "leakage": frozenset({"threshold"}),  # found from the held-out texts
    "degenerate_rate": frozenset(get_args(DegenerateReason)),  # rows of each reason
}


def compare_measurements(measurements: Sequence[Measurement], *, force: bool = False) -> Comparison:
    """Numbers measured before, side by side, with their differences to the first measurement.

    Text lengths are not matched, which a note says; ``compare_corpora`` matches them. Metrics that not all
    measurements have are left out, with a note.

    Args:
        measurements: at least two. Those of one name are told apart by a number.
        force: compare numbers that were measured in different ways, and say in the notes what differs.

    Raises:
        IncomparableError: another number of rows; for metrics that need vectors another encoder or other weights;
            for metrics that need them other real rows; a setting that defines a number differs; or no metric is
            in all measurements. The message names what differs, and the remedy.
        ValueError: fewer than two measurements.
    """
    if len(measurements) < 2:
        raise ValueError(f"measurements has {len(measurements)!r} entries; a comparison needs at least two")
    first = measurements[0]
    names = _distinct_names(measurements)
    shared = [name for name in first.values if all(name in m.values for m in measurements)]
    if not shared:
        raise IncomparableError(
            f"{', '.join(names)}: no metric is in all of them; measure again with the same --metric"
        )
    differing = _find_differences(dict(zip(names, measurements, strict=True)), shared)
    if differing and not force:
        remedy = (
            f"measure again with --rows {min(m.n for m in measurements)} and the same encoder, real rows and options"
        )
        raise IncomparableError(
            f"these numbers do not compare: {'; '.join(differing)}. Either {remedy}, "
            "or compare them all the same (force=True, --force)"
        )
    partial = list(dict.fromkeys(name for m in measurements for name in m.values if name not in shared))
    values: dict[str, tuple[Estimate | None, ...]] = {
        name: tuple(m.values[name] for m in measurements) for name in shared
    }
    return Comparison(
        names=names,
        rows=min(m.n for m in measurements),
        draws=1,
        words=None,
        values=values,
        differences={name: subtract_first(estimates) for name, estimates in values.items()},
        length_difference=None,
        notes=(
            *(f"forced: {difference}" for difference in differing),
            "measured separately: text lengths are not matched, which matters most for lexical numbers",
            *([f"not in all measurements: {', '.join(partial)}"] if partial else []),
        ),
        encoder=" or ".join(dict.fromkeys(m.encoder for m in measurements)),
        encoder_hash=first.encoder_hash if len({m.encoder_hash for m in measurements}) == 1 else "",
        fingerprints=tuple(m.fingerprint for m in measurements),
        against=first.against if len({m.against for m in measurements}) == 1 else None,
    )


def _distinct_names(measurements: Sequence[Measurement]) -> tuple[str, ...]:
    names: list[str] = []
    for measurement in measurements:
        name, number = measurement.name, 2
        while name in names:
            name, number = f"{measurement.name} ({number})", number + 1
        names.append(name)
    return tuple(names)


def _find_differences(measurements: Mapping[str, Measurement], shared: Sequence[str]) -> list[str]:
    """What keeps the shared numbers from being compared, one phrase each."""
    found = [_phrase("rows", {name: m.n for name, m in measurements.items()})]
    if any(_needs(metric, "vectors") for metric in shared):
        found.append(_phrase("encoder", {name: m.encoder for name, m in measurements.items()}))
        if not found[-1]:
            hashes = {name: m.encoder_hash[:12] for name, m in measurements.items()}
            found.append(_phrase("encoder_hash (weights)", hashes))
        found.append(_phrase("normalisation", {name: m.normalisation for name, m in measurements.items()}))
    if any(_needs(metric, "against") for metric in shared):
        real = {name: "none" if m.against is None else m.against[:12] for name, m in measurements.items()}
        found.append(_phrase("against (real rows)", real))
    for metric in shared:
        settings = {name: _defining(metric, m.values[metric]) for name, m in measurements.items()}
        for key in dict.fromkeys(key for own in settings.values() for key in own):
            found.append(_phrase(f"{metric} {key}", {name: own.get(key, "none") for name, own in settings.items()}))
    return [phrase for phrase in found if phrase]


def _needs(metric: str, need: str) -> bool:
    """Whether a metric needs it; a metric that METRICS does not hold needs vectors, to be safe."""
    known = METRICS.get(metric)
    return need in known.needs if known is not None else need == "vectors"


def _defining(metric: str, estimate: Estimate) -> dict[str, str | int | float]:
    results = RESULTS | _RESULTS_OF.get(metric, frozenset())
    return {k: v for k, v in estimate.settings.items() if k not in results and not k.endswith("rows")}


def _phrase(what: str, values: Mapping[str, str | int | float]) -> str:
    """``what: a 1, b 2``; empty where all agree."""
    if len(set(values.values())) == 1:
        return ""
    return f"{what}: {', '.join(f'{name} {value}' for name, value in values.items())}"


# --- JSON ---
def measurement_to_json(measurement: Measurement) -> str:
    """One JSON object on one line: the provenance, then every number under its metric's name.

    Numbers that are not finite become the strings ``"inf"``, ``"-inf"`` and ``"nan"``, which JSON has no words for;
    ``read_measurement`` reads them back as numbers everywhere but in ``settings``, where they stay strings.

    Raises:
        ValueError: a metric has the name of a provenance key.
    """
    clash = [name for name in measurement.values if name in _PROVENANCE]
    if clash:
        raise ValueError(f"a metric is called {clash[0]!r}, which is a key of the measurement itself; rename it")
    content = asdict(measurement)
    numbers = content.pop("values")
    return json.dumps(_finite({**content, **numbers}), ensure_ascii=False, allow_nan=False)


def read_measurement(text: str, *, name: str) -> Measurement:
    """The measurement that ``measurement_to_json`` or ``cuvee measure --json`` wrote.

    Args:
        text: the JSON text.
        name: of the file it came from, for messages; the measurement keeps its own name.

    Raises:
        InputError: the text is not JSON, not one measurement, or a key is missing or has a value of the wrong kind.
    """
    from pydantic import TypeAdapter, ValidationError

    content = parse_json(text, name)
    if not isinstance(content, dict):
        raise InputError(f"{name}: holds a JSON {type(content).__name__}, not the object of one measurement")
    content.setdefault("findings", [])  # numbers of earlier versions have none
    missing = [key for key in _PROVENANCE if key not in content]
    if missing:
        raise InputError(f"{name}: key {missing[0]!r} is missing; give the output of cuvee measure FILE --json")
    values = {key: value for key, value in content.items() if key not in _PROVENANCE}
    whole = {**{key: content[key] for key in _PROVENANCE}, "values": values}
    try:
        return TypeAdapter(Measurement).validate_python(whole)
    except ValidationError as exc:
        raise InputError(f"{name}: {_first_fault(exc)}") from exc


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in fault["loc"] if part != "values")
    return f"key {place!r} has the value {show_value(fault['input'])}: {fault['msg']}"
