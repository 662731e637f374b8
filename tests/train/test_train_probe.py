import json

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder, load_encoder
from cuvee.errors import ConfigError, InputError, TrainingError
from cuvee.train import (
    LOSSES,
    TASKS,
    TRAINERS,
    Predictor,
    TrainSettings,
    is_deterministic,
    load_predictor,
    train_model,
)

WORDS = {
    "sports": "goal match team league striker coach cup referee stadium penalty".split(),
    "tech": "software chip phone internet laptop browser server code network robot".split(),
    "money": "bank shares profit market price inflation trade budget loan dollar".split(),
}
ENCODER = load_encoder("hashing")


def corpus(n, origin, seed):
    rng = np.random.default_rng(seed)
    rows = [{"text": " ".join(rng.permutation(w)[:4]), "target": k} for _ in range(n) for k, w in WORDS.items()]
    return Corpus.from_rows(rows, origin=origin)


REAL, POOL = corpus(4, "real", 1), corpus(8, "synthetic", 2)
BLEND = REAL.joined(POOL)
HELD_OUT = corpus(20, "real", 3)


def weights_of(predictor):
    return np.vstack([predictor.model.weights, predictor.model.bias])


def source_weight(value):
    settings = TrainSettings(loss="source_weight", source_weight=value)
    return train_model(BLEND, encoder=ENCODER, settings=settings)


def test_the_probe_learns():
    predictor = train_model(BLEND, encoder=ENCODER)
    right = [p == t for p, t in zip(predictor.predict(HELD_OUT.texts), HELD_OUT.targets, strict=True)]
    assert np.mean(right) > 0.9
    proba = predictor.predict_proba(HELD_OUT.texts)
    assert proba.shape == (60, 3)
    assert np.allclose(proba.sum(axis=1), 1)
    assert predictor.labels == ("money", "sports", "tech")


def test_source_weight_zero_is_real_only_bit_for_bit():
    assert np.array_equal(weights_of(source_weight(0.0)), weights_of(train_model(REAL, encoder=ENCODER)))


def test_source_weight_one_is_pooled_bit_for_bit():
    assert np.array_equal(weights_of(source_weight(1.0)), weights_of(train_model(BLEND, encoder=ENCODER)))


def test_a_source_weight_between_changes_the_model():
    found = weights_of(source_weight(0.5))
    assert not np.array_equal(found, weights_of(source_weight(0.0)))
    assert not np.array_equal(found, weights_of(source_weight(1.0)))


@pytest.mark.parametrize("loss", LOSSES)
def test_no_training_has_a_draw(loss):
    assert is_deterministic("probe", loss) and not is_deterministic("encoder", loss)
    one, other = (
        weights_of(train_model(BLEND, encoder=ENCODER, settings=TrainSettings(loss=loss, seed=seed))) for seed in (1, 2)
    )
    assert np.array_equal(one, other)
    assert not is_deterministic("probe", "mine:Loss") and not is_deterministic("mine:trainer", loss)


def test_the_penalty_changes_the_model_and_is_that_of_scikit_learn_where_none_is_given():
    base, changed = (train_model(BLEND, encoder=ENCODER, settings=TrainSettings(l2=l2)) for l2 in (None, 0.1))
    assert not np.array_equal(weights_of(base), weights_of(changed))
    assert (base.settings.l2, changed.settings.l2) == (1.0, 0.1)


IDLE = {"model": "x", "device": "x", "precision": "float32", "packing": True, "gradient_checkpointing": True}
NUMBERS = [
    "steps",
    "batch_size",
    "learning_rate",
    "head_learning_rate",
    "max_length",
    "lora_rank",
    "lora_alpha",
    "accumulate",
    "checkpoint_every",
    "patience",
]


@pytest.mark.parametrize("name", [*IDLE, *NUMBERS, "evaluate_every", "temperature"])
def test_settings_of_fine_tuning_are_refused(name):
    settings = TrainSettings(**{name: IDLE.get(name, 1)})
    with pytest.raises(ConfigError, match=f"trainer 'probe' has no {name}"):
        train_model(BLEND, encoder=ENCODER, settings=settings)


def test_saved_and_read_back_it_predicts_the_same(tmp_path):
    predictor = train_model(BLEND, encoder=ENCODER)
    predictor.save(tmp_path / "probe")
    again = load_predictor(tmp_path / "probe")
    assert isinstance(again, Predictor)
    assert np.array_equal(predictor.predict_proba(HELD_OUT.texts), again.predict_proba(HELD_OUT.texts))
    assert (again.labels, again.settings) == (predictor.labels, predictor.settings)
    assert not list((tmp_path / "probe").glob(".*"))


class OtherEncoder(HashingEncoder):
    hash = "another"


def test_broken_predictors_get_one_line(tmp_path):
    with pytest.raises(InputError, match=r"no predictor\.json here"):
        load_predictor(tmp_path)
    train_model(BLEND, encoder=ENCODER).save(tmp_path)
    with pytest.raises(InputError, match="not on 'hashing'"):
        load_predictor(tmp_path, encoder=OtherEncoder())
    (tmp_path / "probe.npz").unlink()
    with pytest.raises(InputError, match=r"probe\.npz cannot be loaded"):
        load_predictor(tmp_path)
    description = json.loads((tmp_path / "predictor.json").read_text())
    for change, message in (({"kind": "prob"}, "did you mean 'probe'"), ({"format": 1}, "format 1 is not 2")):
        (tmp_path / "predictor.json").write_text(json.dumps(description | change))
        with pytest.raises(InputError, match=message):
            load_predictor(tmp_path)
    (tmp_path / "predictor.json").write_text("{")
    with pytest.raises(InputError, match=r"predictor\.json: broken"):
        load_predictor(tmp_path)


def test_progress_ends_with_the_training_loss():
    seen = []
    train_model(BLEND, encoder=ENCODER, progress=lambda *event: seen.append(event))
    assert seen[-1][:2] == (1, 1)
    assert 0 < seen[-1][2] < 0.7


def test_progress_counts_the_loss_and_not_cross_entropy():
    seen = []
    settings = TrainSettings(loss="gce", l2=100.0)
    train_model(BLEND, encoder=ENCODER, settings=settings, progress=lambda *event: seen.append(event))
    assert 0 < seen[-1][2] < (1 - (1 / 3) ** 0.7) / 0.7 + 0.05


def test_a_probe_writes_no_checkpoints(tmp_path):
    with pytest.raises(ConfigError, match="trainer 'probe' writes no checkpoints"):
        train_model(BLEND, encoder=ENCODER, folder=tmp_path)


def test_what_cannot_be_trained_on():
    one_label = BLEND.keep([t == "tech" for t in BLEND.targets])
    with pytest.raises(TrainingError, match=r"one label only \('tech'\)"):
        train_model(one_label, encoder=ENCODER)
    with pytest.raises(TrainingError, match="no rows to train on"):
        train_model(POOL, encoder=ENCODER, settings=TrainSettings(loss="source_weight", source_weight=0.0))
    with pytest.raises(ConfigError, match="trainer 'probe' is not for task 'generation'; set trainer: causal"):
        train_model(Corpus(REAL.table, "generation"), encoder=ENCODER)
    with pytest.raises(ConfigError, match="trainer 'causal' is not for task 'classification'; set trainer: probe or"):
        train_model(REAL, trainer="causal")


def test_unknown_names_get_the_nearest():
    with pytest.raises(ConfigError, match="unknown trainer 'prob'; did you mean 'probe'"):
        train_model(REAL, trainer="prob")
    with pytest.raises(ConfigError, match="unknown loss 'cee'; did you mean 'ce'"):
        train_model(REAL, loss="cee")
    with pytest.raises(ValueError, match="settings is given"):
        train_model(REAL, settings=TrainSettings(), seed=3)


def test_the_tables_hold_what_they_promise():
    assert sorted(TRAINERS) == ["causal", "command", "encoder", "probe", "retriever", "setfit"]
    assert {name for names in TASKS.values() for name in names} == set(TRAINERS)
    assert sorted(LOSSES) == [
        "agreement_filter",
        "ce",
        "checker_alone",
        "curriculum",
        "dimp",
        "gce",
        "imp",
        "sce",
        "source_weight",
        "tce",
    ]


@pytest.mark.trust("own_trainer_room")
def test_an_own_trainer_is_found_by_module_and_name(tmp_path, monkeypatch):
    (tmp_path / "own_trainer_room.py").write_text(
        "from cuvee.train.probe import train_probe\n"
        "def train_known(training):\n"
        "    assert len(training.loss.weights) == len(training.corpus)\n"
        "    return train_probe(training)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    predictor = train_model(BLEND, trainer="own_trainer_room:train_known", encoder=ENCODER)
    assert predictor.labels == ("money", "sports", "tech")
