"""measure_corpus: every metric of the table, what it needs, and what it promises."""

import math
from dataclasses import replace

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder
from cuvee.errors import ConfigError, InputError
from cuvee.measure import METRICS, Metric, Subject, measure_corpus, measure_subject
from cuvee.measure.intervals import estimate_hits
from cuvee.measure.measuring import STANDARD, pick_groups
from cuvee.records import Estimate
from cuvee.registry import trust_modules
from cuvee.similarity import wilson_interval

ENCODER = HashingEncoder()
EACH = [n if n in STANDARD else pytest.param(n, marks=pytest.mark.slow) for n in METRICS]
NO_INTERVAL = {"label_noise", "mean_nearest_cosine", "set_leak"}  # they say why
THEMES = {
    "sport": "match goal team coach league striker season win cup player".split(),
    "money": "bank shares profit market rates economy trade budget oil growth".split(),
    "film": "actor director award screen cinema festival star drama studio role".split(),
}


class FixedEncoder:
    """Vectors by text, for exact cases."""

    name, hash, dim = "fixed", "fixed-1", 4

    def __init__(self, table):
        self.table = table

    def encode(self, texts):
        return np.array([self.table[t] for t in texts], dtype=np.float32).reshape(len(texts), -1)


def headlines(n, seed, labels=tuple(THEMES), swap=0.0, **columns):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        label = labels[i % len(labels)]
        text = " ".join(rng.choice(THEMES[label], size=rng.integers(5, 8)))
        target = labels[(i + 1) % len(labels)] if rng.random() < swap else label
        rows.append({"text": f"{text} {rng.integers(1000)}", "target": target, **columns})
    return Corpus.from_rows(rows)


OF_PAIRS = [name for name, metric in METRICS.items() if "pairs" in metric.needs]


def as_pairs(corpus):
    """Headlines as questions over themselves, whose answers are their first words."""
    rows = zip(corpus.texts, corpus.targets, strict=True)
    return Corpus.from_rows(
        [{"text": f"what of {y}?", "target": " ".join(t.split()[: len(t) % 4 + 1]), "context": t} for t, y in rows],
        task="generation",
    )


def sides(name="vendi_q1", corpus=None):
    """What a metric needs."""
    made = {"corpus": corpus or headlines(120, 1), "against": headlines(60, 2), "encoder": ENCODER}
    if name not in OF_PAIRS:
        return made | {"held_out": headlines(50, 3).texts}
    return {k: as_pairs(v) if k != "encoder" else v for k, v in made.items()}


def measure(name, corpus=None, **options):
    given = sides(name, corpus)
    if "reader" not in METRICS[name].needs:
        return measure_corpus(given.pop("corpus"), metrics=[name], **given, **options)
    reader = lambda rows: np.array([len(t) % 5 / 4 for t in rows.targets])  # noqa: E731
    return measure_subject(Subject(reader=reader, **given), [name], name="pool")


@pytest.fixture(scope="module")
def measured():
    given = sides()
    found = measure_corpus(given.pop("corpus"), name="pool", metrics="all", **given)
    return replace(found, values={**found.values, **{name: measure(name).values[name] for name in OF_PAIRS}})


# --- the table --------------------------------------------------------------------------------------
def test_the_table_holds_the_promised_names_in_order():
    from_vectors = ["dcscore_tau1", "dcscore_tau0.5", "dcscore_tau0.2", "dcscore_tau0.1", "dcscore_tau0.05"]
    from_vectors += ["vendi_q0.5", "vendi_q1", "vendi_q2", "vendi_qinf", "mean_pairwise_cosine"]
    from_vectors += ["mean_nearest_cosine", "near_duplicate_rate"]
    assert list(STANDARD) == [
        *from_vectors, "distinct_1", "distinct_2", "distinct_3", "ngram_entropy_2", "self_bleu",
        "self_repetition", "shared_sequence_rate", "opening_rate", "ending_rate",
        "skeleton_entropy", "compression_ratio", "exact_duplicate_rate",
        "mean_words", "mmd", "c2st", "label_distance", "length_distance",
        "label_agreement", "label_noise", "degenerate_rate", "groundedness", "answer_copy_rate", "answer_repeat_rate",
        "answer_length_distance", "reader_agreement", "leakage", "set_leak",
    ]  # fmt: skip


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_keeps_the_contract(name, measured):
    metric, estimate = METRICS[name], measured.values[name]
    assert metric.name == name
    assert metric.description
    assert metric.better
    assert metric.family in ("semantic", "lexical", "shift", "quality")
    assert math.isfinite(estimate.value)
    assert estimate.n == 120
    assert estimate.settings
    if name in ("mmd", "c2st", "set_leak"):
        assert 0 < estimate.p_value <= 1
    if name not in NO_INTERVAL:
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.interval


@pytest.mark.parametrize("name", EACH)
def test_a_metric_asked_for_alone_has_the_same_value(name, measured):
    alone = measure(name)
    assert list(alone.values) == [name]
    assert alone.values[name] == measured.values[name]


@pytest.mark.parametrize("name", EACH)
def test_the_order_of_rows_does_not_matter(name, measured):
    corpus = headlines(120, 1)
    shuffled = corpus.take(np.random.default_rng(0).permutation(120))
    again = measure(name, shuffled)
    assert again.values[name].value == pytest.approx(measured.values[name].value, rel=1e-5, abs=1e-7)


def test_the_measurement_says_what_it_was_made_of(measured):
    assert (measured.name, measured.n, measured.encoder, measured.seed) == ("pool", 120, "hashing", 0)
    assert measured.encoder_hash == ENCODER.hash
    assert measured.fingerprint == headlines(120, 1).fingerprint
    assert measured.against == headlines(60, 2).fingerprint
    assert "vendi_q1" in str(measured)


@pytest.mark.slow
def test_a_seed_reproduces_everything_and_moves_what_is_random(measured):
    options = {
        "against": headlines(60, 2),
        "held_out": headlines(50, 3).texts,
        "encoder": ENCODER,
        "name": "pool",
        "metrics": "all",
    }
    again = measure_corpus(headlines(120, 1), **options)
    assert again.values.items() <= measured.values.items() and again.findings == measured.findings
    other = measure_corpus(headlines(120, 1), seed=9, **options)
    assert other.values["vendi_q1"].value == measured.values["vendi_q1"].value
    assert other.values["vendi_q1"].low != measured.values["vendi_q1"].low
    fewer = measure_corpus(headlines(120, 1), permutations=19, **options)
    assert fewer.values["mmd"].settings["permutations"] == 19


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_handful_of_rows_is_measured_without_intervals(n):
    corpus = headlines(n, 1)
    found = measure_corpus(corpus, against=headlines(12, 2), held_out=["nothing like it"], encoder=ENCODER)
    assert found.values["vendi_q1"].value == pytest.approx(1.0, abs=1e-6) if n == 1 else found.n == n
    assert all(e.low is None and e.high is None for e in found.values.values())
    assert ("mean_pairwise_cosine" in found.values) == (n > 1)
    assert measure_corpus(corpus, against=corpus, encoder=ENCODER).n == n


def test_identical_rows_score_one():
    corpus = Corpus.from_rows({"text": "the same headline again", "target": "x"} for _ in range(30))
    found = measure_corpus(corpus, encoder=ENCODER, metrics="all").values
    for name in METRICS:
        if name.startswith(("dcscore", "vendi")):
            assert found[name].value == pytest.approx(1.0, abs=1e-3)
    assert found["near_duplicate_rate"].value == 1.0
    assert found["mean_pairwise_cosine"].value == pytest.approx(1.0, abs=1e-5)


def test_diversity_rises_from_one_theme_to_three():
    one = measure_corpus(headlines(90, 1, labels=("sport",)), encoder=ENCODER).values
    three = measure_corpus(headlines(90, 1), encoder=ENCODER).values
    for name in ("dcscore_tau1", "dcscore_tau0.2", "vendi_q1", "vendi_q2", "distinct_1"):
        assert three[name].low > one[name].high, name
    assert three["mean_pairwise_cosine"].high < one["mean_pairwise_cosine"].low


# --- needs ------------------------------------------------------------------------------------------
def test_metrics_without_what_they_need_are_left_out():
    found = measure_corpus(headlines(20, 1), encoder=ENCODER)
    needy = {"against", "held_out", "labels", "pairs", "reader"}
    assert set(STANDARD) - set(found.values) == {n for n in STANDARD if needy & set(METRICS[n].needs)}
    assert found.against is None


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("mmd", "against="),
        ("label_agreement", "against="),
        ("leakage", "held_out="),
        ("groundedness", "a corpus of the task generation"),
        ("reader_agreement", "a corpus of the task generation"),
    ],
)
def test_asking_for_them_says_what_to_pass(name, remedy):
    with pytest.raises(ValueError, match=f"'{name}' needs {remedy}"):
        measure_corpus(headlines(20, 1), encoder=ENCODER, metrics=[name])


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'vendi_q1'"):
        measure_corpus(headlines(5, 1), encoder=ENCODER, metrics=["vendi_q11"])
    with trust_modules("math"), pytest.raises(ConfigError, match="must be a cuvee"):
        measure_corpus(headlines(5, 1), encoder=ENCODER, metrics=["math:pi"])


def count_rows(subject: Subject) -> Estimate:
    return Estimate(value=float(subject.n), n=subject.n)


def test_a_metric_of_the_users_own_is_measured():
    own = Metric(name="rows", family="lexical", description="rows", better="", needs=(), compute=count_rows)
    assert measure_corpus(headlines(7, 1), metrics=[own]).values["rows"].value == 7


def test_a_text_without_a_vector_is_an_input_error():
    corpus = Corpus.from_rows([{"text": "fine", "target": "a"}, {"text": "", "target": "b", "id": "row-9"}])
    with pytest.raises(InputError, match=r"row 'row-9'.*drop the row"):
        measure_corpus(corpus, encoder=ENCODER)


def test_an_empty_corpus_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        measure_corpus(headlines(3, 1).take([]), encoder=ENCODER)


# --- exact cases ------------------------------------------------------------------------------------
def test_orthogonal_rows_have_their_closed_forms():
    table = {f"t{i}": np.eye(40)[i] for i in range(40)}
    corpus = Corpus.from_rows({"text": t, "target": "x"} for t in table)
    found = measure_corpus(corpus, encoder=FixedEncoder(table)).values
    for tau in (1.0, 0.5, 0.2, 0.1, 0.05):
        expected = 40 * math.exp(1 / tau) / (39 + math.exp(1 / tau))
        assert found[f"dcscore_tau{tau:g}"].value == pytest.approx(expected, rel=1e-6)
        assert found[f"dcscore_tau{tau:g}"].settings["tau"] == tau
    for q in ("0.5", "1", "2", "inf"):
        assert found[f"vendi_q{q}"].value == pytest.approx(40, rel=1e-6)
    assert found["near_duplicate_rate"].value == 0
    assert found["mean_pairwise_cosine"].value == pytest.approx(0)


def test_near_duplicates_are_rows_with_a_close_other():
    close = [math.cos(0.1), math.sin(0.1), 0, 0]  # cosine 0.995
    table = {"a": [1, 0, 0, 0], "b": close, "c": [0, 0, 1, 0], "d": [0, 0, 0, 1]}
    corpus = Corpus.from_rows({"text": t, "target": "x"} for t in table)
    assert measure_corpus(corpus, encoder=FixedEncoder(table)).values["near_duplicate_rate"].value == 0.5


# --- shift and quality ------------------------------------------------------------------------------
def test_mmd_tells_a_shifted_pool_from_a_faithful_one():
    real = headlines(60, 2)
    faithful = measure_corpus(headlines(90, 1), against=real, encoder=ENCODER).values["mmd"]
    shifted = measure_corpus(headlines(90, 1, labels=("sport",)), against=real, encoder=ENCODER).values["mmd"]
    assert faithful.p_value > 0.01
    assert shifted.p_value == pytest.approx(1 / 201)
    assert shifted.value > 10 * abs(faithful.value)


@pytest.mark.slow
def test_mmd_of_grouped_rows_tests_one_row_a_group():
    """Copies of faithful rows are no shift; a test on all rows would call them one."""
    real, source = headlines(320, 2), headlines(40, 1)
    rows = [
        {"text": t, "target": y, "group": f"g{i}"}
        for i, (t, y) in enumerate(zip(source.texts, source.targets, strict=True))
    ]
    grouped = Corpus.from_rows(row for row in rows for _ in range(8))
    loose = Corpus.from_rows({k: v for k, v in row.items() if k != "group"} for row in rows for _ in range(8))
    found = measure_corpus(grouped, against=real, encoder=ENCODER).values["mmd"]
    wrong = measure_corpus(loose, against=real, encoder=ENCODER).values["mmd"]
    assert found.settings["test_rows"] == "one a group: 40 and 320"
    assert found.value < wrong.value
    assert wrong.p_value < 0.05 < found.p_value
    few = measure_corpus(grouped.take(range(16)), against=real, encoder=ENCODER).values["mmd"]
    assert few.p_value is None  # two groups


def test_label_agreement_falls_by_the_labels_that_were_swapped():
    real = headlines(90, 2)
    clean = measure_corpus(headlines(300, 1), against=real, encoder=ENCODER).values["label_agreement"]
    noisy = measure_corpus(headlines(300, 1, swap=0.3), against=real, encoder=ENCODER).values["label_agreement"]
    assert clean.value > 0.97
    assert noisy.low < 0.7 < noisy.high
    assert clean.settings == {"probe": "fitted on the real rows", "probe_rows": 90}


def test_label_agreement_of_the_real_data_is_cross_validated():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(500)]
    noise = Corpus.from_rows(
        {"text": " ".join(rng.choice(words, size=8)), "target": "ab"[rng.integers(2)]} for _ in range(150)
    )
    own = measure_corpus(noise, against=noise, encoder=ENCODER).values["label_agreement"]
    assert own.settings["probe"] == "cross-validated"
    assert own.value < 0.7  # labels are noise: a probe that had seen the rows would agree with nearly all


def test_label_agreement_needs_two_labels():
    real = headlines(10, 2, labels=("sport",))
    assert "label_agreement" not in measure_corpus(headlines(10, 1), against=real, encoder=ENCODER).values


def test_leakage_counts_rows_that_repeat_held_out_texts():
    held_out, real = headlines(40, 3), headlines(30, 2)
    leaking = headlines(90, 1).joined(held_out.take(range(10)))
    found = measure_corpus(leaking, against=real, held_out=held_out.texts, encoder=ENCODER).values["leakage"]
    assert found.value == pytest.approx(0.1)
    assert found.settings["baseline"] == 0
    assert found.settings["held_out"] == 40
    assert found.settings["threshold"] >= 0.95
    clean = measure_corpus(headlines(90, 1), against=real, held_out=held_out.texts, encoder=ENCODER).values["leakage"]
    assert clean.value == 0
    assert clean.high == pytest.approx(wilson_interval(0.0, 90)[1])


def test_set_leak_tells_versions_of_held_out_rows_from_versions_of_training_rows():
    rng = np.random.default_rng(0)
    rows = [[f"w{i}" for i in rng.integers(300, size=8)] for _ in range(160)]
    corpus = Corpus.from_rows({"text": " ".join(words), "target": "x"} for words in rows)
    held_out, real, other = (corpus.take(range(start, start + size)) for start, size in ((0, 60), (60, 60), (120, 40)))

    def found(source):
        written = [[*text.split()[:4], *(f"w{i}" for i in rng.integers(300, size=3))] for text in source.texts]
        versions = Corpus.from_rows({"text": " ".join(words), "target": "x"} for words in written)
        options = {"against": real, "held_out": held_out.texts, "encoder": ENCODER, "metrics": ["leakage", "set_leak"]}
        return measure_corpus(other.joined(versions), **options).values

    leaking, clean = found(held_out), found(real)
    assert leaking["leakage"].value < 0.05  # no single row gives it away
    assert leaking["set_leak"].p_value < 0.01 < clean["set_leak"].p_value
    assert leaking["set_leak"].value > 0.5 > clean["set_leak"].value
    few = measure_corpus(headlines(30, 1), against=headlines(5, 2), held_out=held_out.texts[:5], encoder=ENCODER)
    assert "set_leak" not in few.values


# --- intervals of rates -----------------------------------------------------------------------------
def test_wilson_has_its_textbook_values():
    low, high = wilson_interval(0.1, 100)
    assert (low, high) == (pytest.approx(0.05523, abs=1e-5), pytest.approx(0.17437, abs=1e-5))
    assert wilson_interval(0.0, 20)[0] == 0.0
    assert wilson_interval(1.0, 20)[1] == 1.0


def test_grouped_rates_have_wider_intervals():
    hits = np.repeat(np.arange(40) < 12, 5)
    rows = headlines(200, 1)
    table = [
        {"text": t, "target": y, "group": str(i // 5)}
        for i, (t, y) in enumerate(zip(rows.texts, rows.targets, strict=True))
    ]
    grouped = estimate_hits(Subject(corpus=Corpus.from_rows(table)), hits, {})
    single = estimate_hits(Subject(corpus=rows), hits, {})
    assert grouped.value == single.value == 0.3
    wanted = wilson_interval(0.3, 40)  # rows of a group all agree: 40 effective rows
    assert (grouped.low, grouped.high) == (pytest.approx(wanted[0], abs=0.005), pytest.approx(wanted[1], abs=0.005))
    assert (single.low, single.high) == wilson_interval(0.3, 200)
    none = estimate_hits(Subject(corpus=Corpus.from_rows(table)), np.zeros(200, dtype=bool), {})
    assert none.high == pytest.approx(wilson_interval(0.0, 40)[1])


# --- rarefaction ------------------------------------------------------------------------------------
def test_rows_measures_a_subsample_of_whole_groups():
    rows = headlines(60, 1)
    table = [
        {"text": t, "target": y, "group": f"g{i % 20}"}
        for i, (t, y) in enumerate(zip(rows.texts, rows.targets, strict=True))
    ]
    corpus = Corpus.from_rows(table)
    part = corpus.take(pick_groups(corpus, 31, seed=4))
    assert len(part) == 31
    counts = sorted(part.groups.count(g) for g in set(part.groups))
    assert counts == [1] + [3] * 10
    assert part.fingerprint == corpus.take(pick_groups(corpus, 31, seed=4)).fingerprint
    assert part.fingerprint != corpus.take(pick_groups(corpus, 31, seed=5)).fingerprint
    found = measure_corpus(corpus, rows=31, seed=4, encoder=ENCODER)
    assert (found.n, found.fingerprint) == (31, part.fingerprint)
    assert pick_groups(corpus, 60).tolist() == list(range(60))
    with pytest.raises(ValueError, match="rows is 61"):
        measure_corpus(corpus, rows=61, encoder=ENCODER)
