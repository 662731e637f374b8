"""``cuvee predict`` and ``cuvee evaluate`` for models of all three tasks."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
import pytest

from command_line import call, refused
from cuvee.corpus import load_corpus
from cuvee.corpus.formats import read_table
from cuvee.encoders import load_encoder
from cuvee.study.running import measure_written
from cuvee.train import TrainSettings, load_predictor, model, train_model
from cuvee.train.settings import Description, write_description

pytestmark = pytest.mark.slow  # each is quick, together they are not


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A probe on hashed n-grams, another trained less, and the rows they are asked about."""
    folder = tmp_path_factory.mktemp("probe")
    words = {"sports": "goal match team league", "tech": "software chip phone code", "[x]": "bread salt oven flour"}
    rng = np.random.default_rng(0)
    rows = [
        {"sentence": " ".join(rng.permutation(text.split())[:3]), "kind": label, "page": i // 2}
        for label, text in words.items()
        for i in range(10)
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    corpus = load_corpus(path, text="sentence", label="kind")
    for name, l2 in (("long", 0.1), ("short", 300.0)):
        train_model(corpus, encoder=load_encoder("hashing"), settings=TrainSettings(l2=l2)).save(folder / name)
    return folder


class Words:
    """A model without weights, for the tasks whose real ones are tested elsewhere: it copies, and counts letters."""

    settings = TrainSettings()

    def write(self, prompts, *, max_tokens, temperature, seed):
        self.told = (max_tokens, temperature, seed)
        return [f"{' '.join(p.split()[:max_tokens])} {temperature:g}" for p in prompts]

    def log_likelihood(self, prompts, completions):
        counts = np.array([[-2.0, 1.0] for _ in prompts])
        return counts * np.array([[len(c.split())] for c in completions])

    def save(self, folder):
        raise NotImplementedError(folder)


class Letters:
    """Vectors that count letters."""

    settings = TrainSettings()

    def encode_queries(self, texts):
        counts = np.array([[t.casefold().count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts], dtype=float)
        return (counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    encode_passages = encode_queries

    def save(self, folder):
        raise NotImplementedError(folder)


@pytest.fixture
def folder_of(tmp_path, monkeypatch):
    """Makes a model folder that opens as one of these."""

    def make(predictor, name="model"):
        monkeypatch.setitem(model.TRAINERS, name, SimpleNamespace(load=lambda *_: predictor))
        (tmp_path / name).mkdir()
        write_description(tmp_path / name, Description(kind=name, labels=(), settings=TrainSettings(), extra={}))
        return tmp_path / name

    return make


@pytest.fixture
def asked(tmp_path):
    rows = [
        {"question": "abba", "passage": "aabb", "about": "letters"},
        {"question": "ccd", "passage": "ccdd", "about": "letters"},
        {"question": "xyz", "passage": "xyzz", "about": None},
    ]
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def test_labels_and_their_probabilities_are_written_beside_the_rows(labelled, tmp_path, capsys):
    out = tmp_path / "out.csv"
    code, told, err = call(
        capsys, "predict", labelled / "long", labelled / "rows.jsonl", "--text", "sentence", "--out", out
    )
    assert code == 0 and "predicted 30 rows" in told and "predict" in err
    table = pa_csv.read_csv(out)
    probabilities = ["probability_[x]", "probability_sports", "probability_tech"]
    assert table.column_names == ["sentence", "kind", "page", "predicted", "probability", *probabilities]
    expected = load_predictor(labelled / "long").predict_proba(table["sentence"].to_pylist())
    assert np.stack([table[name].to_numpy() for name in probabilities], axis=1) == pytest.approx(expected)
    assert table["probability"].to_numpy() == pytest.approx(expected.max(axis=1))
    assert (
        np.mean([a == b for a, b in zip(table["kind"].to_pylist(), table["predicted"].to_pylist(), strict=True)]) > 0.9
    )


def test_rows_are_predicted_in_chunks_in_their_order(labelled, tmp_path, capsys):
    rows = [r for r in read_table(labelled / "rows.jsonl").to_pylist() for _ in range(20)]
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    call(capsys, "predict", labelled / "long", path, "--text", "sentence", "-o", tmp_path / "m.parquet")
    found = pa_parquet.read_table(tmp_path / "m.parquet")
    assert found["sentence"].to_pylist() == [r["sentence"] for r in rows]
    assert found["predicted"].to_pylist() == load_predictor(labelled / "long").predict(found["sentence"].to_pylist())


def test_completions_see_the_context_and_the_options(folder_of, asked, tmp_path, capsys):
    writer, out = Words(), tmp_path / "o.jsonl"
    base = ["predict", folder_of(writer), asked, "--context", "about", "--out", out]
    code, told, _ = call(capsys, *base, "--max-tokens", 2, "--temperature", 0.5, "--json")
    assert (code, json.loads(told)) == (0, {"out": str(out), "task": "generation", "rows": 3, "written": 3})
    assert read_table(out)["predicted"].to_pylist() == ["letters abba 0.5", "letters ccd 0.5", "xyz 0.5"]
    seed = writer.told[2]
    call(capsys, *base, "--seed", 1)
    assert writer.told[:2] == (64, 0.0) and writer.told[2] != seed


def test_the_best_passages_are_written_a_row_each(folder_of, asked, tmp_path, capsys):
    out = tmp_path / "o.csv"
    base = ["predict", folder_of(Letters()), asked, "--out", out]
    code, _, _ = call(capsys, *base, "--passages", asked, "--passage", "passage", "--top", 2)
    table = pa_csv.read_csv(out)
    assert code == 0 and table.num_rows == 6
    assert table.column_names == ["question", "passage", "about", "rank", "predicted", "similarity"]
    assert table["question"].to_pylist() == ["abba", "abba", "ccd", "ccd", "xyz", "xyz"]
    assert table["predicted"].to_pylist()[::2] == ["aabb", "ccdd", "xyzz"]
    assert table["rank"].to_pylist() == [1, 2] * 3 and table["similarity"].to_pylist()[0] == pytest.approx(1)


def test_evaluate_compares_two_models_label_by_label(labelled, capsys):
    data = ["--text", "sentence", "--label", "kind"]
    base = ["evaluate", labelled / "long", labelled / "rows.jsonl", *data]
    code, out, _ = call(capsys, *base, "--compare", labelled / "short", "--per-label", "--json")
    found = json.loads(out)
    assert code == 0 and found["n"] == 30 and found["accuracy"]["interval"] == "wilson"
    assert set(found["labels"]) == {"[x]", "sports", "tech"} == set(found["matrix"]["labels"])
    assert found["labels"]["tech"]["support"] == 10 == sum(found["matrix"]["counts"][2])
    difference = found["difference"]["log_loss"]
    assert difference["value"] < 0 and difference["p_value"] < 0.01 and difference["settings"]["groups"] == 30
    assert difference["settings"]["first"] == pytest.approx(found["log_loss"]["value"])
    code, out, _ = call(capsys, *base, "--compare", labelled / "short", "--per-label")
    assert code == 0 and "[x]" in out and "macro_f1" in out and "less" in out and "recall" in out
    grouped = json.loads(call(capsys, *base, "--group", "page", "--json")[1])
    assert "groups" in grouped["brier"]["interval"] and "labels" not in grouped


def test_evaluate_a_writer_and_the_diversity_of_what_it_writes(folder_of, asked, capsys):
    base = ["evaluate", folder_of(Words()), asked, "--text", "question", "--label", "passage", "--json"]
    found = json.loads(call(capsys, *base, "--context", "about", "--encoder", "hashing")[1])
    assert found["n"] == 3 and found["perplexity"]["value"] == pytest.approx(np.exp(2))
    assert "diversity.distinct_2" not in found  # every real completion is one word
    for name in ("vendi_q1", "compression_ratio"):
        assert found[f"diversity.{name}"]["n"] == found[f"diversity.{name}.real"]["n"] == 3
    assert found["diversity.vendi_q1"]["settings"]["temperature"] == 1.0
    assert not any(name.startswith("diversity") for name in json.loads(call(capsys, *base, "--no-diversity")[1]))


def test_an_empty_completion_is_measured_as_a_text():
    found = measure_written(load_encoder("hashing"), 0)(["", "", "bread"])
    assert 1 < found["vendi_q1"] < 3


def test_evaluate_a_ranker_with_more_passages(folder_of, asked, tmp_path, capsys):
    base = ["evaluate", folder_of(Letters()), asked, "--text", "question", "--label", "passage", "--json"]
    found = json.loads(call(capsys, *base)[1])
    assert (found["n"], found["recall@1"]["value"]) == (3, 1.0)
    more = tmp_path / "more.csv"
    more.write_text("text\nbaab\nabab\nxyz\n", encoding="utf-8")
    wider = json.loads(call(capsys, *base, "--passages", more)[1])
    assert wider["recall@1"]["value"] == pytest.approx((1 / 3 + 1 + 0) / 3)  # two equals of "aabb", one better "xyz"


def test_what_does_not_fit_is_one_line(labelled, folder_of, asked, tmp_path, capsys):
    rows, out = labelled / "rows.jsonl", tmp_path / "o.csv"
    probe = [labelled / "long", rows, "--text", "sentence"]
    assert "unknown kind of file" in refused(capsys, "predict", *probe, "--out", tmp_path / "o.txt")
    assert "--top has no effect" in refused(capsys, "predict", *probe, "--out", out, "--top", 3)
    assert "--max-tokens has no effect" in refused(capsys, "evaluate", *probe, "--label", "kind", "--max-tokens", 3)
    call(capsys, "predict", *probe, "--out", out)
    again = refused(capsys, "predict", labelled / "long", out, "--text", "sentence", "--out", tmp_path / "p.csv")
    assert "has a column 'predicted' already" in again
    ranker, writer = folder_of(Letters(), "ranks"), folder_of(Words(), "writes")
    assert "which? give a file" in refused(capsys, "predict", ranker, asked, "--out", out)
    assert "--per-label has no effect" in refused(capsys, "evaluate", ranker, asked, "--per-label")
    assert "is a model for generation; give one for classification" in refused(
        capsys, "evaluate", *probe, "--label", "kind", "--compare", writer
    )
    assert "no such file" in refused(capsys, "predict", writer, tmp_path / "gone.csv", "--out", out)
    assert "no predictor.json" in refused(capsys, "predict", tmp_path, rows, "--out", out)
