"""Losses that learn from real rows, in studies whose baselines have none."""

import pytest

from cuvee.study.opening import open_study

pytestmark = pytest.mark.slow  # each is quick, together they are not


def test_synthetic_rows_alone_are_trained_with_ce_where_the_loss_learns_from_real_rows(settings, tmp_path):
    base = {**settings, "dials": [{"name": "sampling", "levels": [0.3, 1.2]}]}

    def accuracies(name, **train):
        with open_study({**base, "train": train}, out=tmp_path / name) as flow:
            assert not [outcome for outcome in flow.grid if not hasattr(outcome, "scores")]
            return {
                kind: [t.scores.values["accuracy"].value for t in flow.grid if t.cell.kind == kind]
                for kind in ("blend", "synthetic-only")
            }

    plain = accuracies("ce")
    careful = accuracies("dimp", loss="dimp", settings={"gamma": 2.0})
    assert careful["synthetic-only"] == plain["synthetic-only"]
    assert careful["blend"] != plain["blend"]
