"""How the numbers of a measured corpus, their settings and their names are written."""

from __future__ import annotations

import math

from cuvee.records import Estimate, Profile
from cuvee.report.tables import MINUS, Number, write_number, write_p, write_percent


def write_uncertainty(estimate: Estimate, *, percent: bool = False, sign: bool = False) -> str:
    """``low to high``, ``p = 0.03``, or both with a comma."""
    parts = []
    if _is_finite(estimate.low) and _is_finite(estimate.high):
        parts.append(f"{_write(estimate.low, percent, sign)} to {_write(estimate.high, percent, sign)}")
    if _is_finite(estimate.p_value):
        p = write_p(estimate.p_value or 0.0)
        parts.append(f"p {p}" if p.startswith("<") else f"p = {p}")
    return ", ".join(parts)


def write_value(estimate: Estimate, *, percent: bool = False, sign: bool = False) -> Number:
    """A number with its interval or p-value beside it; signed numbers are marked where the interval excludes 0."""
    clear = ""
    if sign and _is_finite(estimate.low) and _is_finite(estimate.high):
        clear = "up" if (estimate.low or 0.0) > 0 else "down" if (estimate.high or 0.0) < 0 else ""
    return Number(
        text=_write(estimate.value, percent, sign),
        small=write_uncertainty(estimate, percent=percent, sign=sign),
        sign=clear,
    )


def write_probability(value: float) -> str:
    """As percent, never rounded to certainty: ``99.2%``, ``> 99.9%``."""
    if not math.isfinite(value):
        return write_number(value)
    return "> 99.9%" if 0.9995 <= value < 1.0 else write_percent(value)


def write_settings(estimate: Estimate) -> str:
    """``tau = 0.1, kernel = cosine, interval: jackknife``."""
    parts = [f"{key} = {_write_setting(value)}" for key, value in estimate.settings.items()]
    return ", ".join([*parts, f"interval: {estimate.interval}"] if estimate.interval else parts)


def name_diversity(name: str) -> str:
    """A diversity's name for readers: ``Vendi, order 1``, ``Leinster-Cobbold, order 1, tau = 0.1``."""
    family, _, rest = name.partition("_")
    families = {"vendi": "Vendi", "lc": "Leinster-Cobbold", "dcscore": "DCScore"}
    if family not in families:
        return name
    words = [families[family]]
    for part in rest.split("_"):
        if part.startswith("tau"):
            words.append(f"tau = {part[3:]}")
        elif part.startswith("q"):
            words.append(f"order {part[1:]}")
        elif part:
            return name
    return ", ".join(words)


def name_profile(profile: Profile) -> str:
    """As ``name_diversity``; DCScore over its order is the Leinster-Cobbold diversity."""
    name = name_diversity(profile.name)
    return name.replace("DCScore", "Leinster-Cobbold") if profile.parameter == "q" else name


def _write(value: float | None, percent: bool, sign: bool) -> str:
    if value is None:
        return ""
    text = write_percent(value).replace("-", MINUS) if percent and math.isfinite(value) else write_number(value)
    return f"+{text}" if sign and value > 0 else text


def _write_setting(value: str | int | float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
