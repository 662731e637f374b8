"""Shift metrics: closed forms, reference packages as oracles, calibration, and the faults known of their peers."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import kstest, wasserstein_distance

from cuvee.corpus import Corpus
from cuvee.measure import METRICS as ALL
from cuvee.measure.subject import Subject
from cuvee.similarity import Membership, jackknife_bins, mmd, unit_rows

METRICS = {name: metric for name, metric in ALL.items() if metric.family == "shift"}
WORDS = "card bank cash fee money transfer account open close send lost limit".split()


class Table:
    """An encoder that knows its texts."""

    name, hash = "table", "table-1"

    def __init__(self, vectors):
        self.vectors = vectors
        self.dim = len(next(iter(vectors.values())))

    def encode(self, texts):
        return np.array([self.vectors[t] for t in texts], dtype=np.float32).reshape(len(texts), self.dim)


def corpus(name, vectors, targets=None, groups=None):
    texts = [f"{name}{i}" for i in range(len(vectors))]
    rows = [{"text": t, "target": "a" if targets is None else targets[i]} for i, t in enumerate(texts)]
    for i, row in enumerate(rows):
        row["group"] = None if groups is None else groups[i]
    return Corpus.from_rows(rows), dict(zip(texts, vectors, strict=True))


def subject(ours, theirs, *, seed=0, permutations=99, groups=None):
    one, table = corpus("s", ours, groups=groups)
    two, other = corpus("r", theirs)
    return Subject(corpus=one, against=two, encoder=Table(table | other), seed=seed, permutations=permutations)


def sample(n, d, seed, shift=0.0):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    rows[:, 0] += shift
    return unit_rows(rows.astype(np.float32))


def sentences(name, n, seed, lengths=(4, 12), words=WORDS, label="a"):
    rng = np.random.default_rng(seed)
    return Corpus.from_rows(
        {"text": " ".join(rng.choice(words, size=rng.integers(*lengths))), "target": label, "id": f"{name}{i}"}
        for i in range(n)
    )


def compute(name, who):
    return METRICS[name].compute(who)


# --- all of them ------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def shifted():
    return subject(sample(70, 8, 1, shift=1.0), sample(50, 8, 2))


def test_the_names_are_pinned():
    assert list(METRICS) == [
        "mmd", "c2st", "precision", "recall", "label_distance", "length_distance",
    ]  # fmt: skip
    assert [m.name for m in METRICS.values() if not m.standard] == ["precision", "recall"]


@pytest.mark.parametrize("name", ["mmd", "c2st", "precision", "recall"])
def test_the_order_of_rows_changes_nothing(name, shifted):
    rng = np.random.default_rng(3)
    turned = dataclasses.replace(
        shifted,
        corpus=shifted.corpus.take(rng.permutation(70)),
        against=shifted.real.take(rng.permutation(50)),
    )
    assert compute(name, turned).value == pytest.approx(compute(name, shifted).value, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 30), (30, 1), (2, 2), (7, 5)])
def test_a_handful_of_rows_gives_a_sane_number_or_none(name, n, m):
    found = compute(name, subject(sample(n, 4, 1), sample(m, 4, 2)))
    assert found is None or (math.isfinite(found.value) and found.n == n)
    if min(n, m) < 4:
        assert found is None or found.low is None


@pytest.mark.parametrize("name", METRICS)
def test_identical_rows_do_not_break_a_metric(name):
    same = unit_rows(np.ones((25, 4), dtype=np.float32))
    found = compute(name, subject(same, same))
    assert found is None or math.isfinite(found.value)
    if name == "c2st":
        assert found.value == 0.5


@pytest.mark.parametrize("name", METRICS)
def test_the_real_data_against_itself(name):
    rows, table = corpus("r", sample(40, 6, 1))
    rows = Corpus.from_rows({"text": t, "target": "ab"[i % 2], "id": t} for i, t in enumerate(rows.texts))
    found = compute(name, Subject(corpus=rows, against=rows, encoder=Table(table), permutations=19))
    nothing = {"c2st": None, "precision": 1.0, "recall": 1.0}
    if nothing.get(name, 0.0) is None:
        assert found is None
    else:
        assert found.value == pytest.approx(nothing.get(name, 0.0), abs=0.01)
        assert found.low is None


# --- mmd --------------------------------------------------------------------------------------------
def naive_mmd(x, y, gx, gy):
    def mean(a, b, ga, gb):
        kernel = np.exp(a.astype(float) @ b.T.astype(float) - 1.0)  # sigma 1
        return kernel[ga[:, None] != gb].mean()

    return mean(x, x, gx, gx) + mean(y, y, gy, gy) - 2 * mean(x, y, gx, gy)


def test_mmd_without_a_bin_is_the_mmd_of_the_other_rows():
    x, y = sample(40, 8, 1), sample(30, 8, 2)
    gx, gy = np.repeat(np.arange(20), 2), np.arange(30) + 15  # some groups on both sides
    bx, by = gx % 5, np.arange(30) % 4
    found = mmd(
        x, y, bandwidth=1.0, permutations=0, membership=(Membership(groups=gx, bins=bx), Membership(groups=gy, bins=by))
    )
    assert found.value == pytest.approx(naive_mmd(x, y, gx, gy), abs=1e-8)
    ours = [naive_mmd(x[bx != b], y, gx[bx != b], gy) for b in range(5)]
    theirs = [naive_mmd(x, y[by != b], gx, gy[by != b]) for b in range(4)]
    assert found.without_ours == pytest.approx(ours, abs=1e-8)
    assert found.without_theirs == pytest.approx(theirs, abs=1e-8)


def test_mmd_refuses_to_permute_groups_and_to_compare_one():
    x = sample(6, 4, 1)
    pairs, one = (Membership(groups=np.array(g), bins=np.arange(6)) for g in ([0, 0, 1, 1, 2, 2], [5] * 6))
    with pytest.raises(ValueError, match="rows of a group cannot be permuted"):
        mmd(x, x, permutations=9, membership=(pairs, pairs))
    with pytest.raises(ValueError, match="two groups on each side"):
        mmd(x, x, permutations=0, membership=(pairs, one))


def test_mmd_of_copies_is_the_mmd_of_their_sources():
    """Copies of faithful rows are no shift: pairs of one source are left out of the mean."""
    rows, real = sample(40, 8, 1), sample(60, 8, 2)
    copies = subject(np.repeat(rows, 5, axis=0), real, groups=[f"g{i // 5}" for i in range(200)])
    singles = subject(rows, real)
    bandwidths = [compute("mmd", who).settings["bandwidth"] for who in (copies, singles)]
    assert bandwidths[0] == pytest.approx(bandwidths[1], rel=0.05)
    found, single = compute("mmd", copies), compute("mmd", singles)
    assert found.value == pytest.approx(single.value, abs=0.002)
    assert found.low < 0 < found.high
    assert found.settings["test_rows"] == "one a group: 40 and 60"
    assert found.p_value > 0.05


@pytest.mark.slow
def test_mmd_is_calibrated():
    def run(seed, shift):
        sides = sample(60, 8, 2 * seed, shift), sample(50, 8, 2 * seed + 1)
        return compute("mmd", subject(*sides, seed=seed))

    null = [run(seed, 0.0) for seed in range(200)]
    assert kstest([e.p_value for e in null], "uniform").pvalue > 0.01
    assert np.mean([e.low <= 0 <= e.high for e in null]) >= 0.93
    planted = [run(seed, 1.0) for seed in range(60)]
    assert np.mean([e.p_value <= 0.05 for e in planted]) >= 0.8
    truth = mmd(sample(3000, 8, 9000, 1.0), sample(3000, 8, 9001), bandwidth=1.41, permutations=0).value
    assert np.mean([e.low <= truth <= e.high for e in planted]) >= 0.88


# --- classifier two-sample test ---------------------------------------------------------------------
def test_c2st_is_the_mann_whitney_of_scores():
    clear = compute("c2st", subject(sample(60, 6, 1, shift=6.0), sample(60, 6, 2, shift=-6.0)))
    assert clear.value == 1.0
    assert clear.high == 1.0
    assert clear.p_value == pytest.approx(1 / 100)
    same = compute("c2st", subject(sample(150, 6, 1), sample(90, 6, 2)))
    assert same.low < 0.5 < same.high
    assert same.p_value > 0.05
    assert compute("c2st", subject(sample(9, 6, 1), sample(90, 6, 2))) is None


def test_c2st_keeps_groups_together():
    """Copies of 15 rows on one side: a classifier that saw the copies would know them again."""
    rows = sample(15, 30, 1)
    copied = subject(np.repeat(rows, 8, axis=0), sample(120, 30, 2), groups=[f"g{i // 8}" for i in range(120)])
    loose = subject(np.repeat(rows, 8, axis=0), sample(120, 30, 2))
    assert compute("c2st", loose).value > 0.85
    found = compute("c2st", copied)
    assert found.value < 0.8
    assert found.p_value > 0.05
    assert found.settings["test_rows"] == "one a group: 15 and 120"


@pytest.mark.slow
@pytest.mark.parametrize("dims", [40])
def test_c2st_is_calibrated(dims):
    """Pooled held-out scores tested as if they were independent reject far too often; refitted ones do not."""

    def run(seed, shift):
        return compute("c2st", subject(sample(50, dims, 2 * seed, shift), sample(50, dims, 2 * seed + 1), seed=seed))

    null = [run(seed, 0.0) for seed in range(200)]
    assert kstest([e.p_value for e in null], "uniform").pvalue > 0.01
    assert np.mean([e.low <= 0.5 <= e.high for e in null]) >= 0.88
    planted = [run(seed, 2.0) for seed in range(30)]
    assert np.mean([e.p_value <= 0.05 for e in planted]) >= 0.8


# --- precision and recall ---------------------------------------------------------------------------
def reference_prdc(ours, theirs):
    """Straight from the definitions."""

    def balls(rows):
        distance = np.linalg.norm(rows[:, None] - rows, axis=2)
        return np.sort(distance, axis=1)[:, 5]

    cross = np.linalg.norm(theirs[:, None] - ours, axis=2)
    inside = cross < balls(theirs)[:, None]
    return {"precision": inside.any(0).mean(), "recall": (cross < balls(ours)).any(1).mean()}


@pytest.mark.parametrize(("n", "m", "shift"), [(60, 45, 0.0), (30, 90, 1.0)])
def test_the_manifold_metrics_equal_prdc(n, m, shift, capsys):
    prdc = pytest.importorskip("prdc")
    who = subject(sample(n, 5, 1, shift), sample(m, 5, 2))
    wanted = prdc.compute_prdc(who.against_unit.astype(float), who.unit.astype(float), nearest_k=5)
    wanted = {name: wanted[name] for name in ("precision", "recall")}
    capsys.readouterr()
    for name, value in wanted.items():
        found = compute(name, who)
        assert found.value == pytest.approx(value, abs=1e-9)
        assert found.low <= found.value <= found.high
    assert wanted == pytest.approx(reference_prdc(who.unit.astype(float), who.against_unit.astype(float)))


def test_a_corpus_of_one_mode_is_precise_and_has_no_recall():
    real = np.vstack([sample(40, 6, 1, 9.0), sample(40, 6, 2, -9.0)])
    one = subject(sample(40, 6, 3, 9.0), real)
    assert compute("precision", one).value > 0.8
    assert compute("recall", one).value < 0.55


# --- labels, lengths, words -------------------------------------------------------------------------
def test_label_distance_is_the_total_variation():
    ours = Corpus.from_rows({"text": f"s{i}", "target": "aab"[i % 3]} for i in range(60))
    theirs = Corpus.from_rows({"text": f"r{i}", "target": "abcc"[i % 4]} for i in range(60))
    found = compute("label_distance", Subject(corpus=ours, against=theirs))
    assert found.value == pytest.approx(0.5)  # (2/3, 1/3, 0) and (1/4, 1/4, 1/2)
    assert found.low < 0.5 < found.high
    assert found.settings["labels"] == 3


def test_length_distance_is_scipys_over_the_real_deviation():
    ours, theirs = sentences("s", 80, 1, (6, 20)), sentences("r", 50, 2)
    found = compute("length_distance", Subject(corpus=ours, against=theirs))
    one, two = ([len(t.split()) for t in c.texts] for c in (ours, theirs))
    assert found.value == pytest.approx(wasserstein_distance(one, two) / np.std(two))
    assert found.low < found.value < found.high
    assert found.settings["real_mean_words"] == pytest.approx(np.mean(two))
    assert compute("length_distance", Subject(corpus=ours, against=sentences("r", 20, 1, (5, 6)))) is None


def test_surface_metrics_do_not_depend_on_the_order_of_rows():
    ours, theirs = sentences("s", 40, 1, (6, 20)), sentences("r", 30, 2)
    turned = ours.take(np.random.default_rng(0).permutation(40))
    for name in ("label_distance", "length_distance"):
        values = [compute(name, Subject(corpus=c, against=theirs)).value for c in (ours, turned)]
        assert values[0] == pytest.approx(values[1], abs=1e-12), name


def test_bins_hold_whole_groups():
    groups = [f"g{i // 3}" for i in range(90)]
    found = compute("mmd", subject(sample(90, 6, 1), sample(40, 6, 2), groups=groups))
    bins = int(jackknife_bins(groups).max()) + 1
    assert found.interval == f"grouped jackknife of both sides, {bins} and 40 bins"
