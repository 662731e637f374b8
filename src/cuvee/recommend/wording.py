"""The advice in words, and as plain values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cuvee.recommend.deciding import Verdict
from cuvee.recommend.shapes import DIVERSITY
from cuvee.recommend.statistics import is_ruled_out
from cuvee.records import (
    Advice,
    Cell,
    CellSummary,
    Confirmation,
    Estimate,
    Gain,
    ManipulationCheck,
    ShapeTest,
    name_score,
)
from cuvee.records.advice import Optimism, RowsFinding, SensitivityTable

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

_BASELINES = {"real-only": "the real rows alone", "real-duplicated": "repeating the real rows"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What the sentence is written from; ``candidates`` counts the cells that could win."""

    verdict: Verdict
    best: CellSummary | None
    confirmation: Confirmation | None
    candidates: int
    diversity: Estimate | None
    """of the best cell's pool, by ``metric``"""
    metric: str
    delta: float
    score: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the trials do not show, for the scope."""

    synthetic_only: CellSummary | None
    best_failures: int
    descriptive_shares: tuple[float, ...]
    untested_share: float | None
    other_trainers: tuple[str, ...]
    other_losses: tuple[str, ...]


def write_points(value: float) -> str:
    """A fraction as signed percentage points: 0.031 is ``+3.1``."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def write_gain(gain: Gain, score: str = "accuracy") -> str:
    """``+3.1 points [+1.2, +5.0] over the real rows alone``; points of what, unless it is accuracy."""
    interval = f"[{write_points(gain.low)}, {write_points(gain.high)}]"
    points = "points" if score == "accuracy" else f"points of {name_score(score)}"
    return f"{write_points(gain.value)} {points} {interval} over {_BASELINES.get(gain.over, gain.over)}"


def name_pool(cell: Cell) -> str:
    """``topics=16 at share 0.75``."""
    return f"{cell.dial}={cell.level} at share {cell.share:g}"


def write_sentence(case: Case) -> str:
    """One or two sentences that a reader can act on."""
    best, verdict = case.best, case.verdict
    if best is None:
        return "Not settled: no blend was trained that can be recommended."
    if not verdict.gains:
        return f"Not settled: {name_pool(best.cell)} has no real-only baseline to be compared with."
    what = f"{name_pool(best.cell)} ({best.share:.0%} of the rows synthetic{_write_diversity(case)})"
    gains = " and ".join(write_gain(gain, case.score) for gain in verdict.gains)
    where = _write_evidence(case)
    counts = f"{100 * case.delta:g} point" + ("" if case.delta == 0.01 else "s")
    if verdict.decision == "use":
        return f"Use synthetic data: mix in {what}. It gains {gains} ({where})."
    start = f"the best of {case.candidates} blends, {what}, gains {gains}"
    ruled = ""
    if verdict.ruled_out:
        over = [_BASELINES[g.over] for g in verdict.gains if is_ruled_out(g, case.delta, alpha=verdict.level)]
        ruled = f", so a gain of more than {counts} over {' or '.join(over)} is ruled out"
    if verdict.decision == "do-not-use":
        others = "" if case.candidates == 1 else "; so it is, on validation, for all other blends"
        return f"Do not use synthetic data here: {start}{ruled} ({where}){others}."
    if verdict.still_open:
        others = _name_open(verdict.still_open)
        return (
            f"Not settled: {start}{ruled} for it ({where}), but on validation not for {others}. {_write_remedy(case)}"
        )
    return f"Not settled: {start} ({where}). {_write_remedy(case)}"


def _write_diversity(case: Case) -> str:
    score, name = case.diversity, "Vendi" if case.metric == DIVERSITY else case.metric
    if score is None:
        return ""
    interval = "" if score.low is None or score.high is None else f" [{score.low:.1f}, {score.high:.1f}]"
    return f", measured diversity {name} {score.value:.1f}{interval}"


def _write_evidence(case: Case) -> str:
    gain = case.verdict.gains[0]
    draws = f"{gain.draws} generation draw" + ("" if gain.draws == 1 else "s")
    if case.verdict.confirmed and case.confirmation is not None:
        fresh = "fresh draws" if case.confirmation.fresh_draws else "the draws it was chosen on"
        folds = case.confirmation.folds
        items = "locked test items" if not folds else f"items held out in {folds} folds, each by its own choice"
        place = f"{gain.items:,} {items}, {draws}, {fresh}"
        if case.confirmation.looks > 1:
            place += f", look {case.confirmation.looks} at them, so tested at {case.verdict.level:.2g}"
    else:
        place = f"{gain.items:,} validation items, {draws}, chosen among {case.candidates}, not confirmed on the test"
    smallest = max(g.mde for g in case.verdict.gains)
    return f"{place}; gains from {100 * smallest:.1f} points would be detected"


def _name_open(cells: Sequence[Cell]) -> str:
    names = " and ".join(name_pool(cell) for cell in cells[:2])
    return names if len(cells) <= 2 else f"{len(cells)} others, {name_pool(cells[0])} among them"


def _write_remedy(case: Case) -> str:
    missing = set(_BASELINES) - {gain.over for gain in case.verdict.gains}
    if missing:
        return f"The baseline {', '.join(sorted(missing))} is missing at this share."
    remedy = case.verdict.remedy
    assert remedy is not None  # there are both baselines
    confirming = remedy.of == "confirm"
    kind = "confirmation draw" if confirming else "generation draw"
    key = f"draws.{remedy.of}"
    if min(gain.draws for gain in case.verdict.gains) == 1:
        return f"One {kind} speaks of that pool only; {remedy.draws} more ({key}) would tell pools apart."
    effect = f"{100 * remedy.effect:.1f} points"
    aim = f"rule out {effect} for every blend" if case.verdict.still_open else f"show a gain of {effect}"
    if remedy.draws is None:
        return f"More {kind}s alone would not {aim}: more held-out items are needed."
    number = f"About {remedy.draws} more {kind}{'' if remedy.draws == 1 else 's'} ({key})"
    given = ", if the truth is 0" if case.verdict.still_open else ""
    again = ", tested at half the level, as one more look at the locked test" if case.verdict.confirmed else ""
    return f"{number} would {aim} with power 0.8{given}{again}."


def write_scope(case: Case, limits: Limits) -> str:
    """What the trials leave open."""
    parts = []
    best, other = case.best, limits.synthetic_only
    if best is not None and best.draws == 1:
        parts.append("One generation draw: everything here concerns that pool only.")
    if case.verdict.confirmed and min((gain.draws for gain in case.verdict.gains), default=2) == 1:
        parts.append("One confirmation draw: its interval holds what items differ by, not what pools do.")
    if limits.best_failures:
        failed = f"{limits.best_failures} trial{'' if limits.best_failures == 1 else 's'} of the best blend"
        parts.append(f"{failed} failed: its gains rest on the others, which may be the better ones.")
    if case.confirmation is not None and not case.verdict.confirmed:
        confirmed = case.confirmation.cell.key
        parts.append(f"The locked test confirmed another cell ({confirmed}), so the verdict rests on validation.")
    if best is not None and other is not None and other.accuracy > best.accuracy:
        parts.append(
            f"Synthetic rows alone ({other.cell.dial}={other.cell.level}) score higher than the best blend: "
            f"{100 * other.accuracy:.1f}% against {100 * best.accuracy:.1f}%."
        )
    if limits.descriptive_shares:
        shares = ", ".join(f"{share:g}" for share in limits.descriptive_shares)
        parts.append(f"Share {shares} is shown, but neither tested nor recommended: its draws overlap.")
    if limits.untested_share is not None:
        parts.append(
            f"No shape over levels was tested, since that needs separate draws at share {limits.untested_share:g}."
        )
    for what, others in (("trainer", limits.other_trainers), ("loss", limits.other_losses)):
        if others:
            parts.append(f"Described only, not used to choose: {what} {', '.join(others)}.")
    return " ".join(parts)


def write_shape(test: ShapeTest) -> str:
    """``topics at share 0.75: inverted-U (p = 0.012), 5 draws``."""
    p_value = test.p_values.get(test.verdict)
    shown = "" if p_value is None else f" (p = {p_value:.2g})"
    draws = f"{test.draws} generation draw" + ("" if test.draws == 1 else "s")
    found = test.two_lines if test.interpreted else None
    lines = "" if found is None else f"; two lines over measured diversity: {found.shape}"
    note = f"; {test.note}" if test.note else ""
    return f"{test.dial} at share {test.share:g}: {test.verdict}{shown}, {draws}{lines}{note}"


def confirmed_best(advice: Advice) -> Confirmation | None:
    """The confirmation, where it is of the best cell."""
    best, confirmation = advice.best, advice.confirmation
    same = best is not None and confirmation is not None and confirmation.cell == best.cell
    return confirmation if same else None


def write_optimism(optimism: Optimism, confirmation: Confirmation | None) -> str:
    """What the choice among many cells adds to the winner's gain, and what fresh draws say where there are any."""
    over = _BASELINES.get(optimism.over, optimism.over)
    confirmed = [g.value for g in confirmation.gains if g.over == optimism.over] if confirmation is not None else []
    last = f"; the confirmation says {write_points(confirmed[0])}" if confirmed else ""
    return (
        f"Best of {optimism.cells} blends on validation: {write_points(optimism.apparent)} points over {over}, of "
        f"which about {write_points(optimism.value)} come from choosing the best (estimated by {optimism.splits} "
        f"splits, {optimism.same_choice:.0%} of which choose the same), so {write_points(optimism.corrected)}{last}"
    )


def _write_check(check: ManipulationCheck) -> str:
    return f"{check.dial}: levels {'differ' if check.passed else 'do not differ'} in {check.metric}; {check.note}"


def write_rows(found: RowsFinding, score: str = "accuracy") -> str:
    """``4 real rows a label: use, topics=16 at share 0.75 gains +3.1 points [+1.2, +5.0] over the real rows alone``.

    Scores other than accuracy are of tasks without labels, whose rows are counted as they are.
    """
    gains = () if found.best is None else found.best.gains
    best = "" if found.best is None else f", {name_pool(found.best.cell)}"
    gain = f" gains {write_gain(gains[0], score)} on validation, as the best of its blends" if gains else ""
    each = " a label" if score == "accuracy" else ""
    return f"{found.rows_per_label} real rows{each}: {found.decision}{best}{gain}"


def write_sensitivity(table: SensitivityTable) -> str:
    """Under which other choices the conclusion flips, and how many were tried."""
    flips = [f"{row.variant} ({', '.join(row.flips)})" for row in table.rows if row.flips]
    names = ", ".join(row.variant for row in table.rows) or "none"
    lost = f"; could not be run: {', '.join(each.variant for each in table.lost)}" if table.lost else ""
    if flips:
        return f"On validation the conclusion flips under {'; '.join(flips)}; tried: {names}{lost}"
    return f"On validation no other choice flips the conclusion; tried: {names}{lost}"


def advice_to_text(advice: Advice) -> str:
    """The advice as paragraphs of plain text, one a line."""
    lines = [advice.sentence]
    if advice.equivalent:
        names = ", ".join(name_pool(summary.cell) for summary in advice.equivalent[:8])
        rest = f" and {len(advice.equivalent) - 8} more" if len(advice.equivalent) > 8 else ""
        lines.append(f"Not distinguishable from it: {names}{rest}.")
    if advice.optimism is not None:
        lines.append(f"{write_optimism(advice.optimism, confirmed_best(advice))}.")
    lines += [f"Shape of {name_score(advice.score)} over {write_shape(test)}." for test in advice.shapes]
    lines += [f"Manipulation check, {_write_check(check)}." for check in advice.checks]
    lines += [f"{write_rows(found, advice.score)}." for found in advice.by_rows]
    if advice.sensitivity is not None:
        lines.append(f"{write_sensitivity(advice.sensitivity)}.")
    if advice.failures:
        lines.append(f"{advice.failures} trial{'' if advice.failures == 1 else 's'} failed.")
    if advice.scope:
        lines.append(f"Scope: {advice.scope}")
    return "\n".join(lines)


def advice_to_json(advice: Advice) -> dict[str, Plain]:
    """The advice as plain values, in the order of its fields; each cell also under its ``key``.

    The same trials give the same bytes. Numbers that are not finite become None.
    """
    plain = _to_plain(advice)
    assert isinstance(plain, dict)
    return plain


def _to_plain(value: object) -> Plain:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: _to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, Cell):
            return {"key": value.key, **plain}
        return {"robust": value.robust, **plain} if isinstance(value, SensitivityTable) else plain
    if isinstance(value, Mapping):
        return {str(name): _to_plain(part) for name, part in value.items()}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Sequence):
        return [_to_plain(part) for part in value]
    raise TypeError(f"advice holds a value of type {type(value).__name__}: {value!r}")
