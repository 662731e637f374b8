"""``cuvee train`` on plain files: every loss and setting reaches the model, and what does not fit is one line."""

import json

import numpy as np
import pytest

from command_line import call, refused
from cuvee.corpus import Corpus, write_corpus
from cuvee.train import LOSSES

pytestmark = pytest.mark.slow  # each is quick, together they are not


@pytest.fixture
def blend(tmp_path):
    """Real and synthetic rows of two labels; a third of the synthetic labels are wrong."""
    rng = np.random.default_rng(0)
    words = {"fruit": ["apple", "pear", "plum", "grape"], "tool": ["saw", "drill", "hammer", "nail"]}
    rows = []
    for i in range(60):
        label = ("fruit", "tool")[i % 2]
        text = f"{rng.choice(words[label])} {rng.choice(words[label])} number {i}"
        origin = "real" if i < 20 else "synthetic"
        wrong = origin == "synthetic" and i % 3 == 0
        rows.append({"text": text, "target": ("tool", "fruit")[i % 2] if wrong else label, "origin": origin})
    path = tmp_path / "blend.parquet"
    write_corpus(Corpus.from_rows(rows), path)
    real = tmp_path / "real.parquet"
    write_corpus(Corpus.from_rows([{**row, "text": f"{row['text']} again"} for row in rows[:20]]), real)
    return path, real


def fit(capsys, *arguments):
    code, out, err = call(capsys, "train", *arguments, "--encoder", "hashing", "--json")
    assert code == 0, err
    return json.loads(out)


def read_weights(folder):
    with np.load(folder / "probe.npz") as stored:
        return stored["weights"].copy()


@pytest.mark.slow
def test_every_loss_trains_another_probe_and_says_what_it_took(blend, tmp_path, capsys):
    path, _ = blend
    seen = {}
    for loss in sorted(set(LOSSES)):
        given = ["--set", "gamma=0.4"] if loss == "tce" else []  # no row is surer than the usual 0.9
        made = fit(capsys, path, "--loss", loss, *given, "--out", tmp_path / loss)
        assert made["settings"]["loss"] == loss
        seen[loss] = read_weights(tmp_path / loss)
    assert made["rows"] == 60
    different = [name for name, weights in seen.items() if not np.array_equal(weights, seen["ce"])]
    # a chosen source weight may be 1, which is ce
    assert set(LOSSES) - set(different) <= {"ce", "source_weight"}


@pytest.mark.parametrize(
    ("loss", "setting", "values"),
    [("gce", "q", (0.2, 0.9)), ("sce", "beta", (0, 1)), ("dimp", "gamma", (0.2, 2)), ("imp", "clip", (0.5, 5)),
     ("curriculum", "pull", (0, 50)), ("ce", "l2", (0.1, 5))],
)  # fmt: skip
def test_a_setting_changes_the_model(blend, tmp_path, capsys, loss, setting, values):
    found = []
    for value in values:
        made = fit(capsys, blend[0], "--loss", loss, "--set", f"{setting}={value}", "--out", tmp_path / f"m{value}")
        assert made["settings"][setting] == value
        found.append(read_weights(tmp_path / f"m{value}"))
    assert not np.array_equal(*found)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--loss", "gcee"], "did you mean 'gce'"),
        (["--trainer", "retriever"], "retriever"),
        (["--trainer", "causal"], "causal"),
        (["--set", "gama=1"], "did you mean 'gamma'"),
        (["--set", "gamma"], "give NAME=VALUE"),
        (["--set", "steps=3"], "--steps"),
        (["--set", "batch_size=many"], "--set batch_size=many"),
        (["--set", "batch_size=8"], "batch_size is 8, but trainer 'probe' has no batch_size; it is fitted to its opt"),
        (["--loss", "curriculum", "--set", "synthetic_share=0.2"], "synthetic_share is 0.2, but trainer 'probe'"),
        (["--steps", 40], "steps is 40, but trainer 'probe' has no steps; it is fitted to its optimum"),
        (["--seed", 4], "--seed has no effect here: the trainer 'probe' is fitted to its optimum"),
        (["--set", "q=7"], "q is 7"),
        (["--set", "q=0.5"], "q"),
        (["--set", "lora_rank=8"], "lora_rank"),
        (["--task", "translation"], "'translation' is not one of"),
    ],
)
def test_what_does_not_fit_is_one_line(blend, tmp_path, capsys, options, says):
    said = refused(capsys, "train", blend[0], "--encoder", "hashing", "--out", tmp_path / "model", *options)
    assert says in said, said
    assert not (tmp_path / "model").exists()


def test_validation_rows_without_early_stopping_are_refused(blend, tmp_path, capsys):
    given = ["train", blend[0], "--validation", blend[1], "--out", tmp_path / "model"]
    assert "--validation has no effect here" in refused(capsys, *given, "--encoder", "hashing")
    encoder = ["--trainer", "encoder", "--loss", "ce"]
    assert "add --set patience=3" in refused(capsys, *given, *encoder)
    given[3] = "nowhere.jsonl"
    assert "nowhere.jsonl: no such file" in refused(capsys, *given, *encoder, "--set", "patience=2")


def test_by_itself_the_weight_of_synthetic_rows_is_chosen_where_real_rows_allow_it(blend, tmp_path, capsys):
    made = fit(capsys, blend[0], "--out", tmp_path / "model")
    assert made["settings"]["loss"] == "source_weight" and 0 <= made["settings"]["source_weight"] <= 1
    assert fit(capsys, blend[1], "--out", tmp_path / "real")["settings"]["loss"] == "ce"
    few = tmp_path / "few.parquet"
    rows = [
        ("apple pie", "a", "real"),
        ("saw blade", "b", "real"),
        ("pear tart", "a", "synthetic"),
        ("bit", "b", "synthetic"),
    ]
    write_corpus(Corpus.from_rows([{"text": t, "target": y, "origin": o} for t, y, o in rows]), few)
    assert fit(capsys, few, "--out", tmp_path / "few")["settings"]["loss"] == "ce"
