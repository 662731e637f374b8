import dataclasses
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from cuvee.recommend import ComparedCells, advice_to_json, confirm_cell, recommend_mixture, summarise_rows
from cuvee.recommend.cells import collect_tables
from cuvee.recommend.wording import write_edge, write_rows
from cuvee.records import Cell, Composition, Draw, Estimate, Measurement, Scores, Trial, TrialFailure

ITEMS = 1000
RANKS = {"topics": ("1", "4", "16", "64")}
SHARES = (0.5, 0.75, 0.9)
GCE = ComparedCells(loss="gce")


def make_trial(cell, generation, chance, rng, *, training=0, part="validation", ease=None, items=ITEMS):
    """A trial whose answers share the items' difficulty with every other trial of the study."""
    ease = np.random.default_rng(99).random(items) if ease is None else ease
    noise = rng.random(items)
    correct = 0.85 * ease + 0.15 * noise < np.quantile(0.85 * ease + 0.15 * rng.random(items), chance)
    real, total = 20, round(20 / (1 - cell.share)) if cell.share < 1 else 80
    composition = Composition(
        share=0.0 if cell.kind.startswith("real") else cell.share,
        real_rows=total if cell.kind == "real-duplicated" else real,
        synthetic_rows=total - real,
        unique_rows=total,
        most_repeats=1,
        label_counts={},
    )
    scores = Scores(n=items, values={"accuracy": Estimate(value=float(correct.mean()), n=items)}, correct=correct)
    draw = Draw(generation=generation, sampling=0, training=training)
    return Trial(cell=cell, draw=draw, composition=composition, steps=30, part=part, scores=scores)


def make_study(gain_of, *, draws=5, trainings=2, spread=0.003, seed=0, part="validation", trainer="probe"):
    """A whole grid; ``gain_of(level, share)`` is the true gain of a cell over a base accuracy of 0.70."""
    rng = np.random.default_rng(seed)
    blends = [
        Cell(kind="blend", dial="topics", level=level, share=share, rows_per_label=4, trainer=trainer)
        for level in RANKS["topics"]
        for share in SHARES
    ]
    duplicated = [Cell(kind="real-duplicated", share=s, rows_per_label=4, trainer=trainer) for s in SHARES]
    real = Cell(kind="real-only", rows_per_label=4, trainer=trainer)
    alone = Cell(kind="synthetic-only", dial="topics", level="16", share=1.0, rows_per_label=4, trainer=trainer)
    trials = []
    for cell in [*blends, *duplicated, real, alone]:
        base = {"real-only": 0.70, "real-duplicated": 0.703, "synthetic-only": 0.66}.get(cell.kind)
        for generation in range(draws if cell.kind in ("blend", "synthetic-only") else 1):
            chance = base or 0.70 + gain_of(cell.level, cell.share) + rng.normal(0, spread)
            trials += [make_trial(cell, generation, chance, rng, training=t, part=part) for t in range(trainings)]
    return trials


def hump(level, share):
    return {"1": 0.02, "4": 0.06, "16": 0.05, "64": 0.0}[level] * (1.0 if share == 0.75 else 0.5)


def make_measurements(scores=(20.0, 35.0, 50.0, 65.0), half=3.0, n=60):
    return {
        f"topics={name}": Measurement(
            name=f"topics={name}",
            fingerprint="f",
            against=None,
            n=n,
            encoder="hashing",
            encoder_hash="h",
            seed=0,
            values={"vendi_q1": Estimate(value=v, low=v - half, high=v + half, n=n, interval="jackknife")},
        )
        for name, v in zip(RANKS["topics"], scores, strict=True)
    }


def advise(trials, failures=(), **options):
    return recommend_mixture(trials, failures, **({"level_ranks": RANKS} | options))


def test_use():
    advice = advise(make_study(hump), measurements=make_measurements())
    assert advice.decision == "use" and advice.more_draws is None
    assert (advice.best.cell.level, advice.best.cell.share) == ("4", 0.75)
    assert [g.over for g in advice.best.gains] == ["real-only", "real-duplicated"]
    assert all(g.low > 0 and g.draws == 5 and g.items == ITEMS for g in advice.best.gains)
    assert advice.best.trials == 10 and advice.best.share == 0.75
    (shape,) = advice.shapes
    assert shape.verdict == "inverted-U" and shape.share == 0.75 and shape.draws == 5
    for words in ("Use synthetic data", "topics=4 at share 0.75", "Vendi 35.0 [32.0, 38.0]", "5 generation draws",
                  "1,000 validation items", "not confirmed", "real rows alone", "repeating the real rows"):  # fmt: skip
        assert words in advice.sentence
    assert f"{100 * max(g.mde for g in advice.best.gains):.1f} points would be detected" in advice.sentence


def test_do_not_use_when_it_hurts_and_when_it_does_nothing():
    hurts = advise(make_study(lambda _level, _share: -0.05))
    assert hurts.decision == "do-not-use" and hurts.best.gains[0].high < 0
    assert (
        "Do not use synthetic data" in hurts.sentence
        and "more than 1 point over the real rows alone or repeating the real rows is ruled out" in hurts.sentence
    )
    nothing = advise(make_study(lambda _level, _share: -0.01), delta=0.02)
    assert nothing.decision == "do-not-use"


def test_shown_to_be_smaller_than_what_counts_is_do_not_use():
    advice = advise(make_study(lambda level, share: 0.04 if (level, share) == ("4", 0.75) else 0.0), delta=0.1)
    assert advice.best.gains[0].low > 0
    assert advice.decision == "do-not-use"


def test_underpowered_says_how_many_more_draws():
    advice = advise(make_study(lambda _level, _share: 0.015, spread=0.03, draws=3, seed=5))
    assert advice.decision == "underpowered"
    assert advice.more_draws is not None and advice.more_draws >= 1
    assert f"About {advice.more_draws} more generation draw" in advice.sentence


def test_equal_cells_are_not_called_a_gain():
    """The best of eight equal cells must not win more often than alpha; without Holm it would."""
    decisions = [
        advise(make_study(lambda _level, _share: 0.003, spread=0.012, draws=3, trainings=1, seed=s)).decision
        for s in range(25)
    ]
    assert decisions.count("use") <= 3


def test_one_draw_speaks_of_its_pool():
    advice = advise(make_study(lambda _level, _share: -0.005, draws=1, trainings=1))
    assert advice.decision == "underpowered" and advice.more_draws == 4
    assert "that pool only" in advice.sentence and "that pool only" in advice.scope
    assert advice.shapes[0].draws == 1 and "that pool only" in advice.shapes[0].note
    large = advise(make_study(hump, draws=1))
    assert large.best.gains[0].low > 0 and large.decision == "underpowered"


def test_synthetic_only_never_wins():
    poor = advise(make_study(lambda _level, _share: -0.1))
    assert poor.best.cell.kind == "blend" and "Synthetic rows alone" in poor.scope


def of_pool(trials, *, whole_from=0.9):
    """The same trials as subsamples of one pool, of which cells from a share on are all; those need one draw."""
    found = []
    for trial in trials:
        cell, draw = trial.cell, trial.draw
        is_whole = cell.dial is not None and cell.share >= whole_from
        if draw.training or (is_whole and draw.generation):
            continue
        cell = dataclasses.replace(cell, scope="this pool", whole=is_whole)
        draw = Draw(generation=0, sampling=draw.generation, training=0)
        found.append(dataclasses.replace(trial, cell=cell, draw=draw))
    return found


def test_all_of_a_pool_wins_with_one_draw_over_the_items_and_the_edge_is_told():
    rising = make_study(lambda level, share: {0.5: 0.03, 0.75: 0.06, 0.9: 0.12}.get(share, 0) if level == "4" else 0.0)
    advice = advise(of_pool(rising), shape_share=0.75)
    assert advice.decision == "use" and advice.best.cell.whole and advice.best.draws == 1
    assert "all rows of this pool" in advice.sentence and "This pool" in advice.scope and advice.shapes == ()
    assert advice.edge.is_everything and advice.edge.gain.low > 0
    assert "all that the pool holds; the last tripling brought" in write_edge(advice.edge)
    assert advice.today == ""  # the verdict says what to do, and about one blend
    # where the smaller amounts are judged as recipes, the last step is none of one scope
    mixed = [t if t.cell.share < 0.9 and t.cell.dial else of for t in rising for of in of_pool([t])]
    mixed += [t for t in rising if t.cell.kind == "real-only"]
    assert advise(mixed).edge.gain is None
    assert "is all that the pool holds. All of it is used, and more rows" in write_edge(advise(mixed).edge)
    # that all of another pool hurts is shown by its one draw too
    worse = make_study(lambda level, share: -0.2 if level == "16" and share == 0.9 else 0.0)
    assert {s.cell.level for s in advise(of_pool(worse)).harmful} == {"16"}
    # of a part of the pool one draw says nothing of how subsamples differ
    one = [t for t in of_pool(rising, whole_from=2) if t.draw.sampling == 0]
    part = advise(one)
    assert part.decision == "underpowered" and "draws.sampling" in part.sentence
    # in the scope of the recipe one draw never decides, whatever it shows
    recipe = [t for t in rising if t.draw.generation == 0]
    assert advise(recipe).decision == "underpowered"


def test_a_blend_is_judged_in_one_scope_and_the_recipe_keeps_the_shape():
    rows = make_study(hump)
    slices = [t for t in rows if t.cell.kind == "blend" and t.cell.share == 0.75]
    both = advise([*of_pool(rows), *slices], shape_share=0.75)
    assert both.best.cell.scope == "this pool" and both.shapes[0].verdict == "inverted-U"
    assert {s.cell.scope for s in both.not_distinguished} <= {"this pool"}
    alone = advise(of_pool(rows), shape_share=0.75)
    assert (both.best.cell, both.decision) == (alone.best.cell, alone.decision) and not alone.shapes
    # nor at an amount that is not judged in the scope of the decision
    other = [t for t in of_pool(rows) if t.cell.kind != "blend" or t.cell.share == 0.5]
    assert advise([*other, *slices], shape_share=0.75).best.cell.share == 0.5


@pytest.mark.parametrize("gain", [0.06, 0.0, -0.05])
def test_both_scopes_go_through_the_same_statistics(gain):
    """The same answers as further generations or as subsamples of one pool: only what they speak of differs."""
    recipe = [
        t for t in make_study(lambda level, _share: gain * (level == "4"), trainings=1) if t.cell.share in (0.0, 0.75)
    ]
    found = [advise(trials, shape_share=0.75) for trials in (recipe, of_pool(recipe, whole_from=2))]
    assert [advice.best.cell.scope for advice in found] == ["the recipe", "this pool"]
    of_recipe, of_file = ({s.cell.level: s.gains for s in a.cells if s.cell.kind == "blend"} for a in found)
    assert of_recipe == of_file and len(of_file) == 4
    assert found[0].decision == found[1].decision and found[0].lean.gain == found[1].lean.gain


def test_a_ceiling_is_told():
    assert "A ceiling" not in advise(make_study(hump)).scope
    high = make_study(lambda _level, _share: 0.27)
    high = [t for t in high if t.cell.kind != "real-only"] + [
        make_trial(dataclasses.replace(t.cell), 0, 0.97, np.random.default_rng(1), training=t.draw.training)
        for t in high
        if t.cell.kind == "real-only"
    ]
    said = re.search(r"the real rows alone score (9\d\.\d)% already, so at most (\d\.\d) points", advise(high).scope)
    assert said is not None and float(said[1]) + float(said[2]) == pytest.approx(100)


def test_other_trainers_are_described_only():
    probe, encoder = make_study(hump), make_study(lambda _level, _share: 0.2, trainer="encoder", draws=2)
    advice = advise([*probe, *encoder])
    assert advice.best.cell.trainer == "probe" and "trainer encoder" in advice.scope
    assert {s.cell.trainer for s in advice.cells} == {"probe", "encoder"}
    assert advice.best == advise(probe).best
    assert advise([*probe, *encoder], compared=ComparedCells(trainer="encoder")).best.cell.trainer == "encoder"


def test_confirmation_decides():
    trials = make_study(hump)
    best = advise(trials).best.cell
    good = confirm_cell(make_study(hump, part="test", seed=1), best, fresh_draws=True)
    assert good.test_items == ITEMS and [g.over for g in good.gains] == ["real-only", "real-duplicated"]
    advice = advise(trials, confirmation=good)
    assert advice.decision == "use" and "locked test items, 5 generation draws, fresh draws" in advice.sentence
    assert f"{100 * good.gains[0].value:+.1f} points" in advice.sentence
    bad = confirm_cell(make_study(lambda _level, _share: -0.04, part="test", seed=2), best, fresh_draws=True)
    other = advise(trials, confirmation=bad)
    assert other.decision == "underpowered" and other.more_of == "generation"
    assert "is ruled out for it" in other.sentence and "topics=16 at share 0.75" in other.sentence
    nothing = make_study(lambda level, share: 0.0 if (level, share) == ("4", 0.75) else -0.05)
    assert advise(nothing, confirmation=bad).decision == "do-not-use"
    real, twice = good.gains
    vague = dataclasses.replace(good, gains=(dataclasses.replace(real, se_items=real.value), twice))
    assert advise(trials, confirmation=vague).decision == "underpowered"
    worse = dataclasses.replace(good, gains=(real, dataclasses.replace(twice, value=-0.01, low=-0.04, high=0.02)))
    assert advise(trials, confirmation=worse).decision == "underpowered"
    other = dataclasses.replace(bad, cell=dataclasses.replace(best, level="64"))
    elsewhere = advise(trials, confirmation=other)
    assert elsewhere.decision == "use" and "confirmed another cell" in elsewhere.scope


def test_test_trials_never_choose():
    trials = make_study(hump)
    flood = make_study(lambda level, _share: 0.2 if level == "64" else -0.2, part="test")
    assert advise([*trials, *flood]) == advise(trials)


def test_missing_baselines_leave_it_open():
    trials = make_study(hump)
    without = [t for t in trials if t.cell.kind != "real-duplicated"]
    advice = advise(without)
    assert advice.decision == "underpowered" and "real-duplicated is missing" in advice.sentence
    blends = [t for t in trials if t.cell.kind == "blend"]
    assert "no real-only baseline" in advise(blends).sentence
    assert advise([]).best is None and advise([]).decision == "underpowered"


def test_a_cell_left_with_one_draw_cannot_win():
    lucky = Cell(kind="blend", dial="topics", level="64", share=0.75, rows_per_label=4)
    trials = [t for t in make_study(hump) if t.cell != lucky]
    trials.append(make_trial(lucky, 0, 0.95, np.random.default_rng(0)))
    failure = TrialFailure(
        cell=lucky, draw=Draw(generation=1, sampling=0, training=0), stage="train", reason="diverged"
    )
    advice = advise(trials, [failure])
    assert advice.best.cell != lucky and advice.failures == 1
    assert advice.shapes[0].levels == ("1", "4", "16") and "left out for want of draws: 64" in advice.shapes[0].note


def test_shapes_use_the_draws_that_all_levels_have():
    missing = Cell(kind="blend", dial="topics", level="64", share=0.75, rows_per_label=4)
    trials = [t for t in make_study(hump) if t.cell != missing or t.draw.generation != 2]
    (shape,) = advise(trials).shapes
    assert shape.draws == 4 and shape.levels == RANKS["topics"] and "lack a level are left out: 1" in shape.note


def test_cells_that_are_not_distinguished():
    advice = advise(make_study(lambda level, _share: {"4": 0.06, "16": 0.06}.get(level, -0.1)))
    assert {s.cell.level for s in advice.not_distinguished} == ({"4", "16"})
    assert advice.best.cell not in [s.cell for s in advice.not_distinguished]
    accuracies = [s.accuracy for s in advice.not_distinguished]
    assert accuracies == sorted(accuracies, reverse=True) and len(accuracies) == 5


def test_manipulation_checks():
    trials = make_study(hump, draws=2, trainings=1)
    (clear,) = advise(trials, measurements=make_measurements()).checks
    assert clear.passed and clear.levels == RANKS["topics"] and "differs from the expected" not in clear.note
    (blurred,) = advise(trials, measurements=make_measurements(half=40.0)).checks
    assert not blurred.passed and "did not change" in blurred.note
    (noisy,) = advise(trials, measurements=make_measurements((20.0, 35.0, 50.0, 25.0))).checks
    assert noisy.passed and "1 < 64 < 4 < 16" in noisy.note and "shift" in noisy.note
    assert advise(trials).checks == ()


def test_words_and_values_are_the_same_each_time():
    trials = make_study(hump)
    shuffled = [trials[i] for i in np.random.default_rng(1).permutation(len(trials))]
    first, second = (advise(t, measurements=make_measurements()) for t in (trials, shuffled))
    assert json.dumps(advice_to_json(first)) == json.dumps(advice_to_json(second))
    assert str(first) == str(second)
    plain = json.loads(json.dumps(advice_to_json(first), allow_nan=False))
    with pytest.raises(TypeError, match="a result holds a value of type int64"):
        advice_to_json(replace(first, failures=np.int64(1)))
    assert plain["decision"] == "use" and plain["best"]["cell"]["key"] == first.best.cell.key
    assert plain["best"]["gains"][0]["value"] == first.best.gains[0].value
    assert plain["checks"][0]["estimates"][0]["value"] == 20.0
    assert first.sentence in str(first) and not re.search(r"\d{4}-\d\d-\d\d|nan|None", str(first))


def test_summaries_pair_draws():
    trials = make_study(hump, draws=3)
    summaries = advise(trials).cells
    assert [s.cell.kind for s in summaries[:4]] == ["real-only", *["real-duplicated"] * 3]
    assert summaries[0].gains == () and [g.over for g in summaries[1].gains] == ["real-only"]
    blend = next(s for s in summaries if s.cell.kind == "blend")
    mine = np.mean([t.scores.correct for t in trials if t.cell == blend.cell])
    base = np.mean([t.scores.correct for t in trials if t.cell.kind == "real-only"])
    assert blend.gains[0].value == pytest.approx(mine - base)
    assert [s.cell.level for s in summaries if s.cell.kind == "blend"][::3] == list(RANKS["topics"])


def test_baselines_of_repeated_rows_are_told_apart():
    table = advise(make_study(lambda *_: -0.1)).table
    names = [name for name, *_ in table if name.startswith("real repeated")]
    assert sorted(names) == ["real repeated 10x", "real repeated 2x", "real repeated 4x"]


def test_real_rows_below_the_best_cells_are_those_of_the_loss_that_decides():
    trials = make_study(hump)
    others = [replace(t, cell=replace(t.cell, loss="gce")) for t in trials]
    rows = [dict(zip(table[0], row, strict=True)) for table in [advise([*trials, *others]).table] for row in table]
    assert [row["loss"] for row in rows if row["cell"] == "real rows"] == ["ce"]


def test_trials_that_do_not_fit_together_are_refused():
    rng = np.random.default_rng(0)
    cell = Cell(kind="real-only", rows_per_label=4)
    one, short = make_trial(cell, 0, 0.7, rng), make_trial(cell, 1, 0.7, rng, items=500)
    with pytest.raises(ValueError, match="different validation items"):
        collect_tables([one, short])
    with pytest.raises(ValueError, match="twice"):
        collect_tables([one, one])
    with pytest.raises(ValueError, match="delta"):
        advise([one], delta=0)


def test_levels_that_do_not_differ_are_not_interpreted():
    trials = make_study(hump)
    clear = advise(trials, measurements=make_measurements())
    assert clear.shapes[0].interpreted and clear.shapes[0].two_lines is not None
    blurred = advise(trials, measurements=make_measurements(half=40.0))
    assert not blurred.shapes[0].interpreted
    assert blurred.decision == clear.decision and blurred.best == clear.best
    unknown = advise(trials)
    assert unknown.shapes[0].interpreted and unknown.shapes[0].two_lines is None
    parts = dict(list(make_measurements().items())[:3])
    assert advise(trials, measurements=parts).shapes[0].two_lines is None


def with_rows(trials, rows, *, loss="ce"):
    cells = [dataclasses.replace(t.cell, rows_per_label=rows, loss=loss) for t in trials]
    return [dataclasses.replace(t, cell=cell) for t, cell in zip(trials, cells, strict=True)]


def test_each_number_of_real_rows_has_an_advice_of_its_own():
    many = make_study(lambda _level, _share: -0.05)
    few = with_rows(make_study(hump, seed=1), 2)
    both = [*many, *few]
    assert advise(both).decision == "do-not-use" == advise(both, compared=ComparedCells(rows_per_label=4)).decision
    found = advise(both, compared=ComparedCells(rows_per_label=2))
    assert found.decision == "use" and found.best.cell.rows_per_label == 2 and found.best == advise(few).best
    assert found.shapes == advise(few).shapes and found.lean == advise(few).lean
    summary = summarise_rows({2: found, 4: advise(both)})
    assert [(s.rows_per_label, s.decision) for s in summary] == [(4, "do-not-use"), (2, "use")]
    assert all(s.real_only == pytest.approx(0.7, abs=0.02) for s in summary)
    assert summary[1].best == found.best and summary[1].shapes == found.shapes
    assert write_rows(summary[1]).startswith("2 real rows a label: use, topics=4 at share 0.75 gains +")
    nothing = advise(both, compared=ComparedCells(rows_per_label=7))
    assert nothing.best is None and nothing.decision == "underpowered"


def test_losses_are_compared_each_with_its_own_baselines():
    both = [*make_study(lambda _level, _share: -0.05), *with_rows(make_study(hump, seed=1), 4, loss="gce")]
    assert advise(both).decision == "do-not-use" and advise(both, compared=GCE).decision == "use"
    assert "Described only, not used to choose: loss gce" in advise(both).scope
    own = advise(with_rows(make_study(hump, seed=1), 4, loss="gce"), compared=GCE)
    assert advise(both, compared=GCE).best == own.best


def test_the_measure_of_diversity_can_be_another():
    measured = make_measurements()
    for name, value in zip(RANKS["topics"], (3.0, 3.1, 3.2, 3.3), strict=True):
        found = measured[f"topics={name}"]
        other = Estimate(value=value, low=value - 1, high=value + 1, n=60, interval="jackknife")
        measured[f"topics={name}"] = dataclasses.replace(found, values={**found.values, "distinct_2": other})
    trials = make_study(hump)
    base, other = (advise(trials, measurements=measured, metric=m) for m in ("vendi_q1", "distinct_2"))
    assert base.checks[0].passed and not other.checks[0].passed and other.checks[0].metric == "distinct_2"
    assert base.shapes[0].interpreted and not other.shapes[0].interpreted
    assert base.shapes[0].two_lines.break_at > 10 > other.shapes[0].two_lines.break_at
    assert "Vendi 35.0" in base.sentence and "distinct_2 3.1" in other.sentence
    assert base == advise(trials, measurements=measured)
