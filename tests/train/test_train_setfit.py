"""SetFit: pairs by label, a head on the tuned vectors, and whether it is worth its time."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from cuvee.corpus import Corpus, load_corpus
from cuvee.errors import ConfigError, InputError
from cuvee.train import TrainSettings, load_predictor, train_model

torch = pytest.importorskip("torch")
setfit = pytest.importorskip("cuvee.train.setfit")

DATA = Path(os.environ.get("CUVEE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "goemotions"
ROWS = [("oil falls", "money"), ("bank gains", "money"), ("cup final", "sport"), ("goal", "sport"), ("alone", "rest")]
CORPUS = Corpus.from_rows([{"text": text, "target": label} for text, label in ROWS])
WEIGHTS = np.array([1.0, 3.0, 2.0, 2.0, 0.5])


def train(corpus=CORPUS, **changes):
    start = {"trainer": "setfit", "steps": 2, "batch_size": 4, "device": "cpu"}
    return train_model(corpus, settings=TrainSettings(**start | changes))


class Body:
    """What rows are asked of before anything is embedded."""

    model, device = torch.nn.Linear(1, 1), torch.device("cpu")
    settings = TrainSettings(trainer="setfit", learning_rate=1e-4)


def test_partners_are_of_the_same_label_and_of_another_as_often_as_they_weigh():
    rows = setfit.PairedRows(Body(), CORPUS, WEIGHTS)
    anchors = np.repeat(np.arange(5), 4000)
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        alike, other = rows.draw_partners(anchors)
        again = rows.draw_partners(anchors)
    codes = np.array([0, 0, 1, 1, 2])
    assert (codes[alike] == codes[anchors]).all() and (codes[other] != codes[anchors]).all()
    assert (alike[anchors < 4] != anchors[anchors < 4]).all() and (alike[anchors == 4] == 4).all()
    assert not np.array_equal(other, again[1])
    for anchor in range(5):
        drawn = np.bincount(other[anchors == anchor], minlength=5) / 4000
        wanted = np.where(codes == codes[anchor], 0.0, WEIGHTS)
        assert drawn == pytest.approx(wanted / wanted.sum(), abs=0.03)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"patience": 2}, "patience is 2, but trainer 'setfit' has no patience"),
        ({"head_learning_rate": 0.1}, "has no head_learning_rate"),
        ({"loss": "dimp"}, "loss 'dimp' looks at the model as it trains, which trainer 'setfit' does not show"),
        ({"model": "/no/such/folder"}, "no/such/folder"),
    ],
)
def test_what_it_has_no_use_for_is_refused(change, why):
    with pytest.raises((ConfigError, InputError), match=why):
        train(**change)


@pytest.mark.slow
def test_every_setting_changes_it_and_equal_ones_do_not(tmp_path):
    base = train().predict_proba(["oil gains"])
    assert np.array_equal(train().predict_proba(["oil gains"]), base)
    changes = {"steps": 3, "seed": 1, "learning_rate": 1e-3, "l2": 0.1, "batch_size": 2, "lora_rank": 2}
    for name, value in changes.items():
        change = {name: value}
        assert not np.allclose(train(**change).predict_proba(["oil gains"]), base, atol=1e-6), change
    heavy = CORPUS.with_columns(weight=[1.0, 5.0, 1.0, 1.0, 1.0])
    assert not np.allclose(train(heavy).predict_proba(["oil gains"]), base, atol=1e-4)
    nothing = Corpus.from_rows([{"text": "noise", "target": "rest"}]).with_columns(weight=[0.0])
    assert np.array_equal(train(CORPUS.joined(nothing)).predict_proba(["oil gains"]), base)
    model = train()
    model.save(tmp_path)
    again = load_predictor(tmp_path)
    assert (again.settings, again.labels) == (model.settings, ("money", "rest", "sport"))
    assert np.allclose(again.predict_proba(["a cup"]), model.predict_proba(["a cup"]), atol=1e-6)
    head = setfit.TunedClassifier(model.body, dataclasses.replace(model.head, weights=model.head.weights[:9]))
    head.save(tmp_path)
    with pytest.raises(InputError, match="the head is for 9 dimensions, the model gives 384; train again"):
        load_predictor(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="shared data goemotions is not beside the checkout")
def test_at_eight_rows_a_label_it_beats_the_frozen_probe_where_labels_are_no_topics():
    pool, rng = load_corpus(DATA / "train.jsonl.gz"), np.random.default_rng(0)
    targets = np.array(pool.targets)
    by_label = {label: rng.permutation(np.flatnonzero(targets == label)) for label in sorted(set(targets))[:6]}
    few = pool.take(sorted(i for rows in by_label.values() for i in rows[:8]))
    held_out = pool.take(sorted(i for rows in by_label.values() for i in rows[8:58]))
    right = [
        np.mean(np.array(made.predict(held_out.texts)) == np.array(held_out.targets))
        for made in (train_model(few), train(few, steps=30, batch_size=16))
    ]
    assert right[1] > right[0] + 0.03
