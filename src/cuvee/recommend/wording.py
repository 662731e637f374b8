"""The parts of the advice in words, and the advice as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from cuvee.characters import no_number, to_plain
from cuvee.recommend.cells import ComparedCells
from cuvee.recommend.shapes import DIVERSITY
from cuvee.recommend.statistics import is_ruled_out
from cuvee.records import Advice, Cell, CellSummary, Estimate, Gain, name_score
from cuvee.records.advice import Decision, DrawKind, Edge, Lean, RowsFinding, SensitivityTable

_DRAWS = {"confirm": "confirmation draw", "generation": "generation draw", "sampling": "subsample"}
# Why it is not confirmed, where the config asks for no confirmation.
SEARCHED = "an adaptive search chose it, which settles nothing by itself"
_CEILING = 0.95  # A score from which on there is little left to gain
_BASELINES = {"real-only": "the real rows alone", "real-duplicated": "repeating the real rows"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What would show ``effect``: so many more draws of one kind, tested at ``level``; None where draws cannot.

    Then ``items`` is how many held-out items in all would, None where they cannot either. ``rules_out`` says that a
    gain of the effect is to be ruled out.
    """

    effect: float
    draws: int | None
    items: int | None = None
    of: DrawKind
    level: float = 0.05
    rules_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was decided on which gains.

    Attributes:
        decision: as the module says.
        best: the winner; None without candidates.
        candidates: how many cells could win.
        delta: the smallest gain that counts.
        gains: those that decided.
        confirmed: whether they are those of a confirmation.
        unconfirmed: why a confirmation that was planned is missing.
        not_distinguished: candidates that are not told apart from the best.
        level: that the best was tested at: ``alpha``, or less after several looks at the locked test.
        ruled_out: whether the best is shown not to gain more than ``delta``.
        still_open: the other candidates that are not ruled out, best first.
        remedy: where nothing was decided and a baseline can be compared with.
        harmful: candidates that are shown to be worse than the real rows alone.
        lean: what the evidence favours.
    """

    decision: Decision
    best: Cell | None
    candidates: int
    delta: float
    level: float
    gains: tuple[Gain, ...] = ()
    confirmed: bool = False
    unconfirmed: str = ""
    not_distinguished: tuple[Cell, ...] = ()
    ruled_out: bool = False
    still_open: tuple[Cell, ...] = ()
    remedy: Remedy | None = None
    harmful: tuple[Cell, ...] = ()
    lean: Lean | None = None


def write_points(value: float) -> str:
    """A fraction as signed percentage points: 0.031 is ``+3.1``."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def write_gain(gain: Gain, score: str = "accuracy") -> str:
    """``+3.1 points [+1.2, +5.0] over the real rows alone``; points of what, unless it is accuracy."""
    interval = f"[{write_points(gain.low)}, {write_points(gain.high)}]"
    points = "points" if score == "accuracy" else f"points of {name_score(score)}"
    return f"{write_points(gain.value)} {points} {interval} over {_BASELINES.get(gain.over, gain.over)}"


def write_headline(verdict: Verdict) -> str:
    """The verdict in a few words: ``Not settled; leaning yes, 89%``."""
    if verdict.decision != "underpowered":
        return "Use synthetic data" if verdict.decision == "use" else "Do not use synthetic data here"
    if verdict.ruled_out:
        return "Not settled for all blends, but the blend that this study would choose is not worth it"
    if verdict.lean is None:
        return "Not settled"
    chance = verdict.lean.probability
    return f"Not settled; leaning {'yes' if chance >= 0.5 else 'no'}, {write_chance(max(chance, 1.0 - chance))}"


def write_chance(chance: float) -> str:
    """A probability as percent, which is never certain."""
    return "over 99%" if chance > 0.99 else "under 1%" if chance < 0.01 else f"{chance:.0%}"


def write_lean(verdict: Verdict, score: str = "accuracy") -> str:
    """What to do if nothing more can be spent, and why; empty where nothing leans."""
    lean = verdict.lean
    if lean is None:
        return ""
    unit = "points" if score == "accuracy" else f"points of {name_score(score)}"
    helps = f"helps with probability {write_chance(lean.probability)}"
    gain = f"expected gain over both baselines, shrunk for the choice, is {write_points(lean.gain)} {unit}"
    if verdict.confirmed and verdict.decision == "underpowered":
        gain += " (by validation and the confirmation together, so it may be surer than the confirmation alone)"
    if lean.gain > 0:
        return f"If you decide today: mix in {lean.cell.name}; it {helps}, and its {gain}"
    more = f"to {1.0 + lean.cell.amount:.3g} times their number ({write_points(lean.repeated)} {unit} expected)"
    instead = f"repeat the real rows {more}" if lean.repeated > 0 else "train on the real rows alone"
    return f"If you decide today: {instead}; the best blend, {lean.cell.name}, {helps}, and its {gain}"


def write_harm(harmful: Sequence[CellSummary], score: str = "accuracy") -> str:
    """``Avoid sampling=1.4 and 2.0 at share 0.75 (-8.1 to -10.9 points)``: what is shown to hurt; empty without any."""
    if not harmful:
        return ""
    places: dict[tuple[str, float], list[CellSummary]] = {}
    for summary in harmful:
        places.setdefault((str(summary.cell.dial), summary.cell.share), []).append(summary)
    together: dict[tuple[str, tuple[str, ...]], list[float]] = {}
    for (dial, share), found in places.items():
        together.setdefault((dial, tuple(str(s.cell.level) for s in found)), []).append(share)
    parts = []
    for (dial, levels), shares in together.items():
        own = [s for s in harmful if s.cell.dial == dial and s.cell.share in shares and s.cell.level in levels]
        values = sorted((s.gains[0].value for s in own), reverse=True)
        ends = " to ".join(dict.fromkeys(write_points(value) for value in (values[0], values[-1])))
        at = f"share{'s' if len(shares) > 1 else ''} {_list([f'{share:g}' for share in shares])}"
        if own[0].cell.scope == "this pool":
            at = _list([f"{amount:.3g}x" for amount in dict.fromkeys(s.cell.amount for s in own)])
        parts.append(f"{dial}={_list(levels)} at {at} ({ends} points)")
    of = "" if score == "accuracy" else f", points of {name_score(score)}"
    return f"Avoid {'; '.join(parts)}: shown to be worse than the real rows alone{of}"


def name_draws(draws: int, cell: Cell) -> str:
    """``5 generation draws``, ``8 subsamples of this pool``, ``all rows of this pool``."""
    if cell.whole:
        return "all rows of this pool" + (f" with {draws} choices of real rows" if draws > 1 else "")
    if cell.scope == "this pool":
        return f"{_count(draws, 'subsample')} of this pool"
    return _count(draws, "generation draw")


def _list(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def write_sentence(advice: Advice, verdict: Verdict, diversity: str) -> str:
    """One or two sentences that a reader can act on."""
    best, delta = advice.best, verdict.delta
    if best is None:
        return "Not settled: no blend was trained that can be recommended."
    if not verdict.gains:
        return f"Not settled: {best.cell.name} has no real-only baseline to be compared with."
    what = f"{best.cell.name} ({best.share:.0%} of the rows synthetic{diversity})"
    gains = " and ".join(write_gain(gain, advice.score) for gain in verdict.gains)
    where = _write_evidence(advice, verdict)
    if verdict.decision == "use":
        return f"Use synthetic data: mix in {what}. It gains {gains} ({where})."
    head = write_headline(verdict)
    start = f"the best of {verdict.candidates} blends, {what}, gains {gains}"
    if verdict.ruled_out:
        over = [_BASELINES[g.over] for g in verdict.gains if is_ruled_out(g, delta, alpha=verdict.level)]
        counts = _count(100 * delta, "point")
        start += f", so a gain of more than {counts} over {' or '.join(over)} is ruled out"
    if verdict.decision == "do-not-use":
        others = "" if verdict.candidates == 1 else "; so it is, on validation, for all other blends"
        return f"{head}: {start} ({where}){others}."
    if still_open := [cell.name for cell in verdict.still_open]:
        others = " and ".join(still_open)
        if len(still_open) > 2:
            others = f"{len(still_open)} others, {still_open[0]} among them"
        return f"{head}: {start} for it ({where}), but on validation not for {others}. {_write_remedy(verdict)}"
    return f"{head}: {start} ({where}). {_write_remedy(verdict)}"


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def write_diversity(metric: str, score: Estimate | None) -> str:
    """``, measured diversity Vendi 35.0 [32.0, 38.0]``, to stand after the share."""
    if score is None:
        return ""
    interval = "" if score.low is None or score.high is None else f" [{score.low:.1f}, {score.high:.1f}]"
    return f", measured diversity {'Vendi' if metric == DIVERSITY else metric} {score.value:.1f}{interval}"


def _write_evidence(advice: Advice, verdict: Verdict) -> str:
    gain, confirmation = verdict.gains[0], advice.confirmation
    draws = _count(gain.draws, "generation draw") if verdict.best is None else name_draws(gain.draws, verdict.best)
    each = "groups of " if gain.grouped else ""
    if verdict.confirmed and confirmation is not None:
        fresh = "fresh draws" if confirmation.fresh_draws else "the draws it was chosen on"
        fresh = "fresh items" if confirmation.cell.whole else fresh
        folds = confirmation.folds
        items = "locked test items" if not folds else f"items held out in {folds} folds, each by its own choice"
        place = f"{gain.items:,} {each}{items}, {draws}, {fresh}"
        if confirmation.looks:
            place += f", look {len(confirmation.looks)} at the test, at level {verdict.level:.2g}"
    else:
        chosen = "not confirmed on the test"
        if verdict.candidates > 1:
            chosen = f"chosen among {verdict.candidates}, {chosen}, so the choice flatters these numbers"
            if verdict.lean is not None and verdict.lean.cell == verdict.best:
                chosen += f"; {write_points(verdict.lean.gain)} over both are expected of it"
        place = f"{gain.items:,} {each}validation items, {draws}, {chosen}"
    smallest = max(g.mde for g in verdict.gains)
    return f"{place}; gains from {100 * smallest:.1f} points would be detected"


def _write_remedy(verdict: Verdict) -> str:
    missing = set(_BASELINES) - {gain.over for gain in verdict.gains}
    remedy = verdict.remedy
    if missing or remedy is None:
        return f"The baseline {', '.join(sorted(missing))} is missing at this share."
    if verdict.unconfirmed == SEARCHED:
        return f"It is not confirmed: {SEARCHED}; set draws.confirm."
    if verdict.unconfirmed and not verdict.still_open:
        return (
            f"It lacks the confirmation that was planned: {verdict.unconfirmed}. Other held-out rows would confirm it "
            "(another data.test, or another seed, in a run folder of its own)."
        )
    kind, key = _DRAWS[remedy.of], f"draws.{remedy.of}"
    if verdict.best is not None and not verdict.still_open:
        is_one = min(gain.draws for gain in verdict.gains) == 1
        if is_one and remedy.draws is not None and remedy.of == "sampling":
            return f"One subsample says nothing of how they differ; {remedy.draws} more ({key}) would."
        if is_one and remedy.draws is not None:
            return f"One {kind} speaks of that pool only; {remedy.draws} more ({key}) would tell pools apart."
    effect = f"{100 * remedy.effect:.1f} points"
    aim = f"rule out a gain of {effect}" if remedy.rules_out else f"show a gain of {effect}"
    aim += " for every blend" if verdict.still_open else ""
    given = ", if the truth is 0" if verdict.still_open else ""
    if remedy.draws is None:
        part = "held-out" if verdict.confirmed and not verdict.still_open else "validation"
        now = f"{'groups of ' if verdict.gains[0].grouped else ''}{part} items"
        items = f"it takes more {now} and more draws to {aim}"
        if remedy.items is not None:
            more = f"{remedy.items:,} {now} in place of {verdict.gains[0].items:,}"
            items = f"about {more} would {aim} with power 0.8{given}"
        if verdict.best is not None and verdict.best.whole and not verdict.still_open:
            return f"All rows of this pool are used, so more draws would not show more: {items}."
        return f"More {kind}s alone would not {aim}: {items}."
    again = f", tested at {remedy.level:.2g}, as one more look at the locked test" if remedy.of == "confirm" else ""
    draws = _count(remedy.draws, f"more {kind}")
    return f"About {draws} ({key}) would {aim} with power 0.8{given}{again}."


def write_scope(advice: Advice, verdict: Verdict, own: ComparedCells, *, best_failures: int) -> str:
    """What the trials leave open; ``own`` names the cells that were compared."""
    parts = []
    best, confirmation, cells = advice.best, advice.confirmation, [summary.cell for summary in advice.cells]
    if best is not None and best.cell.scope == "this pool":
        parts.append("This pool: gains are those of the very rows at hand, not of another generation.")
    elif best is not None and best.draws == 1:
        parts.append("One generation draw: everything here concerns that pool only.")
    is_whole = best is not None and best.cell.whole
    if verdict.confirmed and not is_whole and min((gain.draws for gain in verdict.gains), default=2) == 1:
        parts.append("One confirmation draw: its interval holds what items differ by, not what pools do.")
    if best_failures:
        failed = _count(best_failures, "trial")
        parts.append(f"{failed} of the best blend failed: its gains rest on the others, which may be the better ones.")
    if confirmation is not None and not verdict.confirmed:
        confirmed = confirmation.cell.key
        parts.append(f"The locked test confirmed another cell ({confirmed}), so the verdict rests on validation.")
    if best is not None:
        same = replace(best.cell, kind="synthetic-only", dial=None, level=None, share=0.0, whole=False)
        rivals = [s for s in advice.cells if replace(s.cell, dial=None, level=None, share=0.0, whole=False) == same]
        other = max(rivals, key=lambda s: s.accuracy, default=best)
        if other.accuracy > best.accuracy:
            parts.append(
                f"Synthetic rows alone ({other.cell.dial}={other.cell.level}) score higher than the best blend: "
                f"{100 * other.accuracy:.1f}% against {100 * best.accuracy:.1f}%."
            )
        alone = replace(same, kind="real-only")
        real = max((s.accuracy for s in advice.cells if replace(s.cell, scope=alone.scope) == alone), default=0.0)
        if real >= _CEILING:
            parts.append(
                f"A ceiling: the real rows alone score {100 * real:.1f}% already, so at most {100 - 100 * real:.1f} "
                "points are left to gain."
            )
    untuned = (s for s in advice.cells if s.cell.kind == "untuned" and s.cell.trainer == own.trainer and s.gains)
    parts += [_write_tuning(summary, advice.score) for summary in untuned]
    trainers = {c.trainer for c in cells} - {own.trainer}
    losses = {c.loss for c in cells if c.trainer == own.trainer} - {own.loss, "ce"}
    for what, others in (("trainer", trainers), ("loss", losses)):
        if others:
            parts.append(f"Described only, not used to choose: {what} {', '.join(sorted(others))}.")
    return " ".join(parts)


def _write_tuning(untuned: CellSummary, score: str) -> str:
    """Whether tuning on the real rows alone helps the model that trainings start from."""
    gain = untuned.gains[0]
    shown = "helps" if gain.high < 0 else "hurts" if gain.low > 0 else "is not shown to help"
    brings = f"{write_points(-gain.value)} points [{write_points(-gain.high)}, {write_points(-gain.low)}]"
    level = f"{100 * untuned.accuracy:.1f}% in {name_score(score)}{', a ceiling' * (untuned.accuracy >= _CEILING)}"
    return f"Tuning on the real rows alone {shown}: {brings} over the untuned model, which scores {level}."


def write_edge(edge: Edge, score: str = "accuracy", *, takes: str = "") -> str:
    """That the best amount is the largest tried, with what its last step brought, and the next step.

    Args:
        edge: of the best amount.
        score: that gains are of.
        takes: how long the next step takes, in words, where that is known.
    """
    gain, points = edge.gain, "points" if score == "accuracy" else f"points of {name_score(score)}"
    brought = ""
    if gain is not None:
        step = "tripling" if 2.5 <= edge.factor <= 3.6 else f"step ({edge.factor:.3g} times as much)"
        low, high = write_points(gain.low), write_points(gain.high)
        brought = f"; the last {step} brought {write_points(gain.value)} {points} [{low}, {high}]"
    if edge.is_everything:
        step = "All of it is used, and more rows may bring more"
        if edge.rows:
            spent = f"{edge.requests:,} requests, {edge.tokens:,} tokens{takes and ', '}{takes}"
            step = f"Next: generate {edge.rows:,} more rows of it, about {spent}, or stop"
        return f"The best amount is all that the pool holds{brought}. {step}."
    return f"The best amount is the largest tried{brought}. Try a larger one of mix.amounts."


def write_rows(found: RowsFinding, score: str = "accuracy") -> str:
    """``4 real rows a label: use, topics=16 at share 0.75 gains +3.1 points [+1.2, +5.0] over the real rows alone``.

    Scores other than accuracy are of tasks without labels, whose rows are counted as they are.
    """
    gains = () if found.best is None else found.best.gains
    best = "" if found.best is None else f", {found.best.cell.name}"
    gain = f" gains {write_gain(gains[0], score)} on validation, not corrected for having been chosen" if gains else ""
    each = " a label" if score == "accuracy" else ""
    return f"{found.rows_per_label} real rows{each}: {found.decision}{best}{gain}"


def advice_to_json(advice: Advice) -> dict[str, object]:
    """The advice as plain values, in the order of its fields; each cell also under its ``key``.

    The same trials give the same bytes. Numbers that are not finite become None.
    """
    derived = {Cell: "key", SensitivityTable: "robust"}
    return cast("dict[str, object]", to_plain(advice, other=no_number, derived=derived))
