"""The manipulation check: did the levels of a dial differ in measured diversity?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cuvee.records import Estimate, ManipulationCheck, Measurement

DIVERSITY = "vendi_q1"
"""The metric that levels are checked on: the Vendi score of order 1."""
_ALIKE = 1.05
"""Numbers of rows that differ by no more than this factor count as equal."""


def check_manipulation(
    dial: str, names: Sequence[str], measurements: Mapping[str, Measurement], *, metric: str = DIVERSITY
) -> ManipulationCheck:
    """Compare the least and the most diverse level as measured: passed if their 95% intervals do not overlap.

    Levels measured at numbers of rows that differ by more than a twentieth do not pass, because rows alone move the
    score.

    Args:
        dial: the dial.
        names: its levels, from least to most diverse as expected.
        measurements: ``dial=level`` -> measurement; levels without one are left out.
        metric: the measure of diversity.
    """
    found: dict[str, Estimate] = {}
    for name in names:
        measurement = measurements.get(f"{dial}={name}")
        if measurement is not None and metric in measurement.values:
            found[name] = measurement.values[metric]
    passed, notes = _compare_levels(found)
    return ManipulationCheck(
        dial=dial,
        metric=metric,
        levels=tuple(found),
        estimates=tuple(found.values()),
        passed=passed,
        note="; ".join(notes),
    )


def _compare_levels(found: Mapping[str, Estimate]) -> tuple[bool, list[str]]:
    if len(found) < 2:
        return False, ["fewer than two levels were measured"]
    measured = sorted(found, key=lambda name: found[name].value)
    least, most = found[measured[0]], found[measured[-1]]
    passed, notes = False, []
    if least.high is None or most.low is None:
        notes.append("no interval is known, so no difference is shown")
    else:
        passed = most.low > least.high
        relation = "do not overlap" if passed else "overlap: this dial did not change the measured diversity"
        notes.append(
            f"least diverse {measured[0]} ({least.value:.1f}) and most diverse {measured[-1]} ({most.value:.1f}): "
            f"the intervals {relation}"
        )
    if measured != list(found):
        notes.append(
            f"measured order {' < '.join(measured)} differs from the expected {' < '.join(found)}: "
            "read diversity beside shift and quality, since noise can look less diverse to an embedder"
        )
    sizes = [estimate.n for estimate in found.values()]
    if min(sizes) != max(sizes):
        notes.append(f"measured at {min(sizes):,} to {max(sizes):,} rows, which alone moves the score")
        if max(sizes) > _ALIKE * min(sizes):
            passed = False
            notes.append("so the levels cannot be compared: measure them at equal rows")
    return passed, notes
