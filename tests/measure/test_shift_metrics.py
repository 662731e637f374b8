"""Shift metrics: closed forms, reference packages as oracles, calibration, and the faults known of their peers."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, wasserstein_distance

from cuvee.corpus import Corpus
from cuvee.measure import METRICS as ALL
from cuvee.measure.shift import mauve_of, quantise
from cuvee.measure.subject import Subject
from cuvee.similarity import Membership, jackknife_bins, mmd, unit_rows

METRICS = {name: metric for name, metric in ALL.items() if metric.family == "shift"}
MAUVE = pytest.param("mauve", marks=pytest.mark.slow)  # k-means takes its time to load
NAMES = [MAUVE if name == "mauve" else name for name in METRICS]
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
        "mmd", "c2st", "precision", "recall", "mauve",
        "label_distance", "length_distance", "ngram_jsd",
    ]  # fmt: skip
    assert [m.name for m in METRICS.values() if not m.standard] == [
        "precision", "recall", "mauve",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["mmd", "c2st", "precision", "recall", MAUVE])
def test_the_order_of_rows_changes_nothing(name, shifted):
    rng = np.random.default_rng(3)
    turned = dataclasses.replace(
        shifted,
        corpus=shifted.corpus.take(rng.permutation(70)),
        against=shifted.real.take(rng.permutation(50)),
    )
    assert compute(name, turned).value == pytest.approx(compute(name, shifted).value, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 30), (30, 1), (2, 2), (7, 5)])
def test_a_handful_of_rows_gives_a_sane_number_or_none(name, n, m):
    found = compute(name, subject(sample(n, 4, 1), sample(m, 4, 2)))
    assert found is None or (math.isfinite(found.value) and found.n == n)
    if min(n, m) < 4:
        assert found is None or found.low is None


@pytest.mark.parametrize("name", NAMES)
def test_identical_rows_do_not_break_a_metric(name):
    same = unit_rows(np.ones((25, 4), dtype=np.float32))
    found = compute(name, subject(same, same))
    assert found is None or math.isfinite(found.value)
    if name == "c2st":
        assert found.value == 0.5


@pytest.mark.parametrize("name", NAMES)
def test_the_real_data_against_itself(name):
    rows, table = corpus("r", sample(40, 6, 1))
    rows = Corpus.from_rows({"text": t, "target": "ab"[i % 2], "id": t} for i, t in enumerate(rows.texts))
    found = compute(name, Subject(corpus=rows, against=rows, encoder=Table(table), permutations=19))
    nothing = {"c2st": None, "precision": 1.0, "recall": 1.0, "mauve": 1.0}
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


# --- MAUVE ------------------------------------------------------------------------------------------
@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=12))
def test_mauve_is_symmetric_and_between_0_and_1(counts):
    p, q = 1.0 + np.array(counts, dtype=float).T
    assert mauve_of(p, q) == pytest.approx(mauve_of(q, p))
    assert 0 < mauve_of(p, q) <= 1 + 1e-9
    assert mauve_of(p, p) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mauve_agrees_with_the_authors_code():
    mauve = pytest.importorskip("mauve")
    curve = pytest.importorskip("mauve.compute_mauve")
    rng = np.random.default_rng(0)
    for _ in range(5):
        p, q = rng.multinomial(200, rng.dirichlet(np.ones(20)), size=2).astype(float)
        q[3] = 0
        points = curve.get_divergence_curve_for_multinomials(
            p / p.sum(), q / q.sum(), np.linspace(1e-6, 1 - 1e-6, 25), 5
        )
        x, y = points.T
        one, two = np.argsort(x), np.argsort(y)
        wanted = (curve.compute_area_under_curve(x[one], y[one]) + curve.compute_area_under_curve(y[two], x[two])) / 2
        assert mauve_of(p, q) == pytest.approx(wanted, abs=1e-9)
    ours, theirs = sample(400, 12, 1, 0.8), sample(300, 12, 2)
    runs = [mauve.compute_mauve(p_features=theirs, q_features=ours, seed=seed).mauve for seed in range(3)]
    found = compute("mauve", subject(ours, theirs)).value
    assert found == pytest.approx(np.mean(runs), abs=0.04)
    seeds = [compute("mauve", subject(ours, theirs, seed=seed)).value for seed in range(4)]
    assert np.ptp(seeds) < np.ptp(runs)


@pytest.mark.slow
def test_mauve_of_one_distribution_is_not_1_and_says_so():
    """A known fault: MAUVE of two samples of one distribution is read as if it should be 1."""
    found = compute("mauve", subject(sample(150, 6, 1), sample(150, 6, 2)))
    assert 0.8 < found.value < 0.99
    assert found.value == pytest.approx(found.settings["same_distribution"], abs=0.06)
    assert found.p_value > 0.01
    far = compute("mauve", subject(sample(150, 6, 1, 3.0), sample(150, 6, 2)))
    assert far.high < far.settings["same_distribution"]
    assert far.p_value == pytest.approx(1 / 100)


@pytest.mark.slow
def test_few_distinct_rows_have_few_buckets():
    codes, components = quantise(unit_rows(np.repeat(np.eye(3, 5, dtype=np.float32), 10, axis=0)), 8)
    assert all(sorted(np.bincount(found).tolist()) == [10, 10, 10] for found in codes)
    assert components == 2


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


def test_ngram_jsd_of_disjoint_words_is_one_bit():
    from scipy.spatial.distance import jensenshannon

    ours, theirs = sentences("s", 40, 1, words=["one", "two"]), sentences("r", 30, 2, words=["three", "four"])
    found = compute("ngram_jsd", Subject(corpus=ours, against=theirs, permutations=0))
    assert found.value == pytest.approx(1.0)
    ours, theirs = sentences("s", 40, 1, words=WORDS[:8]), sentences("r", 30, 2)
    found = compute("ngram_jsd", Subject(corpus=ours, against=theirs))
    counts = [[" ".join(c.texts).split().count(w) for w in WORDS] for c in (ours, theirs)]
    assert found.settings["plain"] == pytest.approx(jensenshannon(*counts, base=2) ** 2)
    assert found.low > 0
    assert found.p_value == pytest.approx(1 / 201)


def test_ngram_jsd_of_one_distribution_is_0_on_average():
    words = [f"w{i}" for i in range(300)]
    found = [
        compute(
            "ngram_jsd",
            Subject(corpus=sentences("s", 40, 2 * s, words=words), against=sentences("r", 40, 2 * s + 1, words=words),
                    permutations=20),
        )
        for s in range(12)
    ]  # fmt: skip
    assert min(e.settings["plain"] for e in found) > 0.2
    values = np.array([e.value for e in found])
    assert abs(values.mean()) < 3 * values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean()) < 0.03


def test_surface_metrics_do_not_depend_on_the_order_of_rows():
    ours, theirs = sentences("s", 40, 1, (6, 20)), sentences("r", 30, 2)
    turned = ours.take(np.random.default_rng(0).permutation(40))
    for name in ("label_distance", "length_distance", "ngram_jsd"):
        values = [compute(name, Subject(corpus=c, against=theirs)).value for c in (ours, turned)]
        assert values[0] == pytest.approx(values[1], abs=1e-12), name


def test_bins_hold_whole_groups():
    groups = [f"g{i // 3}" for i in range(90)]
    found = compute("mmd", subject(sample(90, 6, 1), sample(40, 6, 2), groups=groups))
    bins = int(jackknife_bins(groups).max()) + 1
    assert found.interval == f"grouped jackknife of both sides, {bins} and 40 bins"
