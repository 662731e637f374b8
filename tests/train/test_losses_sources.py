"""What weighs the synthetic source: the chosen weight, the agreement of gradients, the checkers, the curriculum."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from cuvee.corpus import Corpus
from cuvee.probe import fit_objective, fit_probe
from cuvee.similarity import unit_rows
from cuvee.train import TrainSettings, train_model
from cuvee.train.checkers import LabelChecker, check_synthetic, pick_weight, synthetic_law
from cuvee.train.losses import Curriculum, build_loss
from cuvee.train.model import make_ready
from cuvee.train.weighting import TrainingRows

LABELS = np.array(["a", "b", "c", "d"])
CENTRES = np.random.default_rng(99).normal(size=(4, 24))


def clusters(n, seed, noise=1.5):
    codes = np.arange(n) % 4
    vectors = CENTRES[codes] + noise * np.random.default_rng(seed).normal(size=(n, 24))
    return unit_rows(vectors.astype(np.float32)), LABELS[codes]


REAL, REAL_LABELS = clusters(24, 1)
MADE, MADE_LABELS = clusters(80, 2)
HELD, HELD_LABELS = clusters(16, 3)
VECTORS = np.vstack([REAL, MADE])
GIVEN = SimpleNamespace(name="given", hash="given", dim=24, encode=lambda texts: VECTORS[[int(t) for t in texts]])
MARKS = np.arange(104) >= 24
SHIFTED = np.roll(LABELS, 1)[np.searchsorted(LABELS, MADE_LABELS)]  # each label called by another's name
SHUFFLED = np.random.default_rng(5).permutation(MADE_LABELS)


def rows_of(made_labels, vectors=VECTORS, real_labels=REAL_LABELS):
    targets, origins = [*real_labels, *made_labels], np.where(MARKS, "synthetic", "real")
    rows = [
        {"text": str(i), "target": str(t), "origin": str(o)}
        for i, (t, o) in enumerate(zip(targets, origins, strict=True))
    ]
    return TrainingRows(
        corpus=Corpus.from_rows(rows),
        synthetic=MARKS,
        encode=lambda texts: vectors[[int(t) for t in texts]],
        seed=0,
    )


def prepare(name, made_labels=MADE_LABELS, **settings):
    return build_loss(TrainSettings(loss=name, **settings)).prepare(rows_of(made_labels))


# --- the weight chosen by cross-validation ---
def test_a_good_source_is_chosen_and_a_misleading_one_is_not():
    assert prepare("source_weight").source_weight >= 0.5
    assert prepare("source_weight", SHIFTED).source_weight == 0.0


def test_the_chosen_weight_is_named_and_gives_the_bits_of_the_same_weight_given():
    rows = rows_of(SHIFTED)
    ready = make_ready(rows.corpus, TrainSettings(loss="source_weight"), encode=rows.encode)
    assert ready.settings.source_weight == 0.0
    found = [
        train_model(rows.corpus, encoder=GIVEN, settings=TrainSettings(loss="source_weight", source_weight=w)).model
        for w in (None, 0.0)
    ]
    assert np.array_equal(found[0].weights, found[1].weights)


def test_the_smallest_weight_within_a_quarter_of_a_standard_error_is_picked():
    noise = np.random.default_rng(0).normal(size=100)
    noise = (noise - noise.mean()) / noise.std(ddof=1)  # its mean is 0, its standard error 0.1
    best = np.ones(100)

    def losses(gap):
        return np.stack([best + 3, best + gap + noise, best + 3, best, best + 3])

    assert pick_weight(losses(0.0249)) == 0.1
    assert pick_weight(losses(0.0251)) == 0.5
    assert pick_weight(np.ones((5, 100))) == 0.0


# --- checkers ---
def test_checker_alone_is_the_checker_bit_for_bit():
    rows = replace(rows_of(MADE_LABELS), l2=0.5)
    said = check_synthetic(rows, LabelChecker(rows)).log_p
    alone = train_model(rows.corpus, encoder=GIVEN, settings=TrainSettings(loss="checker_alone", l2=0.5)).model
    assert np.array_equal(said, alone.log_proba(MADE)[np.arange(80), np.searchsorted(LABELS, MADE_LABELS)])


def test_the_filter_keeps_what_the_checker_says():
    said = fit_probe(REAL, REAL_LABELS.tolist()).predict(MADE)
    kept = prepare("agreement_filter", SHIFTED).kept
    assert np.array_equal(kept[24:], np.array(said) == SHIFTED)
    assert kept[:24].all()
    assert 0 < prepare("agreement_filter").kept[24:].sum() > kept[24:].sum()


def test_wrong_labels_weigh_less_under_imp_and_dimp():
    mixed = np.where(np.arange(80) < 40, SHIFTED, MADE_LABELS)
    imp = prepare("imp", mixed)
    assert np.median(imp.weights[24:64]) < 0.5 * np.median(imp.weights[64:])
    assert (imp.weights[:24] == 1).all()
    slopes = prepare("dimp", mixed).slopes(np.arange(104), np.full(104, np.log(0.25)))
    assert np.median(-slopes[24:64]) < 0.5 * np.median(-slopes[64:])


def test_the_synthetic_law_is_given_by_probes_that_never_saw_the_row():
    # labels are noise: a probe that saw its rows would call every label likely
    vectors = VECTORS.copy()
    vectors[24:] = unit_rows(np.random.default_rng(0).normal(size=(80, 24)).astype(np.float32))
    rows = rows_of(SHUFFLED, vectors)
    seen = fit_probe(vectors[24:], SHUFFLED.tolist()).log_proba(vectors[24:])
    seen_own = seen[np.arange(80), np.searchsorted(LABELS, SHUFFLED)].mean()
    assert synthetic_law(rows, LabelChecker(rows)).mean() < seen_own - 0.3


def test_a_label_that_the_real_rows_lack_weighs_little():
    labels = np.where(np.arange(80) < 10, "new", MADE_LABELS)
    imp = prepare("imp", labels)
    assert imp.weights[24:34].max() < 0.5


# --- curriculum ---
def curriculum(pull):
    loss = Curriculum(0.5, pull).prepare(rows_of(SHIFTED))
    targets = [*REAL_LABELS, *SHIFTED]
    return fit_objective(VECTORS, targets, loss).proba(HELD)


def test_an_endless_pull_leaves_the_synthetic_model():
    np.testing.assert_allclose(curriculum(1e9), fit_probe(MADE, SHIFTED.tolist()).proba(HELD), atol=1e-3)


def test_no_pull_forgets_the_synthetic_rows():
    real_only = fit_probe(REAL, REAL_LABELS.tolist())
    np.testing.assert_allclose(curriculum(0.0), real_only.proba(HELD), atol=5e-3)
    assert np.abs(curriculum(0.1) - real_only.proba(HELD)).max() > 0.01


def test_the_phases_are_synthetic_then_real():
    first, second = prepare("curriculum", synthetic_share=0.3, pull=2.0).phases
    assert np.array_equal(first.rows, np.flatnonzero(MARKS))
    assert np.array_equal(second.rows, np.flatnonzero(~MARKS))
    assert (first.share, first.pull) == (0.3, 0.0)
    assert (second.share, second.pull) == (0.7, 2.0)
