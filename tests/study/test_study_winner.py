"""The last step of a study: the model of what it advises, trained, kept, and used."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from test_study_command import LINE
from test_study_run import files, make_rows, write_pools

import cuvee
from command_line import call
from cuvee.corpus.formats import read_table
from cuvee.errors import ConfigError, TrialsAwaited
from cuvee.records.advice import Lean
from cuvee.study.grids import rows_at_hand
from cuvee.study.opening import open_study, run_study
from cuvee.study.outputs import find_advised, train_advised

pytestmark = [pytest.mark.slow, pytest.mark.trust("command", __name__)]  # each is quick, together they are not


@pytest.fixture
def ready(settings, tmp_path):
    write_pools(tmp_path, {"low.jsonl": make_rows("low"), "high.jsonl": make_rows("high", groups=24, each=1)})
    return files(settings, low=tmp_path / "low.jsonl", high=tmp_path / "high.jsonl")


def test_the_winner_is_trained_on_all_real_rows_but_the_locked_ones_kept_and_used(ready, tmp_path, capsys):
    assert run_study(ready, out=tmp_path / "run").model is None and not (tmp_path / "run" / "model").exists()
    result = run_study(ready | {"train_winner": True}, out=tmp_path / "run")
    assert result.model == tmp_path / "run" / "model" and f"model: {result.model}" in str(result)
    written = (result.model / "predictor.json").stat().st_mtime_ns
    winner = cuvee.train_winner(tmp_path / "run")
    assert winner.folder == result.model
    assert (result.model / "predictor.json").stat().st_mtime_ns == written  # it lies there: nothing is trained
    with open_study(ready, out=tmp_path / "run") as flow:
        split, locked = flow.study.split, flow.study.split.test.open_for_confirmation()
        assert winner.real == len(split.at_hand) + len(split.validation) > len(split.train) + len(split.validation)
        assert winner.real + len(locked) <= 150
    card = (result.model / "README.md").read_text(encoding="utf-8")
    assert "**Verdict: not settled.**" in card and f"{winner.real} real rows for training and validation" in card
    assert "the 45 rows of the locked test are not among them" in card and "`hashing`" not in card
    # used on the rows of a user's own file, whose columns stay
    table = "number,text\n1,late goal wins the cup final\n2,bank cuts interest rates\n"
    (tmp_path / "mine.csv").write_text(table, encoding="utf-8")
    code, _, err = call(capsys, "predict", result.model, tmp_path / "mine.csv", "--out", tmp_path / "out.csv")
    assert code == 0, err
    found = read_table(tmp_path / "out.csv")
    assert found.column_names[:4] == ["number", "text", "predicted", "probability"]
    assert set(found.column_names[4:]) == {"probability_business", "probability_politics", "probability_sports"}
    assert cuvee.evaluate_model(cuvee.load_predictor(result.model), locked).values["accuracy"].value > 0.6
    told = json.loads(call(capsys, "train", tmp_path / "run", "--json")[1])
    assert (told["real_rows"], told["synthetic_rows"]) == (winner.real, winner.synthetic)


def test_what_is_trained_follows_the_advice(ready, tmp_path):
    with open_study(ready, out=tmp_path / "run") as flow:
        advice, train = flow.advice, lambda advice: train_advised(flow, advice)
        cell = advice.best.cell
        used = train(replace(advice, decision="use"))
        pool = flow.pools[flow.find_level(cell)].corpus
        labels = Counter([*flow.study.split.at_hand.targets, *flow.study.split.validation.targets])
        had = Counter(rows_at_hand(pool).targets)
        assert used.cell == cell
        assert used.synthetic == sum(min(had[y], round(n * cell.amount)) for y, n in labels.items()) > 0
        assert f"{used.synthetic} synthetic rows" in used.said and cell.name in used.said
        before = (used.folder / "probe.npz").read_bytes()
        alone = train(replace(advice, decision="do-not-use"))
        assert (alone.cell, alone.synthetic, alone.real) == (None, 0, used.real)
        assert (alone.folder / "probe.npz").read_bytes() != before
        card = (alone.folder / "README.md").read_text(encoding="utf-8")
        assert "**Verdict: do not use.**" in card and "There are no synthetic rows" in card
        for gain, leans in ((0.02, cell), (-0.02, None)):
            open_yet = replace(advice, decision="underpowered", lean=Lean(cell=cell, probability=0.6, gain=gain))
            assert find_advised(open_yet) == leans


def keeps(blend, validation, seed, steps):
    def predict(texts):
        return [blend.labels[0] for _ in texts]

    def save(folder):
        rows = {"texts": blend.texts, "validation": validation.texts, "seed": seed, "steps": steps}
        (folder / "model.json").write_text(json.dumps(rows), encoding="utf-8")

    predict.save = save
    return predict


def keeps_nothing(blend, validation, seed, steps):
    return keeps(blend, validation, seed, steps).__call__


def test_trainers_of_the_users_own_are_handed_the_validation_rows_and_keep_their_model(ready, tmp_path):
    ready["draws"] = {"generation": 1, "sampling": 2, "training": 1, "confirm": 0}
    own = ready | {"train": {"trainer": f"{__name__}:keeps", "steps": 2}}
    with open_study(own, out=tmp_path / "own") as flow:
        made = train_advised(flow, flow.advice)
        kept = json.loads((made.folder / "model.json").read_text(encoding="utf-8"))
        assert set(kept["validation"]) == set(flow.study.split.validation.texts)
        assert not set(kept["texts"]) & set(kept["validation"]) and kept["steps"] == 2
        assert "rows for training; the 45 rows" in made.said
    bare = ready | {"train": {"trainer": f"{__name__}:keeps_nothing", "steps": 2}}
    with open_study(bare, out=tmp_path / "bare") as flow, pytest.raises(ConfigError, match=r"has no save\(folder\)"):
        train_advised(flow, flow.advice)
    with pytest.raises(ConfigError, match=r"train_winner needs a model with save\(folder\); that of trainer"):
        run_study(bare | {"train_winner": True}, out=tmp_path / "early")
    assert not (tmp_path / "early" / "pools").exists()  # before anything was done
    command = ready | {"train": {"trainer": "command", "steps": 2, "command": LINE}}
    with open_study(command, out=tmp_path / "run") as flow:
        made = train_advised(flow, flow.advice)
        votes = json.loads((made.folder / "votes.json").read_text(encoding="utf-8"))
        assert sum(sum(each.values()) for each in votes.values()) > len(flow.study.train)
        assert "program" not in (made.folder / "README.md").read_text(encoding="utf-8")
    elsewhere = ready | {"train": {"trainer": "command", "steps": 2, "command": {}}}
    with open_study(elsewhere, out=tmp_path / "run") as flow, pytest.raises(TrialsAwaited, match="run elsewhere"):
        train_advised(flow, flow.advice)
