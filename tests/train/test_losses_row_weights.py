"""Checkers heed the weights that rows bring along, and are heard while they are fitted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder
from cuvee.train import TrainSettings, train_model
from cuvee.train.checkers import TUNED_CANDIDATES, LabelChecker, check_synthetic, pick_weight, synthetic_law
from cuvee.train.losses import build_loss
from cuvee.train.model import WholeProgress
from cuvee.train.weighting import RowScores, TrainingRows, scale_weights

WAYS = np.eye(4, dtype=np.float32)


def rows_of(cells, origin, first=0, copies=False):
    """Rows of (way, label, weight, group); with ``copies`` a row of weight 3 stands three times."""
    made = []
    for way, label, weight, group in cells:
        row = {"text": str(way), "target": label, "group": group, "origin": origin}
        made += [row] * weight if copies else [row | {"weight": float(weight)}]
    return [row | {"id": f"{origin}{first + i}"} for i, row in enumerate(made)]


def training_rows(rows, checker=None, task="classification"):
    corpus = Corpus.from_rows(rows, task=task)
    marks = np.array([origin == "synthetic" for origin in corpus.origins])
    if (weights := [row.get("weight") for row in rows])[0] is not None:
        corpus = corpus.with_columns(weight=np.array(weights))
    return TrainingRows(
        corpus=corpus,
        synthetic=marks,
        encode=lambda texts: WAYS[[int(t) for t in texts]],
        seed=0,
        checker=checker,
    )


# on each way both labels are said; weights decide which of them more
TALK = [(w, y, 3 if (w + (y == "b")) % 2 else 1, f"{w}{y}{i}") for w in range(4) for y in "ab" for i in range(8)]


def both(cells, made):
    """The same rows with weights, as copies, and without either."""
    plain = [(way, label, 1, group) for way, label, _, group in cells]
    plain_made = [(way, label, 1, group) for way, label, _, group in made]
    return (
        training_rows(rows_of(cells, "real") + rows_of(made, "synthetic")),
        training_rows(rows_of(cells, "real", copies=True) + rows_of(made, "synthetic", copies=True)),
        training_rows(rows_of(plain, "real") + rows_of(plain_made, "synthetic")),
    )


def ratios(rows):
    """By how much a checker of the real rows finds label a more likely than b, on each way."""
    said = check_synthetic(rows, LabelChecker(rows)).log_p
    made = rows.corpus.keep(rows.synthetic)
    of = dict(zip(zip(made.texts, made.targets, strict=True), said, strict=True))
    return np.array([of[str(way), "a"] - of[str(way), "b"] for way in range(4)])


def test_a_checker_fits_a_row_of_weight_three_as_three_rows():
    weighed, copied, plain = map(ratios, both(TALK, TALK))
    assert np.abs(weighed - copied).max() < 0.4
    assert np.abs(weighed).min() > 0.8 > 5 * np.abs(plain).max()


def test_the_law_of_the_synthetic_rows_is_of_their_weights():
    # folds go by group, and the copies of a row are of its group; so both are dealt alike
    weighed, copied, plain = both(TALK, TALK)
    found = synthetic_law(weighed, LabelChecker(weighed))
    likely = np.array([weight == 3 for _, _, weight, _ in TALK])
    assert found[likely].min() > np.log(0.55) > np.log(0.45) > found[~likely].max()
    law = dict(zip([g for *_, g in TALK], found, strict=True))
    of_copies = synthetic_law(copied, LabelChecker(copied))
    groups = [row["group"] for row in rows_of(TALK, "synthetic", copies=True)]
    assert max(abs(law[g] - p) for g, p in zip(groups, of_copies, strict=True)) < 0.2
    assert np.ptp(synthetic_law(plain, LabelChecker(plain))) < 1.0


@pytest.mark.parametrize("trusted", ["agreeing", "contradicting"])
def test_the_source_weight_is_chosen_by_the_rows_that_count(trusted):
    agreeing = [(w, "ab"[w % 2], 1, f"{w}+{i}") for w in range(4) for i in range(6)]
    against = [(w, "ba"[w % 2], 1, f"{w}-{i}") for w in range(4) for i in range(6)]
    heavy = [(*cell[:2], 20, cell[3]) for cell in (agreeing if trusted == "agreeing" else against)]
    made = [(w, "ab"[w % 2], 1, f"{w}*{i}") for w in range(4) for i in range(40)]
    light = against if trusted == "agreeing" else agreeing
    rows = training_rows(rows_of(heavy, "real") + rows_of(light, "real", first=99) + rows_of(made, "synthetic"))
    chosen = build_loss(TrainSettings(loss="source_weight")).prepare(rows).source_weight
    assert chosen > 0 if trusted == "agreeing" else chosen == 0.0


def test_losses_of_held_out_rows_are_weighed():
    losses = np.array([[1.0, 1.0, 1.0, 9.0], [2.0, 2.0, 2.0, 1.0]])
    candidates = (0.0, 1.0)
    assert pick_weight(losses, candidates, np.array([1.0, 1.0, 1.0, 8.0])) == 1.0
    assert pick_weight(losses, candidates, np.array([8.0, 8.0, 8.0, 1e-3])) == 0.0
    assert pick_weight(losses[::-1], candidates, np.array([8.0, 8.0, 8.0, 1e-3])) == 1.0
    assert pick_weight(losses, candidates, np.full(4, 7.0)) == pick_weight(losses, candidates)


@settings(max_examples=25)
@given(
    pairs=st.lists(st.tuples(st.sampled_from([0.0, 0.25, 1.0]), st.floats(0.1, 10)), min_size=1, max_size=8),
    times=st.floats(0.1, 10),
)
def test_both_weights_are_multiplied_and_only_ratios_count(pairs, times):
    own, given_ = np.array(pairs).T
    scaled = scale_weights(own, given_)
    assert scaled.sum() == pytest.approx(own.sum()) and np.allclose(scaled, scale_weights(own, times * given_))
    if own.any():
        assert np.allclose(scaled * (own @ given_), own * given_ * own.sum())
    assert scale_weights(own, np.full(len(own), times)) is own


class Noting:
    """A checker that notes the weights it is given."""

    def __init__(self):
        self.asked = []

    def __call__(self, corpus, scored, *, weights, passes, seed):
        assert passes != 0 and seed >= 0
        self.asked.append((corpus, weights))
        spread = np.linspace(-2, -1, len(scored))
        return RowScores(log_p=spread, agrees=np.ones(len(scored), dtype=bool))


@pytest.mark.parametrize("loss", ["imp", "dimp", "agreement_filter", "source_weight"])
def test_tuned_checkers_are_given_the_weights_of_their_rows(loss):
    cells = [(i % 4, f"answer {i}", 1 + i % 3, f"g{i}") for i in range(24)]
    checker = Noting()
    rows = training_rows(rows_of(cells, "real") + rows_of(cells, "synthetic"), checker, task="generation")
    build_loss(TrainSettings(trainer="causal", loss=loss)).prepare(rows)
    own = [np.ones(len(corpus)) for corpus, _ in checker.asked]
    if loss == "source_weight":
        marks = [np.array([o == "synthetic" for o in corpus.origins]) for corpus, _ in checker.asked]
        own = [np.where(mark, weight, 1.0) for mark, weight in zip(marks, TUNED_CANDIDATES, strict=True)]
    assert checker.asked
    for (corpus, weights), base in zip(checker.asked, own, strict=True):
        assert len(set(corpus.weights)) == 3
        assert np.allclose(weights / weights.sum(), base * corpus.weights / (base @ corpus.weights))
        assert weights.sum() == pytest.approx(base.sum())


# --- being heard ---
def test_steps_of_checkers_and_of_the_training_are_one_count():
    heard = []
    whole = WholeProgress(lambda *told: heard.append(told), steps=4)
    for done in (1, 2):
        whole.tune(done, 2, 0.5)
    whole.tune(3, 3, 0.25)
    for done in (2, 4):
        whole.train(done, 4, 0.1)
    assert heard == [(1, 6, 0.5), (2, 6, 0.5), (5, 9, 0.25), (7, 9, 0.1), (9, 9, 0.1)]


@pytest.mark.parametrize(("loss", "fits"), [("ce", 0), ("dimp", 1), ("imp", 6), ("source_weight", 25)])
def test_a_training_is_heard_from_its_first_checker_on(loss, fits):
    words = {"sport": "ball goal team win", "tech": "chip code phone app"}
    rows = [
        {"text": f"{text} {i} {origin}", "target": label, "origin": origin}
        for i in range(8)
        for label, text in words.items()
        for origin in ("real", "synthetic")
    ]
    heard = []
    settings = TrainSettings(loss=loss)
    train_model(
        Corpus.from_rows(rows), settings=settings, encoder=HashingEncoder(), progress=lambda *told: heard.append(told)
    )
    done, all_steps, losses = map(np.array, zip(*heard, strict=True))
    assert len(heard) == fits + 1 and np.isfinite(losses).all()
    assert (np.diff(done) > 0).all() and (np.diff(all_steps) >= 0).all()
    assert (done[:-1] < all_steps[:-1]).all() and done[-1] == all_steps[-1] == fits + 1
