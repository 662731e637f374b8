import numpy as np
import pytest

from cuvee.recommend import AdaptiveSearch, plan_grid
from cuvee.recommend.search import PARTS, Grid, TrialProcess, Tried, list_draws
from cuvee.records import Cell, Level

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
LEVELS = [Level(dial="topics", name=str(k), rank=k) for k in range(5)]
DIVERSITY = {f"topics={k}": v for k, v in enumerate((12.0, 19.0, 27.0, 33.0, 40.0))}


def plan(*, draws=4, sampling=1, training=1, rows=4, levels=LEVELS):
    every = list_draws(range(draws), range(sampling), training)
    like = Cell(kind="real-only", rows_per_label=rows)
    amounts = [(share, False) for share in SHARES]
    return plan_grid(dict.fromkeys(levels, amounts), dict.fromkeys(levels, every), like=like, base_share=0.5)


def make_search(planned=None, **changes):
    settings = {"diversity": DIVERSITY, "shape_share": 0.5, "budget": 0.4} | changes
    return AdaptiveSearch(plan() if planned is None else planned, **settings)


def answer(trial, *, seed=0):
    """Highest at level 3 and share 0.7, 4 points above the corner; noise of half a point, the same each time."""
    if trial.cell.kind != "blend":
        return 0.7
    level, share = int(trial.cell.level), trial.cell.share
    noise = np.random.default_rng([seed, level, round(10 * share), trial.draw.generation, trial.draw.training])
    return 0.72 - 0.004 * (level - 3) ** 2 - 0.1 * (share - 0.7) ** 2 + 0.005 * noise.normal()


def play(search, *, tell=answer, stop=None):
    """Every round asked, until ``stop`` rounds."""
    rounds = []
    while (stop is None or len(rounds) < stop) and (batch := search.ask()):
        rounds.append(batch)
        for trial in batch:
            search.tell(trial, tell(trial))
    return rounds


def test_baselines_and_the_balanced_slice_come_first_and_complete():
    search = make_search(batch=10)
    rounds = play(search)
    first = set(rounds[0])
    expected = {t for t in plan() if t.cell.kind != "blend" or t.cell.share == 0.5}
    assert first == expected and len(rounds[0]) == len(expected)
    later = [t for batch in rounds[1:] for t in batch]
    assert len(set(later)) == len(later) and not set(later) & first
    assert all(t.cell.kind == "blend" and t.cell.share != 0.5 for t in later)
    assert sum(t.cell.kind == "blend" for batch in rounds for t in batch) == 40
    assert search.ask() == ()


def test_the_rest_is_spent_near_the_best_cells():
    search = make_search()
    later = [t for batch in play(search)[1:] for t in batch]
    near = sum(t.cell.level in ("2", "3", "4") and t.cell.share in (0.3, 0.7, 0.9) for t in later)
    assert near / len(later) > 0.6
    best = search.best()
    assert best.level == "3" and best.share in (0.5, 0.7)


def test_the_same_values_ask_the_same_whatever_their_order():
    first, second = make_search(), make_search()
    for _ in range(3):
        batch, same = first.ask(), second.ask()
        assert batch == same
        for trial in batch:
            first.tell(trial, answer(trial))
        for trial in reversed(same):
            second.tell(trial, answer(trial))
    assert first.best() == second.best()
    assert play(make_search(batch=10), tell=lambda t: answer(t, seed=1)) != play(make_search(batch=10))


def test_what_was_told_before_is_not_asked_again():
    known = {t for batch in play(make_search(), stop=3) for t in batch}
    resumed = make_search()
    for trial in sorted(known, key=lambda t: (t.cell.key, t.draw.generation)):
        resumed.tell(trial, answer(trial))
    whole = make_search()
    play(whole, stop=3)
    assert resumed.ask() == whole.ask()


def test_each_setting_changes_what_is_asked():
    base = play(make_search(batch=10))
    assert [len(batch) for batch in base[1:]] == [10, 10]
    assert [len(batch) for batch in play(make_search())[1:]] == [4] * 5
    assert len([t for batch in play(make_search(budget=0.6, batch=40)) for t in batch if t.cell.kind == "blend"]) == 60
    assert {t.cell.share for t in play(make_search(shape_share=0.3), stop=1)[0] if t.cell.kind == "blend"} == {0.3}
    moved = {name: -v if name == "topics=3" else v for name, v in DIVERSITY.items()}
    assert play(make_search(diversity=moved, batch=10)) != base


def test_a_round_spreads_over_cells():
    search = make_search(budget=1.0, batch=8)
    play(search, stop=1)
    batch = search.ask()
    assert len(batch) == 8 and len({t.cell for t in batch}) >= 4
    assert search.ask() == ()  # while the first eight are not told


def test_a_draw_is_asked_whole():
    search = make_search(plan(sampling=2, training=2, draws=2))
    rounds = play(search)
    for batch in rounds[1:]:
        assert len({(t.cell, t.draw.generation) for t in batch}) * 4 == len(batch)
    assert sum(t.cell.kind == "blend" for batch in rounds for t in batch) == 80


def test_failures_are_told_and_cells_that_keep_failing_are_left():
    def tell(trial):
        return None if trial.cell.level == "3" else answer(trial)

    search = make_search(budget=0.8, batch=3)
    rounds = play(search, tell=tell)
    failed = [t.cell for batch in rounds[1:] for t in batch if t.cell.level == "3"]
    assert all(failed.count(cell) < 4 for cell in failed)
    assert search.best().level != "3"
    nothing = make_search()
    play(nothing, tell=lambda _trial: None)
    assert nothing.best() is None


def test_a_round_must_be_told_first():
    search = make_search()
    batch = search.ask()
    assert search.ask() == () and search.best() is None
    for trial in batch:
        search.tell(trial, answer(trial))
    assert len(search.ask()) == 4


def test_the_best_cell_may_be_recommended():
    search = make_search(batch=15)
    asked = [t for batch in play(search) for t in batch]
    best = search.best()
    assert len({t.draw.generation for t in asked if t.cell == best}) >= 2


PLACES = np.array([[x, y] for x in np.linspace(-1.4, 1.4, 5) for y in np.linspace(-1.4, 1.4, 5)])
GRID = Grid(places=PLACES, pools=np.repeat(np.arange(5), 5))


def try_cells(truth, cells, draws, *, spread, rng, shared=None):
    """The truth with noise of this spread, and with what all cells share in a draw."""
    pairs = [(c, g) for c in cells for g in draws]
    return Tried(
        cells=np.array([c for c, _ in pairs]),
        draws=np.array([g for _, g in pairs]),
        values=np.array([truth[c] + (shared or {}).get(g, 0.0) + spread * rng.normal() for c, g in pairs]),
    )


def test_a_process_recovers_a_smooth_truth_and_knows_where_it_does_not_know():
    truth = 0.7 - 0.02 * (PLACES**2).sum(axis=1)
    rng = np.random.default_rng(0)
    seen = np.arange(0, 25, 2)
    tried = try_cells(truth, seen, range(3), spread=0.001, rng=rng)
    mean, spread = TrialProcess(GRID, tried).look(tried)
    assert np.abs(mean - truth).max() < 0.02
    assert spread[seen].max() < spread[1::2].min()


def test_a_draw_that_gives_what_was_expected_moves_no_mean():
    """Told what was expected no mean moves, and the spread shrinks; told more, means rise most at the cell itself."""
    rng = np.random.default_rng(1)
    tried = try_cells(PLACES[:, 0], range(0, 25, 3), range(2), spread=1.0, rng=rng)
    process = TrialProcess(GRID, tried)
    (before, spread), expected = process.look(tried), process.expect(tried, 6, 5)
    mean, less = process.look(tried.add(6, 5, expected))
    assert mean == pytest.approx(before)
    assert (less <= spread + 1e-9).all() and less[6] < spread[6]
    higher = process.look(tried.add(6, 5, expected + 2.0))[0] - before
    assert higher.argmax() == 6


def find_sizes(process):
    """Variances of the parts, in units of the values' variance, then length scales of the coordinates."""
    sizes = np.exp(process.theta)
    return dict(zip(PARTS, sizes, strict=False)) | {f"length_{k}": v for k, v in enumerate(sizes[len(PARTS) + 1 :])}


def test_luck_that_a_draw_shares_is_not_merit():
    """A cell seen in the lucky draw alone is not taken for better; with independent noise it would be."""
    lucky = {0: -2.0, 1: -2.0, 2: 4.0}
    rng = np.random.default_rng(2)
    full = try_cells(np.zeros(25), range(0, 25, 5), range(3), shared=lucky, spread=0.1, rng=rng)
    tried = full.add(12, 2, 4.0 + 0.1).add(13, 0, -2.0 + 0.1)
    process = TrialProcess(GRID, tried)
    mean, _ = process.look(tried)
    assert abs(mean[12] - mean[13]) < 0.5  # 6.0 apart as seen
    parts = find_sizes(process)
    assert parts["draw"] > 10 * parts["rest"]


def test_parameters_are_found_at_the_top_of_the_posterior():
    rng = np.random.default_rng(3)
    tried = try_cells(PLACES[:, 0] * 0.02, range(25), range(4), spread=0.01, rng=rng)
    parts = find_sizes(TrialProcess(GRID, tried))
    assert parts["smooth"] > 5 * parts["draw"] and 0.5e-4 < parts["rest"] * tried.values.var() < 2e-4
    assert parts["length_0"] < parts["length_1"]  # the share does not matter here
    same = Tried(cells=np.array([0, 1]), draws=np.array([0, 0]), values=np.array([0.5, 0.5]))
    assert TrialProcess(GRID, same).look(same)[0] == pytest.approx(np.full(25, 0.5))


def test_places():
    cells = [
        Cell(kind="blend", dial=dial, level=level, share=share, rows_per_label=4)
        for dial, level in (("a", "1"), ("a", "2"), ("b", "1"))
        for share in (0.2, 0.8)
    ]
    grid = Grid.of(cells, {"a=1": 10.0, "a=2": 30.0, "b=1": 20.0})
    assert grid.places.shape == (6, 3) and grid.pools.tolist() == [0, 0, 1, 1, 2, 2]
    assert set(grid.places[:, 1].round(9)) == {-1.0, 1.0} and set(grid.places[:, 2]) == {0, 1}
    few = [c for c in cells if c.dial == "a"]
    assert Grid.of(few, {"a=1": 1.0, "a=2": 1.0}).places.shape == (4, 2)
