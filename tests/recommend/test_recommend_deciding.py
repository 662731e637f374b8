"""What is decided where a simpler rule would say too much."""

import dataclasses

import numpy as np
import pytest

from cuvee.recommend import advice_to_json, confirm_cell, recommend_mixture
from cuvee.recommend.wording import SEARCHED
from cuvee.records import Cell, Composition, Draw, Estimate, Measurement, Scores, Trial, TrialFailure

ITEMS = 1000
RANKS = {"topics": ("1", "2", "4")}
REAL = Cell(kind="real-only", rows_per_label=4)
REPEATED = Cell(kind="real-duplicated", share=0.75, rows_per_label=4)


def blend(level):
    return Cell(kind="blend", dial="topics", level=level, share=0.75, rows_per_label=4)


def make_trial(cell, draw, correct, part="validation"):
    made = Composition(
        share=cell.share, real_rows=20, synthetic_rows=20, unique_rows=40, most_repeats=1, label_counts={}
    )
    scores = Scores(
        n=correct.size, values={"accuracy": Estimate(value=float(correct.mean()), n=correct.size)}, correct=correct
    )
    at = Draw(generation=draw, sampling=0, training=0)
    return Trial(cell=cell, draw=at, composition=made, steps=1, part=part, scores=scores)


def make_trials(accuracy, *, draws=5, part="validation", seed=0, items=ITEMS, spread=0.05, luck=0.0, skip=()):
    """``accuracy`` by cell; items differ in ease, and ``luck`` by draw is shared by the blends."""
    rng = np.random.default_rng(seed)
    ease, trials = rng.random(items), []
    for g in range(draws):
        shared = rng.normal(0, luck) if luck else 0.0
        for cell, rate in accuracy.items():
            mine = rate + (shared if cell.kind == "blend" else 0.0)
            correct = ease + rng.normal(0, spread, items) < mine
            if not any(cell == c and left_out(shared) for c, left_out in skip):
                trials.append(make_trial(cell, 10 * (part == "test") + g, correct, part))
    return trials


def measure(scores, rows=(300, 300, 300)):
    return {
        f"topics={level}": Measurement(
            name=level, fingerprint="f", against=None, n=n, encoder="e", encoder_hash="h", seed=0,
            values={"vendi_q1": Estimate(value=v, low=v - 1, high=v + 1, n=n)},
        )
        for level, v, n in zip(RANKS["topics"], scores, rows, strict=True)
    }  # fmt: skip


HUMP = {REAL: 0.6, REPEATED: 0.6, blend("1"): 0.65, blend("2"): 0.75, blend("4"): 0.7}


def test_levels_stand_in_the_order_of_what_was_measured():
    trials = make_trials(HUMP)
    as_expected = recommend_mixture(trials, level_ranks=RANKS, measurements=measure((10, 20, 30))).shapes[0]
    assert as_expected.verdict == "inverted-U" and as_expected.peak == "2" and as_expected.interpreted
    other = recommend_mixture(trials, level_ranks=RANKS, measurements=measure((10, 30, 20))).shapes[0]
    assert other.verdict == "rising" and other.levels == ("1", "4", "2") and other.interpreted
    assert "measured order, 1 < 4 < 2" in other.note


def test_a_peak_that_is_as_diverse_as_an_end_is_no_turn():
    advice = recommend_mixture(make_trials(HUMP), level_ranks=RANKS, measurements=measure((10, 10.2, 20)))
    (shape,) = advice.shapes
    assert advice.checks[0].passed and shape.verdict == "inverted-U" and not shape.interpreted
    assert "2 does not differ from 1 in measured diversity" in shape.note


def test_levels_measured_at_unequal_rows_are_not_compared():
    uneven = measure((10, 20, 30), rows=(100, 400, 900))
    advice = recommend_mixture(make_trials(HUMP), level_ranks=RANKS, measurements=uneven)
    assert not advice.checks[0].passed and "measured at 100 to 900 rows" in advice.checks[0].note
    assert not advice.shapes[0].interpreted
    close = measure((10, 20, 30), rows=(298, 300, 300))
    assert recommend_mixture(make_trials(HUMP), level_ranks=RANKS, measurements=close).checks[0].passed


def confirm(rates, *, draws=3, seed=1, items=ITEMS, **options):
    rates = {REAL: rates[0], REPEATED: rates[1], blend("2"): rates[2]}
    return confirm_cell(
        make_trials(rates, draws=draws, part="test", seed=seed, items=items, **options), blend("2"), fresh_draws=True
    )


def test_one_confirmation_draw_decides_nothing():
    one = confirm((0.6, 0.6, 0.72), draws=1)
    advice = recommend_mixture(make_trials(HUMP), level_ranks=RANKS, confirmation=one)
    assert one.gains[0].low > 0.05 and advice.decision == "underpowered"
    assert (advice.more_draws, advice.more_of) == (4, "confirm")
    assert "One confirmation draw speaks of that pool only; 4 more (draws.confirm)" in advice.sentence
    assert "One confirmation draw" in advice.scope
    several = confirm((0.6, 0.6, 0.72))
    assert recommend_mixture(make_trials(HUMP), level_ranks=RANKS, confirmation=several).decision == "use"


def test_alpha_is_the_level_of_the_confirmation_too():
    found = confirm((0.6, 0.6, 0.63))
    trials = make_trials(HUMP)
    advice = [recommend_mixture(trials, level_ranks=RANKS, confirmation=found, alpha=alpha) for alpha in (0.05, 1e-12)]
    assert 1e-12 < max(gain.p_value for gain in advice[0].confirmation.gains) < 0.05
    decisions = [each.decision for each in advice]
    assert decisions == ["use", "underpowered"]


def test_what_is_not_confirmed_says_that_the_choice_flatters_it_and_what_is_expected():
    advice = recommend_mixture(make_trials(HUMP), level_ranks=RANKS)
    assert advice.decision == "use" and advice.lean.gain < advice.best.gains[0].value
    said = f"so the choice flatters these numbers; {100 * advice.lean.gain:+.1f} over both are expected of it"
    assert f"chosen among 3, not confirmed on the test, {said}" in advice.sentence
    confirmed = recommend_mixture(make_trials(HUMP), level_ranks=RANKS, confirmation=confirm((0.6, 0.6, 0.72)))
    assert "flatters" not in confirmed.sentence


def test_an_adaptive_search_settles_nothing_until_its_choice_is_confirmed():
    def search(**options):
        return recommend_mixture(make_trials(HUMP), level_ranks=RANKS, unconfirmed=SEARCHED, **options)

    found = search(winner=blend("2"))
    assert (found.decision, found.more_of) == ("underpowered", "confirm")
    assert "not confirmed: an adaptive search chose it, which settles nothing by itself" in found.sentence
    assert search(winner=blend("2"), confirmation=confirm((0.6, 0.6, 0.72))).decision == "use"
    assert search(winner=blend("1")).best.cell == blend("1")
    with pytest.raises(ValueError, match="winner"):
        search(winner=REAL)


def test_a_look_at_the_locked_test_is_tested_at_its_part_of_alpha():
    found = confirm((0.6, 0.6, 0.62), seed=27, spread=0.2)
    assert 0.025 < max(gain.p_value for gain in found.gains) < 0.05
    trials = make_trials(HUMP)
    only, second = (
        recommend_mixture(trials, level_ranks=RANKS, confirmation=dataclasses.replace(found, looks=looks, planned=12))
        for looks in ((), (4, 8))
    )
    assert only.decision == "use" and second.decision == "underpowered"
    assert "look 2 at the test, at level 0.02" in second.sentence


def test_a_confirmed_gain_over_repeated_rows_must_be_shown():
    found = confirm((0.6, 0.66, 0.665))
    assert found.gains[0].p_value < 0.05 < found.gains[1].p_value and found.gains[1].low < 0.01
    advice = recommend_mixture(make_trials(HUMP), level_ranks=RANKS, confirmation=found, delta=0.03)
    assert advice.decision != "use"


def test_draws_to_go_are_counted_on_the_gains_that_decide():
    """Validation is settled, the confirmation is not: more draws of it are asked for, to show what it observed."""
    unclear = confirm((0.6, 0.6, 0.63), draws=3, luck=0.03, seed=4)
    advice = recommend_mixture(make_trials(HUMP), level_ranks=RANKS, confirmation=unclear)
    assert advice.decision == "underpowered" and advice.more_of == "confirm"
    assert f"About {advice.more_draws} more confirmation draw" in advice.sentence
    effect = min(max(abs(g.value), 0.01) for g in unclear.gains)
    assert f"show a gain of {100 * effect:.1f} points with power 0.8" in advice.sentence
    assert "one more look at the locked test" in advice.sentence
    same = recommend_mixture(
        make_trials(HUMP), level_ranks=RANKS, confirmation=dataclasses.replace(unclear, fresh_draws=False)
    )
    assert same.more_of == "generation" and "more generation draw" in same.sentence  # there are none set aside


def test_a_loss_plans_to_rule_a_gain_out_and_not_to_show_one():
    unclear = confirm((0.62, 0.62, 0.585), draws=3, luck=0.03, seed=4)
    assert max(gain.value for gain in unclear.gains) < 0
    advice = recommend_mixture(make_trials(HUMP), level_ranks=RANKS, confirmation=unclear)
    assert advice.decision == "underpowered" and advice.more_of == "confirm"
    assert "would rule out a gain of 1.0 points with power 0.8" in advice.sentence and "show" not in advice.sentence
    # the further the loss lies from a gain, the fewer draws it takes
    easier = recommend_mixture(make_trials(HUMP), level_ranks=RANKS, confirmation=unclear, delta=0.02)
    assert easier.more_draws < advice.more_draws


@pytest.mark.parametrize("seed", range(3))
def test_one_blend_that_does_not_help_is_not_all_of_them(seed):
    """Two blends look alike on few items; the chosen one turns out to be worth nothing."""
    even = {REAL: 0.6, REPEATED: 0.6, blend("1"): 0.6, blend("2"): 0.64, blend("4"): 0.63}
    trials = make_trials(even, items=150, spread=0.08, draws=3, seed=seed, luck=0.01)
    best = recommend_mixture(trials, level_ranks=RANKS).best.cell
    rates = {REAL: 0.6, REPEATED: 0.6, best: 0.59}
    nothing = confirm_cell(make_trials(rates, part="test", items=20_000), best, fresh_draws=True)
    advice = recommend_mixture(trials, level_ranks=RANKS, confirmation=nothing)
    assert nothing.gains[0].high < 0.01
    assert advice.decision == "underpowered" and "ruled out for it" in advice.sentence
    assert "rule out a gain of 1.0 points for every blend" in advice.sentence


def test_a_cell_that_failed_in_bad_draws_does_not_win_by_it():
    equal = {REAL: 0.6, REPEATED: 0.6, blend("1"): 0.65, blend("2"): 0.65, blend("4"): 0.64}
    trials = make_trials(equal, draws=8, seed=0, luck=0.03, skip=[(blend("4"), lambda luck: luck < 0.005)])
    means = {s.cell.level: s.accuracy for s in recommend_mixture(trials, level_ranks=RANKS).cells if s.cell.level}
    assert means["4"] == max(means.values())
    assert recommend_mixture(trials, level_ranks=RANKS).best.cell.level != "4"


def test_failures_of_the_best_blend_are_told():
    trials = make_trials(HUMP)
    failed = TrialFailure(
        cell=blend("2"), draw=Draw(generation=5, sampling=0, training=0), stage="train", reason="out of memory"
    )
    advice = recommend_mixture(trials, [failed], level_ranks=RANKS)
    assert "1 trial of the best blend failed" in advice.scope
    other = dataclasses.replace(failed, cell=blend("1"))
    assert "of the best blend failed" not in recommend_mixture(trials, [other], level_ranks=RANKS).scope


def test_what_hurts_is_named_with_its_size():
    harm = {REAL: 0.7, REPEATED: 0.7, blend("1"): 0.71, blend("2"): 0.62, blend("4"): 0.6}
    advice = recommend_mixture(make_trials(harm), level_ranks=RANKS)
    assert [summary.cell.level for summary in advice.harmful] == ["2", "4"]
    worst, least = (100 * summary.gains[0].value for summary in reversed(advice.harmful))
    assert worst < least < -6
    said = f"Avoid topics=2 and 4 at share 0.75 ({least:+.1f} to {worst:+.1f} points)"
    assert advice.avoid.startswith(said) and said in str(advice)
    assert [cell["cell"]["level"] for cell in advice_to_json(advice)["harmful"]] == ["2", "4"]
    fine = recommend_mixture(make_trials(HUMP), level_ranks=RANKS)
    assert fine.harmful == () and fine.avoid == ""
    one = recommend_mixture(make_trials(harm, draws=1), level_ranks=RANKS)
    assert one.harmful == ()  # one pool says nothing of the level


def test_equal_cells_are_hardly_ever_called_harmful():
    equal = dict.fromkeys(HUMP, 0.6)
    found = [
        recommend_mixture(make_trials(equal, draws=3, items=200, seed=seed, luck=0.01), level_ranks=RANKS).harmful
        for seed in range(16)
    ]
    assert sum(bool(harmful) for harmful in found) <= 3


def test_a_winner_that_is_ruled_out_is_a_finding_of_its_own():
    """Nothing is said of the other blends."""
    even = {REAL: 0.6, REPEATED: 0.6, blend("1"): 0.66, blend("2"): 0.67, blend("4"): 0.66}
    trials = make_trials(even, draws=3)
    nothing = confirm((0.6, 0.6, 0.59), items=20_000)
    advice = recommend_mixture(trials, level_ranks=RANKS, confirmation=nothing)
    assert advice.decision == "underpowered" and advice.winner_ruled_out
    assert "the blend that this study would choose is not worth it" in advice.headline
    assert advice.sentence.startswith(f"{advice.headline}: ")
    open_still = recommend_mixture(trials, level_ranks=RANKS)
    assert not open_still.winner_ruled_out and "not worth it" not in open_still.headline


def lean_of(rates, *, confirmation=None, **options):
    return recommend_mixture(make_trials(rates, **options), level_ranks=RANKS, confirmation=confirmation)


def test_a_lean_says_what_the_evidence_favours():
    better = {REAL: 0.6, REPEATED: 0.6, blend("1"): 0.61, blend("2"): 0.63, blend("4"): 0.6}
    some = lean_of(better, items=200, draws=3, spread=0.2)
    assert some.decision == "underpowered" and 0.5 < some.lean.probability < 0.99
    assert some.headline == f"Not settled; leaning yes, {some.lean.probability:.0%}"
    assert some.sentence.startswith(some.headline)
    assert some.today.startswith("If you decide today: mix in topics=") and some.today in str(some)
    assert 0 < some.lean.gain < max(g.value for g in some.best.gains)  # shrunk for the choice
    sure = lean_of({**better, blend("2"): 0.75})
    assert sure.lean.cell == blend("2") and sure.lean.probability > 0.99
    assert sure.lean.gain == pytest.approx(sure.best.gains[0].value, abs=0.01)
    worse = lean_of({**better, blend("1"): 0.55, blend("2"): 0.55, blend("4"): 0.55})
    assert worse.lean.gain < 0 and worse.lean.probability < 0.05
    assert "train on the real rows alone" in worse.today


def test_a_lean_follows_the_confirmation():
    close = {REAL: 0.6, REPEATED: 0.6, blend("1"): 0.6, blend("2"): 0.63, blend("4"): 0.6}
    alone, good, bad = (
        lean_of(close, items=200, draws=3, spread=0.2, confirmation=each)
        for each in (None, confirm((0.6, 0.6, 0.65)), confirm((0.6, 0.6, 0.55)))
    )
    assert bad.lean.gain < alone.lean.gain < good.lean.gain
    assert good.lean.cell == blend("2") and good.lean.probability > 0.99
    assert bad.lean.probability < alone.lean.probability


def test_a_lean_believes_what_near_amounts_say_too_and_little_of_tiny_ones():
    def expect(rates):
        cells = {dataclasses.replace(blend("2"), share=share): rate for share, rate in rates.items()}
        repeated = {dataclasses.replace(REPEATED, share=share): 0.6 for share in rates}
        given = {REAL: 0.6, **repeated, **cells}
        return np.mean([lean_of(given, items=200, draws=3, spread=0.2, seed=seed).lean.gain for seed in range(6)])

    assert expect({0.02: 0.65}) < 0.3 * expect({0.75: 0.65})
    backed, doubted = expect({0.5: 0.65, 0.75: 0.65, 0.9: 0.65}), expect({0.5: 0.56, 0.75: 0.65, 0.9: 0.56})
    assert doubted < 0.5 * backed


def test_one_draw_leans_with_the_spread_that_studies_have():
    better = {REAL: 0.6, REPEATED: 0.6, blend("1"): 0.6, blend("2"): 0.63, blend("4"): 0.6}
    one, several = lean_of(better, draws=1), lean_of(better, draws=5)
    assert 0.5 < one.lean.probability < several.lean.probability


def test_a_lean_goes_by_the_score_and_knows_that_real_rows_can_be_repeated():
    """Baselines that no draw changes are trained once, which is no lack of draws."""

    def lean(repeated, blends):
        cells = {dataclasses.replace(blend("2"), share=share): rate for share, rate in blends.items()}
        again = {dataclasses.replace(REPEATED, share=share): rate for share, rate in repeated.items()}
        trials = make_trials({REAL: 0.7, **again, **cells}, items=3000)
        once = [t for t in trials if t.cell.kind == "blend" or t.draw.generation == 0]
        return recommend_mixture(once, level_ranks=RANKS)

    hurt = lean({0.5: 0.7, 0.9: 0.6}, {0.5: 0.72, 0.9: 0.695})
    assert hurt.lean.cell.share == 0.5 and hurt.lean.gain == pytest.approx(0.02, abs=0.01)
    as_good = lean({0.5: 0.8, 0.75: 0.8}, {0.5: 0.74, 0.75: 0.76})
    assert as_good.lean.gain < 0 and as_good.lean.repeated == pytest.approx(0.1, abs=0.02)
    assert as_good.today.startswith("If you decide today: repeat the real rows to 4 times their number (+")
