import numpy as np
import pytest

from cuvee.errors import ConfigError
from cuvee.train import LOSSES, TrainSettings, build_loss

SYNTHETIC = np.array([False, True, True, False])
WELL_SET = {"ce": TrainSettings(), "source_weight": TrainSettings(loss="source_weight", source_weight=0.3)}


def test_source_weight_weighs_synthetic_rows_alone():
    found = build_loss(WELL_SET["source_weight"]).weigh_rows(SYNTHETIC)
    assert found.tolist() == [1.0, 0.3, 0.3, 1.0]


def test_weight_one_is_cross_entropy():
    one = build_loss(TrainSettings(loss="source_weight", source_weight=1.0)).weigh_rows(SYNTHETIC)
    assert np.array_equal(one, build_loss(TrainSettings()).weigh_rows(SYNTHETIC))


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_gives_usable_weights(name):
    weights = build_loss(WELL_SET[name]).weigh_rows(SYNTHETIC)
    assert weights.shape == (4,)
    assert weights.dtype == np.float64
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert (weights[~SYNTHETIC] == 1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TrainSettings(loss="ce", source_weight=0.5), "loss 'ce' has none"),
        (TrainSettings(loss="source_weight"), "needs source_weight"),
        (TrainSettings(loss="source_weight", source_weight=-1.0), "needs source_weight"),
        (TrainSettings(loss="source_weight", source_weight=float("nan")), "needs source_weight"),
        (TrainSettings(loss="source_wieght"), "unknown loss 'source_wieght'; did you mean 'source_weight'"),
        (TrainSettings(loss="no_such_module:Loss"), "cannot be loaded"),
    ],
)
def test_losses_that_do_not_fit_their_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_loss(settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"head_learning_rate": float("inf")}, "head_learning_rate is inf"),
        ({"max_length": 1.5}, "max_length is 1.5"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainSettings(**arguments)
