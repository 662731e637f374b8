"""What every loss of the table promises, and which settings each takes."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder
from cuvee.errors import ConfigError, TrainingError
from cuvee.similarity import unit_rows
from cuvee.train import LOSSES, TrainSettings, train_model
from cuvee.train.losses import SETTINGS, build_loss
from cuvee.train.weighting import TrainingRows


class NarrowEncoder(HashingEncoder):
    """64 of the 512 dimensions: quicker."""

    hash, dim = "narrow", 64

    def encode(self, texts):
        return unit_rows(super().encode(texts)[:, : self.dim])


ENCODER = NarrowEncoder()
WORDS = {"sports": "goal match team league", "tech": "chip phone code server", "money": "bank shares loan budget"}


def rows_of(real=4, synthetic=6, task="classification"):
    rng = np.random.default_rng(1)
    parts = [
        Corpus.from_rows(
            [{"text": " ".join(rng.permutation(w.split())), "target": k} for _ in range(n) for k, w in WORDS.items()],
            origin=origin,
        )
        for n, origin in ((real, "real"), (synthetic, "synthetic"))
    ]
    corpus = Corpus(parts[0].joined(parts[1]).table, task)
    marks = np.array([o == "synthetic" for o in corpus.origins], dtype=bool)
    return TrainingRows(corpus=corpus, synthetic=marks, encode=ENCODER.encode, seed=0)


@cache
def prepare(name):
    """Prepared once, for the tests that do not change it."""
    return build_loss(TrainSettings(loss=name)).prepare(rows_of())


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_keeps_the_promises_of_the_protocol(name):
    rows, loss = rows_of(), prepare(name)
    assert loss.kept.shape == (30,)
    assert loss.kept[~rows.synthetic].all()
    count = int(loss.kept.sum())
    assert loss.weights.shape == (count,)
    assert (loss.weights > 0).all()
    assert np.isfinite(loss.weights).all()
    assert sum(phase.share for phase in loss.phases) == pytest.approx(1)
    assert sorted(np.concatenate([phase.rows for phase in loss.phases])) == list(range(count))
    for phase in loss.phases:
        log_p = np.log(np.linspace(0.01, 0.99, len(phase.rows)))
        slopes, values = loss.slopes(phase.rows, log_p), loss.values(phase.rows, log_p)
        assert slopes.shape == values.shape == log_p.shape
        assert (slopes <= 0).all()  # a more probable label is never worse
        assert (slopes < 0).any()
        assert np.isfinite(slopes).all()
        assert np.isfinite(values).all()


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_breaks_at_the_ends_of_probability(name):
    loss = prepare(name)
    part = loss.phases[0].rows[:3]
    for log_p in (0.0, -1e-12, -800.0):
        assert np.isfinite(loss.slopes(part, np.full(3, log_p))).all()
        assert np.isfinite(loss.values(part, np.full(3, log_p))).all()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_trains_and_says_all_it_took(name):
    rows = rows_of()
    predictor = train_model(rows.corpus, encoder=ENCODER, settings=TrainSettings(loss=name))
    own = {key: getattr(predictor.settings, key) for key in SETTINGS[name]}
    assert [key for key in own if own[key] is None] == (["synthetic_share"] if name == "curriculum" else [])
    others = {key for names in SETTINGS.values() for key in names} - set(own)
    assert {getattr(predictor.settings, key) for key in others} <= {None}
    assert predictor.predict(["goal match team"]) == ["sports"]


@pytest.mark.parametrize("name", LOSSES)
def test_without_synthetic_rows_every_loss_trains_on_the_real_ones(name):
    rows = rows_of(synthetic=0)
    loss = build_loss(TrainSettings(loss=name)).prepare(rows)
    assert loss.kept.all()
    if name not in ("gce", "sce", "tce"):
        assert np.array_equal(loss.slopes(np.arange(12), np.full(12, -1.0)), -np.ones(12))


CHANGES = [(loss, name) for loss, names in SETTINGS.items() for name in names]


@pytest.mark.parametrize(("name", "setting"), CHANGES)
def test_every_setting_of_a_loss_changes_what_it_does(name, setting):
    other = {"source_weight": 0.3, "clip": 0.5, "q": 0.2, "synthetic_share": 0.3, "gamma": 0.5}.get(setting, 2.0)
    rows = rows_of()
    found = []
    for settings in (TrainSettings(loss=name), TrainSettings(loss=name, **{setting: other})):
        loss = build_loss(settings).prepare(rows)
        part = np.arange(int(loss.kept.sum()))
        found.append(
            [loss.slopes(part, np.linspace(-3, -0.1, len(part))).tolist(), [(p.share, p.pull) for p in loss.phases]]
        )
    assert found[0] != found[1]


def test_source_weight_weighs_synthetic_rows_alone():
    rows = rows_of()
    loss = build_loss(TrainSettings(loss="source_weight", source_weight=0.3)).prepare(rows)
    assert np.array_equal(loss.weights, np.where(rows.synthetic, 0.3, 1.0))
    slopes = loss.slopes(np.arange(30), np.full(30, -1.0))
    assert slopes.mean() == pytest.approx(-1)
    assert slopes[-1] / slopes[0] == pytest.approx(0.3)


def test_weight_one_is_cross_entropy_and_weight_zero_drops_the_rows():
    rows = rows_of()
    one, plain, zero = (
        build_loss(s).prepare(rows)
        for s in (
            TrainSettings(loss="source_weight", source_weight=1.0),
            TrainSettings(),
            TrainSettings(loss="source_weight", source_weight=0.0),
        )
    )
    assert np.array_equal(one.weights, plain.weights)
    assert np.array_equal(zero.kept, ~rows.synthetic)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TrainSettings(loss="ce", source_weight=0.5), "loss 'ce' has none; set loss: source_weight"),
        (TrainSettings(loss="gce", clip=2.0), "clip is 2.0, but loss 'gce' has none; set loss: imp or dimp"),
        (TrainSettings(loss="imp", gamma=2.0), "gamma is 2.0, but loss 'imp' has none; set loss: dimp"),
        (TrainSettings(loss="tce", gamma=2.0), "of loss 'tce' it is a probability"),
        (TrainSettings(loss="sce", alpha=0.0, beta=0.0), "alpha and beta of 0"),
        (TrainSettings(loss="source_weight", source_weight=-1.0), "needs source_weight"),
        (TrainSettings(loss="source_weight", source_weight=float("nan")), "needs source_weight"),
        (TrainSettings(loss="source_wieght"), "unknown loss 'source_wieght'; did you mean 'source_weight'"),
        (TrainSettings(loss="no_such_module:Loss"), "cannot be loaded"),
    ],
)
@pytest.mark.trust("no_such_module")
def test_losses_that_do_not_fit_their_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_loss(settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": True}, "steps is True"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"l2": 0.0}, "l2 is 0.0"),
        ({"head_learning_rate": float("inf")}, "head_learning_rate is inf"),
        ({"max_length": 1.5}, "max_length is 1.5"),
        ({"gamma": 0.0}, "gamma is 0.0"),
        ({"clip": float("nan")}, "clip is nan"),
        ({"q": 0.0}, "q is 0.0; it must be above 0, at most 1"),
        ({"q": 1.1}, "q is 1.1"),
        ({"alpha": -0.1}, "alpha is -0.1"),
        ({"beta": float("inf")}, "beta is inf"),
        ({"pull": -1.0}, "pull is -1.0"),
        ({"synthetic_share": 1.0}, "synthetic_share is 1.0"),
        ({"lora_rank": 0}, "lora_rank is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"precision": "float8"}, "precision is 'float8'; valid: auto, float32, bfloat16"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainSettings(**arguments)


@pytest.mark.parametrize("name", ["imp", "dimp", "agreement_filter", "source_weight"])
def test_losses_with_a_checker_need_one_and_real_rows(name):
    loss = build_loss(TrainSettings(loss=name))
    with pytest.raises(ConfigError, match=f"loss '{name}' needs a checker of its own for task 'generation'"):
        loss.prepare(rows_of(task="generation"))
    with pytest.raises(TrainingError, match="at least two labels; they have none"):
        loss.prepare(rows_of(real=0))


def test_too_few_real_rows_to_choose_a_weight():
    rows = rows_of()
    few = [list(rows.corpus.targets).index("sports"), list(rows.corpus.targets).index("tech")]
    places = [*few, *np.flatnonzero(rows.synthetic)]
    small = dataclasses.replace(rows, corpus=rows.corpus.take(places), synthetic=rows.synthetic[places])
    with pytest.raises(TrainingError, match="the 2 real rows are too few to choose source_weight"):
        build_loss(TrainSettings(loss="source_weight")).prepare(small)


@pytest.mark.trust("own_loss_room")
def test_an_own_loss_is_found_by_module_and_name(tmp_path, monkeypatch):
    (tmp_path / "own_loss_room.py").write_text(
        "from cuvee.probe import WeightedRows\n"
        "class Halved:\n"
        "    def __init__(self, settings): pass\n"
        "    def prepare(self, rows): return WeightedRows(1.0 - 0.5 * rows.synthetic)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    corpus = rows_of().corpus
    own = train_model(corpus, encoder=ENCODER, settings=TrainSettings(loss="own_loss_room:Halved"))
    same = train_model(corpus, encoder=ENCODER, settings=TrainSettings(loss="source_weight", source_weight=0.5))
    assert np.array_equal(own.model.weights, same.model.weights)
