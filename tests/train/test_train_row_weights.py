"""Weights of rows in training: only their ratios count, 0 leaves a row out, 2 is a row that stands twice."""

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder
from cuvee.train import LOSSES, TrainSettings, train_model
from cuvee.train.losses import WeightedRows
from cuvee.train.weighting import AdjustedLoss, weigh_rows

pytestmark = pytest.mark.slow  # each is quick, together they are not

ENCODER = HashingEncoder()


def rows(n=16, origin="real"):
    words = {"sport": "ball goal team win", "tech": "chip code phone app"}
    rng = np.random.default_rng(len(origin))
    made = [(y, w.split(), i) for i in range(n) for y, w in words.items()]
    return Corpus.from_rows(
        [{"text": f"{' '.join(rng.permutation(w)[:3])} {i}", "target": y} for y, w, i in made], origin=origin
    )


BLEND = rows().joined(rows(origin="synthetic"))


def weights_of(corpus, loss="ce"):
    settings = TrainSettings(trainer="probe", loss=loss)
    return train_model(corpus, settings=settings, encoder=ENCODER).model.weights


@pytest.mark.parametrize("loss", LOSSES)
def test_ratios_alone_count_for_every_loss_and_they_do_count(loss):
    given = np.where(np.arange(len(BLEND)) % 3 == 0, 3.0, 0.5)
    plain = weights_of(BLEND, loss)
    assert np.array_equal(weights_of(BLEND.with_columns(weight=np.full(len(BLEND), 7.0)), loss), plain)
    weighed = weights_of(BLEND.with_columns(weight=given), loss)
    assert np.allclose(weights_of(BLEND.with_columns(weight=4 * given), loss), weighed, atol=1e-5)
    assert not np.allclose(weighed, plain, atol=1e-4)


def test_a_row_of_weight_zero_is_a_row_that_is_not_there():
    given = np.where(np.arange(len(BLEND)) % 4 == 1, 0.0, 1.0)
    assert np.array_equal(weights_of(BLEND.with_columns(weight=given)), weights_of(BLEND.keep(given > 0)))


def test_a_row_of_weight_two_is_a_row_that_stands_twice():
    rng = np.random.default_rng(0)
    log_p, own = -rng.random(6), np.array([1.0, 0.5, 2.0, 0.0, 1.0, 1.0])
    loss = WeightedRows(own)  # has dropped the fourth row
    log_p, given = log_p[loss.kept], np.array([2.0, 1.0, 1.0, 9.0, 3.0, 1.0])
    weighed = weigh_rows(loss, given)
    every = np.arange(5)
    repeats = given[loss.kept].astype(int)
    twice = WeightedRows(np.repeat(own[loss.kept], repeats))
    for ours, theirs in (
        (weighed.slopes(every, log_p), twice.slopes(np.arange(repeats.sum()), np.repeat(log_p, repeats))),
        (weighed.values(every, log_p), twice.values(np.arange(repeats.sum()), np.repeat(log_p, repeats))),
    ):
        places = np.repeat(every, repeats)
        assert ours / len(ours) == pytest.approx(np.bincount(places, weights=theirs) / len(theirs))
    both = own[loss.kept] * given[loss.kept]
    assert weighed.weights == pytest.approx(both / both.sum() * own.sum())
    assert isinstance(weighed, AdjustedLoss) and weigh_rows(loss, np.full(6, 3.0)) is loss
    assert np.array_equal(weighed.kept, loss.kept)
