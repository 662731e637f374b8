"""The look at learning rates, on the probe and on a trainer that fails."""

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.encoders import load_encoder
from cuvee.errors import TrainingError
from cuvee.train import TrainSettings
from cuvee.train.rates import check_learning_rate

WORDS = {
    "sports": "goal match team league striker coach cup referee stadium penalty".split(),
    "tech": "software chip phone internet laptop browser server code network robot".split(),
}
ENCODER = load_encoder("hashing")
FUSSY = """
from cuvee.errors import TrainingError
from cuvee.train.probe import train_probe

def train(corpus, loss, settings, *, encoder, validation, progress, folder):
    limit = 1.0 if len(corpus) > 20 else 5.0
    if (settings.learning_rate or 0) > limit:
        raise TrainingError("the loss is nan")
    return train_probe(corpus, loss, settings, encoder=encoder, validation=validation, progress=progress, folder=folder)
"""


def corpus(n, seed):
    rng = np.random.default_rng(seed)
    return Corpus.from_rows(
        {"text": " ".join(rng.permutation(w)[:4]), "target": k} for _ in range(n) for k, w in WORDS.items()
    )


CORNERS = {"few": corpus(5, 1), "many": corpus(20, 2)}


def check(**more):
    settings = TrainSettings(**{"learning_rate": 1.0} | more.pop("settings", {}))
    return check_learning_rate(CORNERS, settings, encoder=ENCODER, **more)


def test_every_corner_is_trained_at_every_rate():
    found = check(steps=5)
    assert found.used == 1.0
    assert found.rates == pytest.approx((0.1, 0.3, 1.0, 3.0, 10.0))
    assert [(t.corner, t.learning_rate) for t in found.trials] == [(c, r) for c in CORNERS for r in found.rates]
    few = [t.loss for t in found.trials if t.corner == "few"]
    assert few == sorted(few, reverse=True)  # five steps: the faster the further
    assert found.best == 10.0
    assert found.at_edge


def test_the_trainers_own_rate_is_the_middle():
    found = check(settings={"learning_rate": None}, factors=(0.5, 1.0, 2.0), steps=5)
    assert found.used == 10.0
    assert found.rates == (5.0, 10.0, 20.0)


def test_a_rate_that_fails_in_one_corner_is_not_the_best(tmp_path, monkeypatch):
    (tmp_path / "fussy_trainer.py").write_text(FUSSY)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = check(settings={"trainer": "fussy_trainer:train"}, steps=5)
    assert found.best == 1.0
    assert not found.at_edge
    failed = {(t.corner, t.learning_rate) for t in found.trials if t.failure}
    assert failed == {("many", 3.0), ("few", 10.0), ("many", 10.0)}
    assert {t.failure for t in found.trials} == {"", "the loss is nan"}
    with pytest.raises(TrainingError, match=r"no rate trains every corner \(the loss is nan\); try factors below 6"):
        check(settings={"trainer": "fussy_trainer:train"}, factors=(6.0, 7.0))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"corners is \{\}; give at least one"):
        check_learning_rate({}, TrainSettings())
    with pytest.raises(ValueError, match=r"factors is \(0\.0,\); give finite numbers above 0"):
        check(factors=(0.0,))
