"""Selections: exact counts, rising diversity, greedy choices equal to brute force, no row twice."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.errors import InputError
from cuvee.measure import measure_corpus
from cuvee.mix import METHODS, Selector
from cuvee.mix.search import (
    LogDet,
    Shift,
    Vendi,
    greedy_log_det,
    k_center,
    lowest_shift,
    make_strata,
)
from cuvee.mix.select import least_diverse, most_diverse
from cuvee.similarity import median_distance, unit_rows

pytestmark = pytest.mark.slow  # each is quick, together they are not

OBJECTIVES = [Vendi(), LogDet()]


def select_levels(pool, vectors, *, rows, levels, metric="vendi", **given):
    return Selector(pool, vectors, rows, **given).levels(levels, metric)


def select_target(pool, vectors, *, rows, target, metric="vendi", **given):
    return Selector(pool, vectors, rows, **given).target(target, metric)


def select_rows(pool, vectors, *, rows, method="vendi", real=None, **given):
    return Selector(pool, vectors, rows, **given).best(method, real)


def make_pool(rows: int, *, labels: int = 3, seed: int = 0, dim: int = 24, skew: bool = True):
    """Clustered vectors, and texts of 3 to 22 words whose length goes with the cluster."""
    rng = np.random.default_rng(seed)
    weights = np.arange(1, labels + 1) if skew else np.ones(labels)
    label = rng.choice(labels, rows, p=weights / weights.sum())
    label[:labels] = np.arange(labels)
    cluster = rng.integers(0, 12, rows)
    centres = rng.standard_normal((12, dim))
    vectors = centres[cluster] + rng.standard_normal((rows, dim)) * rng.choice([0.1, 0.8], rows)[:, None]
    words = 3 + cluster + rng.integers(0, 8, rows)
    texts = [" ".join(f"w{i}x{j}" for j in range(n)) for i, n in enumerate(words)]
    pool = Corpus.from_rows(
        [{"text": t, "target": f"label {y}"} for t, y in zip(texts, label.tolist(), strict=True)], origin="synthetic"
    )
    return pool, unit_rows(vectors.astype(np.float32))


def one_stratum(rows: int, wanted: int):
    pool, unit = make_pool(rows, labels=1)
    return make_strata(pool, {"label 0": wanted}, bins=1), unit


# --- what is held fixed ---------------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(st.integers(60, 200), st.integers(1, 4), st.integers(8, 40), st.sampled_from(METHODS), st.integers(0, 3))
def test_every_method_takes_exact_label_counts_and_no_row_twice(size, labels, rows, method, seed):
    pool, unit = make_pool(size, labels=labels, seed=seed)
    real = unit_rows(np.random.default_rng(seed).standard_normal((20, 24)).astype(np.float32))
    found = select_rows(
        pool, unit, rows=rows, method=method, real=real if method == "lowest_shift" else None, seed=seed
    )
    assert len(found.rows) == rows == len(set(found.corpus.ids))
    assert (np.diff(found.rows) > 0).all()
    shares = {label: rows * n / len(pool) for label, n in pool.label_counts().items()}
    counts = found.corpus.label_counts()
    assert all(abs(counts.get(label, 0) - share) < 1 for label, share in shares.items())


def test_wanted_label_counts_are_met_exactly():
    pool, unit = make_pool(300)
    wanted = {"label 0": 7, "label 1": 0, "label 2": 31}
    for part in select_levels(pool, unit, rows=wanted, levels=3):
        assert part.corpus.label_counts() == {"label 0": 7, "label 2": 31}


def test_levels_rise_by_about_equal_steps_with_matched_lengths():
    pool, unit = make_pool(1500)
    for metric, name in (("vendi", "vendi"), ("log_det", "log_det")):
        found = select_levels(pool, unit, rows=150, levels=5, metric=metric)
        values = [part.values[name] for part in found]
        steps = np.diff(values)
        assert (steps > 0).all() and steps.max() < 1.2 * steps.min()
        for other in ("vendi", "log_det"):
            assert (np.diff([part.values[other] for part in found]) > 0).all(), (metric, other)
        assert max(part.length_difference for part in found) < 0.1
        assert all(part.note == "" for part in found)


def test_without_matching_lengths_differ_and_the_note_says_so():
    pool, unit = make_pool(1500)
    loose = select_levels(pool, unit, rows=150, levels=3, match_lengths=False)
    assert max(part.length_difference for part in loose) > 0.1
    assert all("not matched" in part.note for part in loose)
    tight = select_levels(pool, unit, rows=150, levels=3)
    assert max(part.length_difference for part in tight) < 0.1


def test_the_difference_in_length_is_that_of_its_definition():
    pool, unit = make_pool(400, labels=2)
    strata = make_strata(pool, {"label 0": 20, "label 1": 20}, bins=1)
    chosen = np.concatenate([np.flatnonzero(strata.labels == y)[:20] for y in (0, 1)])
    # the pool at the same label counts: both labels weigh the same
    parts = [strata.words[strata.labels == y] for y in (0, 1)]
    mean = np.mean([part.mean() for part in parts])
    variance = np.mean([((part - mean) ** 2).mean() for part in parts])
    expected = abs(strata.words[chosen].mean() - mean) / np.sqrt(variance)
    assert strata.length_difference(chosen) == pytest.approx(expected)
    assert unit.shape == (400, 24)


def test_texts_of_one_length_do_not_differ_in_length():
    rows = [{"text": f"seven words are in each text number{i}", "target": "ab"[i % 2]} for i in range(100)]
    strata = make_strata(Corpus.from_rows(rows, origin="synthetic"), {"a": 30, "b": 30}, bins=1)
    for size in range(5, 40):  # the weights are rounded in another way for each
        chosen = np.concatenate([np.flatnonzero(strata.labels == y)[:size] for y in (0, 1)])
        assert strata.length_difference(chosen) == 0


# --- values and contributions ---------------------------------------------------------------------
def test_values_are_those_that_measure_reports():
    pool, unit = make_pool(120, labels=1)
    names = {"vendi_q1": Vendi()}

    class Given:
        name = hash = "given"
        dim = unit.shape[1]

        def encode(self, texts):
            place = {text: i for i, text in enumerate(pool.texts)}
            return unit[[place[text] for text in texts]]

    measured = measure_corpus(pool, encoder=Given(), metrics=list(names)).values
    for name, objective in names.items():
        assert objective.value(unit) == pytest.approx(measured[name].value, rel=1e-4), name


def test_log_det_contributions_are_exact():
    _, unit = make_pool(60)
    chosen, others = unit[:25], unit[25:]
    inside, outside = LogDet().contributions(chosen, others)

    def volume(rows):
        return np.linalg.slogdet(np.eye(len(rows)) + rows.astype(float) @ rows.T.astype(float))[1]

    whole = volume(chosen)
    assert LogDet().value(chosen) == pytest.approx(whole / 25, rel=1e-5)
    without = [whole - volume(np.delete(chosen, i, axis=0)) for i in range(25)]
    withs = [volume(np.vstack([chosen, others[j : j + 1]])) - whole for j in range(len(others))]
    assert inside == pytest.approx(without, abs=1e-4)
    assert outside == pytest.approx(withs, abs=1e-4)


def test_vendi_contributions_are_the_derivative_of_its_logarithm():
    _, unit = make_pool(400)
    chosen = unit[:300]
    _, outside = Vendi().contributions(chosen, unit[300:])
    # one more row of 300 changes C by (x x^T - C) / 301: the ranking of rows is that of the derivative
    gains = [np.log(Vendi().value(np.vstack([chosen, row[None]]))) for row in unit[300:]]
    assert np.corrcoef(outside, gains)[0, 1] > 0.99


# --- the searches ---------------------------------------------------------------------------------
def test_greedy_log_det_is_plain_greedy():
    strata, unit = one_stratum(120, 15)
    rows = unit.astype(float)
    taken: list[int] = []
    for _ in range(15):
        best, top = -1, -np.inf
        for j in range(len(rows)):
            if j not in taken:
                part = rows[[*taken, j]]
                volume = np.linalg.slogdet(np.eye(len(part)) + part @ part.T)[1]
                if volume > top + 1e-9:
                    best, top = j, volume
        taken.append(best)
    # all first rows are as good as each other up to rounding: begin where the search began
    found = greedy_log_det(unit, strata).tolist()
    assert LogDet().value(unit[found]) == pytest.approx(LogDet().value(unit[taken]), rel=0.01)
    for place in range(1, 15):
        gains = LogDet().contributions(unit[found[:place]], unit)[1]
        gains[found[:place]] = -np.inf
        assert gains[found[place]] >= gains.max() - 1e-4


@pytest.mark.parametrize("objective", [LogDet(), Vendi()])
def test_the_search_is_within_one_percent_of_exact_greedy_or_above(objective):
    pool, unit = make_pool(2500, labels=4)
    strata = make_strata(pool, {f"label {y}": 30 for y in range(4)}, bins=3)
    greedy = greedy_log_det(unit, strata)
    _, value = most_diverse(unit, strata, objective, np.random.default_rng(0))
    assert value >= 0.99 * objective.value(unit[greedy])


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["vendi", "log_det"])
def test_least_and_most_diverse_lie_far_outside_what_random_selections_reach(objective):
    pool, unit = make_pool(800)
    strata = make_strata(pool, {f"label {y}": 20 for y in range(3)}, bins=2)
    random = [
        objective.value(unit[select_rows(pool, unit, rows=60, method="random", seed=seed).rows]) for seed in range(20)
    ]
    low, low_value = least_diverse(unit, strata, objective, np.random.default_rng(0))
    high, high_value = most_diverse(unit, strata, objective, np.random.default_rng(0))
    spread = max(random) - min(random)
    assert low_value < min(random) - spread and high_value > max(random) + spread / 4
    for rows in (low, high):
        assert np.bincount(strata.codes[rows], minlength=len(strata.quotas)).tolist() == strata.quotas.tolist()


def test_the_least_diverse_of_a_pool_with_copies_are_the_copies():
    _, unit = make_pool(200, labels=1)
    unit[50:70] = unit[50]
    pool = Corpus.from_rows([{"text": f"a {i}", "target": "x"} for i in range(200)], origin="synthetic")
    found = select_levels(pool, unit, rows=20, levels=2)
    assert found[0].rows.tolist() == list(range(50, 70))
    assert found[0].values["vendi"] == pytest.approx(1.0, abs=1e-4)


def test_a_target_is_reached_and_one_out_of_reach_says_what_is_in_reach():
    pool, unit = make_pool(1000)
    low, high = (part.values["log_det"] for part in select_levels(pool, unit, rows=100, levels=2, metric="log_det"))
    for wanted in np.linspace(low, high, 4)[1:-1]:
        found = select_target(pool, unit, rows=100, target=float(wanted), metric="log_det")
        assert found.values["log_det"] == pytest.approx(wanted, rel=0.02)
    with pytest.raises(InputError, match=rf"out of reach: 100 rows of this pool have {low:.4g} to {high:.4g}"):
        select_target(pool, unit, rows=100, target=high * 2, metric="log_det")


def test_k_center_is_within_twice_the_least_radius_on_a_line():
    angles = np.sort(np.random.default_rng(0).uniform(0, 1, 40))
    unit = unit_rows(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
    pool = Corpus.from_rows([{"text": f"a {i}", "target": "x"} for i in range(40)], origin="synthetic")
    strata = make_strata(pool, {"x": 4}, bins=1)
    rows = k_center(unit, strata, rng=np.random.default_rng(0))
    radius = np.abs(angles[:, None] - angles[rows]).min(axis=1).max()
    # the least radius of 4 intervals that cover the points: shrink until 4 no longer do
    least = min(r for r in np.linspace(0, 1, 2001) if _intervals(angles, r) <= 4)
    assert radius <= 2 * least + 1e-3


def _intervals(points: np.ndarray, radius: float) -> int:
    count, end = 0, -np.inf
    for point in points:
        if point > end:
            count, end = count + 1, point + 2 * radius
    return count


# --- shift ----------------------------------------------------------------------------------------
def test_lowest_shift_beats_random_and_what_herding_begins_with():
    pool, unit = make_pool(300, labels=2)
    rng = np.random.default_rng(5)
    real = unit[rng.choice(150, 60, replace=False)]
    strata = make_strata(pool, {"label 0": 15, "label 1": 15}, bins=1)
    objective = Shift(real)
    value = objective.value(unit[lowest_shift(unit, strata, objective)])
    random = [objective.value(unit[select_rows(pool, unit, rows=30, method="random", seed=s).rows]) for s in range(20)]
    assert value < 0.5 * min(random)


def test_the_mmd_is_that_of_its_definition():
    _, unit = make_pool(50)
    real = unit[30:]
    objective = Shift(real)
    sigma = median_distance(real, seed=0)
    rows = np.arange(12)

    def mean_kernel(a, b):
        squared = ((a[:, None].astype(float) - b[None].astype(float)) ** 2).sum(axis=2)
        return np.exp(-squared / (2 * sigma**2)).mean()

    chosen = unit[rows]
    expected = mean_kernel(chosen, chosen) - 2 * mean_kernel(chosen, real) + mean_kernel(real, real)
    assert objective.value(chosen) == pytest.approx(expected, abs=1e-5)


# --- refusals and repeatability -------------------------------------------------------------------
def test_what_cannot_be_selected_is_refused_with_what_can():
    pool, unit = make_pool(40)
    counts = pool.label_counts()
    with pytest.raises(InputError, match="41 rows were asked for, the pool has 40"):
        select_rows(pool, unit, rows=41)
    label, have = next(iter(counts.items()))
    with pytest.raises(InputError, match=rf"label '{label}': {have + 1} rows were asked for, the pool has {have}"):
        select_levels(pool, unit, rows={label: have + 1}, levels=2)
    with pytest.raises(InputError, match="'k_centre' is unknown; did you mean 'k_center'"):
        select_rows(pool, unit, rows=5, method="k_centre")
    with pytest.raises(InputError, match="'vendy' cannot be selected by; did you mean 'vendi'"):
        select_levels(pool, unit, rows=5, levels=2, metric="vendy")
    with pytest.raises(ValueError, match="real vectors go with method 'lowest_shift'"):
        select_rows(pool, unit, rows=5, method="lowest_shift")
    with pytest.raises(ValueError, match="levels is 1"):
        select_levels(pool, unit, rows=5, levels=1)
    with pytest.raises(ValueError, match="one a row"):
        select_levels(pool, unit[:-1], rows=5, levels=2)
    with pytest.raises(InputError, match="gives only 1 different"):
        select_levels(pool, unit, rows=40, levels=3)


def test_another_seed_is_another_selection_and_the_same_seed_the_same():
    pool, unit = make_pool(300)
    first, again, other = (
        [part.rows.tolist() for part in select_levels(pool, unit, rows=40, levels=3, seed=seed)] for seed in (0, 0, 1)
    )
    assert first == again != other


@pytest.mark.slow
def test_selections_are_the_same_in_another_process():
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_mix_select import make_pool\n"
        "from cuvee.mix import Selector\n"
        "pool, unit = make_pool(300)\n"
        "selector = Selector(pool, unit, 40)\n"
        "print([p.rows.tolist() for p in selector.levels(3)], selector.best('log_det').rows.tolist())"
    )
    folder = __file__.rpartition("/")[0]
    outs = {
        subprocess.run(
            [sys.executable, "-c", script, folder], capture_output=True, text=True, check=True, timeout=60,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(outs) == 1
