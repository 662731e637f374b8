import numpy as np
import pytest

from cuvee.recommend import advice_to_text, confirm_cell, recommend_mixture
from cuvee.recommend.statistics import estimate_optimism
from cuvee.records import Cell, Composition, Draw, Estimate, Level, Scores, Trial


def draw_gains(seed, truth=0.0, *, cells=25, draws=5, items=200):
    rng = np.random.default_rng(seed)
    shape = (cells, draws, items)
    kept = rng.normal(0, 0.2, (cells, 1, items)) + rng.normal(0, 0.01, (cells, draws, 1))
    return np.reshape(truth, (-1, 1, 1)) + kept + rng.normal(0, 0.3, shape)


def test_equal_cells_are_corrected_to_nothing():
    found = [estimate_optimism(draw_gains(s), over="real-only") for s in range(80)]
    apparent, corrected = (np.array([getattr(f, name) for f in found]) for name in ("apparent", "corrected"))
    assert apparent.mean() > 0.03
    assert abs(corrected.mean()) < 3.5 * corrected.std() / np.sqrt(80) < 0.01
    assert np.mean([f.same_choice for f in found]) < 0.8
    assert all(f.cells == 25 and f.splits == 25 and f.value == pytest.approx(f.apparent - f.corrected) for f in found)


def test_leaving_out_draws_alone_would_not_do():
    """Items are chosen on too: where they are all the luck, folds of items must be left out."""
    rng = np.random.default_rng(0)
    tables = [np.broadcast_to(rng.normal(0, 0.3, (25, 1, 200)), (25, 5, 200)) for _ in range(40)]
    found = [estimate_optimism(t, over="b") for t in tables]
    assert np.mean([f.apparent for f in found]) > 0.03
    assert abs(np.mean([f.corrected for f in found])) < 0.013


def test_a_clear_winner_has_little_optimism():
    truth = np.where(np.arange(25) == 3, 0.3, 0.0)
    found = estimate_optimism(draw_gains(1, truth), over="b")
    assert found.same_choice == 1.0 and abs(found.value) < 1e-9
    assert found.corrected == pytest.approx(0.3, abs=0.05)


def test_one_draw_splits_items_only():
    found = estimate_optimism(draw_gains(2, draws=1), over="b")
    assert found.splits == 5 and found.value > 0


def test_draws_that_a_cell_lacks():
    gains = draw_gains(3, np.where(np.arange(6) == 2, 0.3, 0.0), cells=6)
    gains[2, 3:] = np.nan
    gains[4, :4] = np.nan
    found = estimate_optimism(gains, over="b")
    assert found.splits == 15 and found.same_choice == 1.0
    assert estimate_optimism(gains, over="b", best=0).apparent == pytest.approx(gains[0].mean())


def test_too_few_items_to_split():
    assert estimate_optimism(draw_gains(0, items=9), over="b") is None


def make_trial(cell, generation, correct, part="validation"):
    composition = Composition(
        share=cell.share, real_rows=1, synthetic_rows=1, unique_rows=2, most_repeats=1, label_counts={}
    )
    scores = Scores(n=correct.size, values={"accuracy": Estimate(value=0.5, n=correct.size)}, correct=correct)
    draw = Draw(generation=generation, sampling=0, training=0)
    return Trial(cell=cell, draw=draw, composition=composition, steps=1, part=part, scores=scores)


def test_the_advice_says_both():
    rng = np.random.default_rng(5)
    level = Level(dial="topics", name="4", rank=0)
    real = Cell(kind="real-only", rows_per_label=4)
    blends = [
        Cell(kind="blend", dial=level.dial, level=level.name, share=s / 20, rows_per_label=4) for s in range(1, 16)
    ]
    ease = rng.random(300)
    trials = [make_trial(cell, g, ease + rng.normal(0, 0.2, 300) > 0.4) for cell in (real, *blends) for g in range(3)]
    ranks = {"topics": ("4",)}
    advice = recommend_mixture(trials, level_ranks=ranks)
    found = advice.optimism
    assert found.cells == 15 and found.over == "real-only" and found.value > 0
    assert found.apparent == pytest.approx(advice.best.gains[0].value)
    text = advice_to_text(advice)
    assert f"{100 * found.value:+.1f} come from choosing the best" in text and "confirmation says" not in text
    fresh = [make_trial(t.cell, t.draw.generation, t.scores.correct, "test") for t in trials]
    confirmation = confirm_cell(fresh, advice.best.cell, fresh_draws=True)
    assert "the confirmation says" in advice_to_text(
        recommend_mixture(trials, level_ranks=ranks, confirmation=confirmation)
    )
    other = min(blends, key=lambda c: c == advice.best.cell)
    assert recommend_mixture(trials, level_ranks=ranks, winner=other).best.cell == other
    with pytest.raises(ValueError, match="winner"):
        recommend_mixture(trials, level_ranks=ranks, winner=real)
    assert recommend_mixture([t for t in trials if t.cell in (real, other)], level_ranks=ranks).optimism is None
