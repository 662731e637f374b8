"""Quality metrics: planted label noise is tracked, degenerate rows are counted, known overlaps are found."""

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder
from cuvee.measure import METRICS as ALL
from cuvee.measure.subject import Subject
from cuvee.similarity import unit_rows

METRICS = {name: metric for name, metric in ALL.items() if metric.family == "quality"}
LABELS = "abcdef"


class Table:
    name, hash, dim = "table", "table-1", 24

    def __init__(self, vectors):
        self.vectors = vectors

    def encode(self, texts):
        return np.array([self.vectors[t] for t in texts], dtype=np.float32).reshape(len(texts), -1)


def clouds(name, n, seed, swapped=0.0, spread=0.35, labels=LABELS):
    """Rows about one centre a label; a share of them carries another label."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(len(LABELS), Table.dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    true = rng.integers(0, len(labels), size=n)
    vectors = unit_rows(centres[true] + spread * rng.normal(size=(n, Table.dim)))
    said = np.where(rng.random(n) < swapped, (true + rng.integers(1, len(labels), size=n)) % len(labels), true)
    texts = [f"{name}{i}" for i in range(n)]
    corpus = Corpus.from_rows({"text": t, "target": labels[k]} for t, k in zip(texts, said, strict=True))
    return corpus, dict(zip(texts, vectors, strict=True))


def label_noise(swapped, seed, n=300, m=240, **options):
    ours, table = clouds("s", n, 2 * seed, swapped, **options)
    theirs, other = clouds("r", m, 2 * seed + 1, **options)
    subject = Subject(corpus=ours, against=theirs, encoder=Table(table | other))
    return METRICS["label_noise"].compute(subject)


def test_the_names_are_pinned():
    of_pairs = ["groundedness", "answer_copy_rate", "answer_repeat_rate", "answer_length_distance", "reader_agreement"]
    assert list(METRICS) == ["label_agreement", "label_noise", "degenerate_rate", *of_pairs, "leakage", "set_leak"]


@pytest.mark.parametrize("swapped", [0.0, 0.1, 0.3])
def test_label_noise_tracks_what_was_swapped(swapped):
    found = [label_noise(swapped, seed) for seed in range(2)]
    assert np.mean([e.value for e in found]) == pytest.approx(swapped, abs=0.03)
    assert any(e.low <= swapped <= e.high for e in found)
    assert all(e.settings["power"] > 0.4 > 0.1 > e.settings["false_alarms"] for e in found)


@pytest.mark.slow
@pytest.mark.parametrize("swapped", [0.0, 0.3])
def test_label_noise_is_calibrated_where_labels_overlap(swapped):
    """A probe that is often wrong doubts many right labels; the estimate is still about right."""
    found = [label_noise(swapped, seed, spread=0.6) for seed in range(4)]
    assert min(e.settings["false_alarms"] for e in found) > 0.02
    assert np.mean([e.value for e in found]) == pytest.approx(swapped, abs=0.06)


def test_label_noise_does_not_depend_on_the_order_of_rows():
    ours, table = clouds("s", 100, 1, 0.2)
    theirs, other = clouds("r", 90, 2)
    rng = np.random.default_rng(0)
    values = [
        METRICS["label_noise"].compute(Subject(corpus=one, against=two, encoder=Table(table | other))).value
        for one, two in ((ours, theirs), (ours.take(rng.permutation(100)), theirs.take(rng.permutation(90))))
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-9)


def test_a_label_that_the_real_data_lacks_is_noise():
    ours, table = clouds("s", 100, 1)
    rows = [{"text": t, "target": "z" if i < 20 else y} for i, (t, y) in enumerate(zip(ours.texts, ours.targets,
                                                                                       strict=True))]  # fmt: skip
    theirs, other = clouds("r", 120, 2)
    subject = Subject(corpus=Corpus.from_rows(rows), against=theirs, encoder=Table(table | other))
    found = METRICS["label_noise"].compute(subject)
    assert found.settings["unknown_labels"] == pytest.approx(0.2)
    assert found.low < 0.2 < found.high
    assert found.value == pytest.approx(0.2, abs=0.05)


def test_label_noise_is_not_defined_without_a_probe_that_knows():
    rng = np.random.default_rng(0)
    theirs, other = clouds("r", 60, 2)
    shuffled = Corpus.from_rows(
        {"text": t, "target": y} for t, y in zip(theirs.texts, rng.permutation(theirs.targets), strict=True)
    )
    ours, table = clouds("s", 60, 1)
    encoder = Table(table | other)
    compute = METRICS["label_noise"].compute
    assert compute(Subject(corpus=ours, against=shuffled, encoder=encoder)) is None
    assert compute(Subject(corpus=theirs, against=theirs, encoder=encoder)) is None
    assert compute(Subject(corpus=ours, against=theirs.take([0, 1]), encoder=encoder)) is None
    assert compute(Subject(corpus=ours.take([0]), against=theirs, encoder=encoder)).low is None


def test_degenerate_rate_counts_each_reason():
    fine = ["Rates rise as the bank acts.", "A quiet day for shares.", "The coach resigns after the cup."]
    bad = ["", "ERROR: 429 Too Many Requests", "As an AI language model, I cannot say", "rates " * 9, "rates " * 12]
    corpus = Corpus.from_rows({"text": t, "target": "x", "id": str(i)} for i, t in enumerate([*fine, *bad]))
    found = METRICS["degenerate_rate"].compute(Subject(corpus=corpus))
    assert found.value == 5 / 8
    assert found.low < 5 / 8 < found.high
    assert found.settings == {
        "reference_rows": 0, "empty": 1, "error message": 1, "refusal": 1, "repetition": 2,
    }  # fmt: skip


def test_degenerate_rate_measures_ends_by_the_real_rows():
    real = Corpus.from_rows({"text": f"The bank of town {i} has closed.", "target": "x"} for i in range(60))
    cut = Corpus.from_rows({"text": f"The shop {i} has closed and the", "target": "x"} for i in range(10))
    degenerate = METRICS["degenerate_rate"].compute
    found = degenerate(Subject(corpus=cut, against=real))
    assert found.settings["truncated"] == 10
    assert found.settings["reference_rows"] == 60
    assert degenerate(Subject(corpus=cut)).value == 0
    assert degenerate(Subject(corpus=real, against=real)).value == 0


def test_leakage_is_defined_with_held_out_texts_only():
    corpus = Corpus.from_rows({"text": f"row {i}", "target": "x"} for i in range(5))
    encoder = HashingEncoder()
    assert METRICS["leakage"].compute(Subject(corpus=corpus, encoder=encoder)) is None
    found = METRICS["leakage"].compute(Subject(corpus=corpus, encoder=encoder, held_out=["Row 3."]))
    assert found.value == 0.2
