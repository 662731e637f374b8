"""``cuvee measure`` and ``cuvee compare``: files, vectors, pictures, and every kind of bad input."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command_line import call, refused
from cuvee.measure import METRICS
from cuvee.measure.measuring import STANDARD

pytestmark = pytest.mark.slow  # each is quick, together they are not

HASHING = ("--encoder", "hashing")
LACKING = {n for n in STANDARD if {"held_out", "pairs"} & set(METRICS[n].needs)}  # of headlines


@pytest.fixture
def texts(headlines, tmp_path):
    """Real rows; a synthetic file of three versions of each of some of them; the same without labels."""
    rows = [json.loads(line) for line in headlines.read_text(encoding="utf-8").splitlines()]
    made = [
        {"text": f"{r['text']} {tail}", "label": r["label"], "source": f"s{i}"}
        for i, r in enumerate(rows[k] for k in range(len(rows)) if k % 15 < 4)
        for tail in ("again today", "once more, they said", "at last")
    ]
    synthetic, plain = tmp_path / "synthetic.jsonl", tmp_path / "plain.jsonl"
    synthetic.write_text("".join(json.dumps(r) + "\n" for r in made), encoding="utf-8")
    plain.write_text("".join(json.dumps({"text": r["text"]}) + "\n" for r in made), encoding="utf-8")
    return headlines, synthetic, plain


@pytest.fixture
def vectors(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(120, 16)).astype(np.float32))
    np.save(tmp_path / "y.npy", (rng.normal(size=(90, 16)) + 0.5).astype(np.float32))
    return tmp_path / "x.npy", tmp_path / "y.npy"


@pytest.mark.slow
def test_numbers_of_a_file_with_all_that_goes_with_them(texts, tmp_path, capsys):
    real, synthetic, _ = texts
    page, rows = tmp_path / "page.html", tmp_path / "rows.csv"
    arguments = ["measure", synthetic, "--against", real, "--group", "source", "--by", "label", "--json"]
    code, out, _ = call(capsys, *arguments, "--page", page, "--examples", rows, *HASHING)
    found = json.loads(out)
    assert code == 0 and {n for n in STANDARD if n not in found} == LACKING
    assert {"id", "sentence", "remedy", "value", "yardstick", "source", "severity"} == set(found["findings"][0])
    assert "endings" in [each["id"] for each in found["findings"]]  # a third of the rows end alike
    assert "effective rows" in found["near_duplicate_rate"]["interval"]  # three rows of one source are not three
    assert set(found["parts"]) == {"business", "politics", "sports"}
    assert found["parts"]["sports"]["n"] + found["parts"]["business"]["n"] + found["parts"]["politics"]["n"] == 120
    shown = page.read_text(encoding="utf-8")
    assert "cuvee measure" in shown and "synthetic.jsonl" in shown and "<svg" in shown
    table = list(csv.DictReader(rows.read_text(encoding="utf-8").splitlines()))
    assert len(table) == 120
    assert sum(float(r["uniqueness"]) for r in table) == pytest.approx(found["dcscore_tau0.1"]["value"], rel=1e-4)
    assert {r["nearest_id"] for r in table} <= {r["id"] for r in table}


def test_any_column_of_the_file_makes_parts_of_the_rows_that_are_measured(texts, tmp_path, capsys):
    _, synthetic, _ = texts
    rows = [json.loads(line) for line in synthetic.read_text(encoding="utf-8").splitlines()]
    tails = tmp_path / "tails.jsonl"
    tails.write_text("".join(json.dumps(r | {"tail": k % 3}) + "\n" for k, r in enumerate(rows)), encoding="utf-8")
    for more, sizes in (((), {40}), (("--rows", 60), range(8, 33))):
        code, out, _ = call(
            capsys, "measure", tails, "--by", "tail", "--metric", "distinct_2", "--json", *more, *HASHING
        )
        parts = json.loads(out)["parts"]
        assert code == 0 and set(parts) == {"0", "1", "2"} and {p["n"] for p in parts.values()} <= set(sizes)
        assert sum(p["n"] for p in parts.values()) == (60 if more else 120)


def test_group_seed_rows_and_metric_change_what_they_say(texts, capsys):
    _, synthetic, _ = texts
    base = ["measure", synthetic, *HASHING, "--json", "--metric", "vendi_q1"]
    plain = json.loads(call(capsys, *base)[1])["vendi_q1"]
    grouped = json.loads(call(capsys, *base, "--group", "source")[1])["vendi_q1"]
    assert grouped["value"] == plain["value"] and grouped["low"] != plain["low"]
    assert "40 bins" in grouped["interval"] and "64 bins" in plain["interval"]
    assert json.loads(call(capsys, *base, "--seed", 4)[1])["vendi_q1"]["low"] != plain["low"]
    assert json.loads(call(capsys, *base, "--rows", 50)[1])["n"] == 50
    every = json.loads(call(capsys, "measure", synthetic, *HASHING, "--json", "--metric", "all")[1])
    assert {"vendi_q1", "self_bleu"} <= set(every) and "recall" not in every


def test_texts_need_no_label(texts, capsys):
    code, out, _ = call(capsys, "measure", texts[2], *HASHING, "--json")
    found = json.loads(out)
    assert code == 0 and found["n"] == 120 and "label_agreement" not in found


def test_vectors_alone(vectors, capsys):
    x, y = vectors
    code, out, _ = call(capsys, "measure", "--embeddings", x, "--against-embeddings", y, "--json")
    found = json.loads(out)
    assert code == 0 and found["encoder"] == "x.npy" and found["mmd"]["p_value"] < 0.05
    assert not [name for name in found if name in METRICS and "texts" in METRICS[name].needs]
    named = json.loads(call(capsys, "measure", "--embeddings", x, "--encoder", "clip", "--json")[1])
    assert named["encoder"] == "clip" and named["vendi_q1"] == found["vendi_q1"]
    assert named["fingerprint"] == found["fingerprint"]


def test_vectors_of_texts_and_from_parquet(texts, tmp_path, capsys):
    _, synthetic, _ = texts
    rows = np.random.default_rng(1).normal(size=(120, 8)).astype(np.float32)
    np.save(tmp_path / "v.npy", rows)
    pq.write_table(pa.table({"id": range(120), "vector": list(rows)}), tmp_path / "v.parquet", row_group_size=50)
    from_npy = json.loads(call(capsys, "measure", synthetic, "--embeddings", tmp_path / "v.npy", "--json")[1])
    from_parquet = json.loads(call(capsys, "measure", synthetic, "--embeddings", tmp_path / "v.parquet", "--json")[1])
    assert "self_bleu" in from_npy and from_npy["vendi_q1"]["value"] < 8.001
    assert from_npy["vendi_q1"] == from_parquet["vendi_q1"] and from_npy["fingerprint"] == from_parquet["fingerprint"]


# --- compare ------------------------------------------------------------------------------------------
def test_compare_files_at_equal_rows(texts, capsys):
    real, synthetic, _ = texts
    base = ["compare", real, synthetic, *HASHING, "--metric", "vendi_q1", "--metric", "self_bleu"]
    code, out, _ = call(capsys, *base, "--json", "--draws", 3)
    found = json.loads(out)
    assert code == 0 and found["rows"] <= 120 and found["names"] == [real.name, "synthetic.jsonl"]
    low, high = (found["differences"]["vendi_q1"][1][k] for k in ("low", "high"))
    assert low < found["values"]["vendi_q1"][1]["value"] - found["values"]["vendi_q1"][0]["value"] < high
    fewer = json.loads(call(capsys, *base, "--json", "--rows", 30, "--words", 4, "--no-match-lengths", "--draws", 2)[1])
    assert (fewer["rows"], fewer["words"], fewer["draws"]) == (30, 4, 2)
    code, out, _ = call(capsys, *base, "--draws", 2)
    assert code == 0 and "vendi_q1" in out and "synthetic.jsonl -" in out


def test_question_answer_and_pair_are_measured_apart_and_turns_by_role(tmp_path, capsys):
    questions, answers = ["why does it rain", "who is there", "how old is she"], ["since clouds form", "a cat", "seven"]
    rows = [
        {"messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": f"{questions[i % 3]} {i}?"},
            {"role": "assistant", "content": f"{answers[i % 3]} {i}"},
            {"role": "user", "content": f"and {questions[(i + 1) % 3]}?"},
            {"role": "assistant", "content": f"{answers[(i + 1) % 3]} again {i}"},
        ]}
        for i in range(40)
    ]  # fmt: skip
    chats, real = tmp_path / "chats.jsonl", tmp_path / "real.jsonl"
    for file, part in ((chats, rows[:20]), (real, rows[20:])):
        file.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    found = {}
    for by in ("field", "role"):
        code, out, err = call(capsys, "measure", chats, "--against", real, "--by", by, *HASHING, "--json")
        assert code == 0, err
        found[by] = json.loads(out)["parts"]
    fields, roles = found["field"], found["role"]
    assert [*fields] == ["text", "target", "pair"] and {part["n"] for part in fields.values()} == {20}
    words = {name: part["mean_words"]["value"] for name, part in fields.items()}
    assert words["pair"] == words["text"] + words["target"] > words["text"] > words["target"]
    assert {"mmd", "vendi_q1", "length_distance"} <= fields["target"].keys() and "groundedness" not in fields["target"]
    assert {name: part["n"] for name, part in roles.items()} == {"system": 20, "user": 40, "assistant": 40}
    assert roles["system"]["vendi_q1"]["value"] == pytest.approx(1) and roles["user"]["distinct_2"]["value"] > 0.1
    assert "20" in roles["user"]["exact_duplicate_rate"]["interval"] or roles["user"]["mmd"]["settings"]["test_rows"]
    _, shown, _ = call(capsys, "measure", chats, "--by", "role", *HASHING)
    assert "assistant" in shown and "words" in shown


# --- bad input ----------------------------------------------------------------------------------------
def test_bad_input_gets_one_line(texts, vectors, tmp_path, capsys):
    real, synthetic, plain = texts
    x, _ = vectors
    assert "what is to be measured?" in refused(capsys, "measure")
    assert "no such file" in refused(capsys, "measure", "--embeddings", tmp_path / "no.npy")
    assert "--text has no effect" in refused(capsys, "measure", "--embeddings", x, "--text", "t")
    assert "--against-embeddings has no effect" in refused(capsys, "measure", real, "--against-embeddings", x)
    assert "needs --against-embeddings" in refused(capsys, "measure", "--embeddings", x, "--against", real)
    assert "120 vectors for the 150 rows" in refused(capsys, "measure", real, "--embeddings", x)
    assert "valid: label, level" in refused(capsys, "measure", real, "--by", "labels", *HASHING)
    assert "no pairs of texts" in refused(capsys, "measure", real, "--by", "role", *HASHING)
    assert "--against FILE" in refused(capsys, "measure", real, "--reader", "embedded", *HASHING)
    assert "give embedded" in refused(capsys, "measure", real, "--reader", "no", *HASHING)
    assert "row 1 has none" in refused(capsys, "measure", plain, "--by", "label", *HASHING)
    assert "did you mean 'vendi_q1'" in refused(capsys, "measure", real, "--metric", "vendi_q11", *HASHING)
    assert "needs against=" in refused(capsys, "measure", real, "--metric", "mmd", *HASHING)
    assert all("two or more" in refused(capsys, "compare", *files) for files in ([real], [real, real]))
    assert "give 1 to 120" in refused(capsys, "compare", real, synthetic, "--rows", 900, *HASHING)
    np.save(tmp_path / "flat.npy", np.zeros(7))
    assert "must be (rows, dimensions)" in refused(capsys, "measure", "--embeddings", tmp_path / "flat.npy")
    np.save(tmp_path / "zero.npy", np.vstack([np.ones((5, 3)), np.zeros((1, 3))]))
    assert "row 5 is zero" in refused(capsys, "measure", "--embeddings", tmp_path / "zero.npy")
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    assert "not numbers" in refused(capsys, "measure", "--embeddings", tmp_path / "words.npy")
    (tmp_path / "broken.npy").write_bytes(b"not a matrix")
    assert "broken.npy cannot be loaded" in refused(capsys, "measure", "--embeddings", tmp_path / "broken.npy")
    np.save(tmp_path / "narrow.npy", np.ones((9, 3), dtype=np.float32))
    line = refused(capsys, "measure", "--embeddings", x, "--against-embeddings", tmp_path / "narrow.npy")
    assert "3 dimensions" in line and "16" in line
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "none.parquet")
    assert "one column of float lists" in refused(capsys, "measure", "--embeddings", tmp_path / "none.parquet")
    pq.write_table(pa.table({"v": [[1.0, 2.0], [1.0]]}), tmp_path / "ragged.parquet")
    assert "lengths differ" in refused(capsys, "measure", "--embeddings", tmp_path / "ragged.parquet")


@pytest.mark.filterwarnings("error")
def test_a_group_that_all_rows_share_is_said_and_makes_no_number_wrong(capsys, texts, tmp_path):
    real, synthetic = tmp_path / "real.jsonl", tmp_path / "one.jsonl"
    for file, made in ((texts[0], real), (texts[1], synthetic)):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        made.write_text("".join(json.dumps({**r, "source": made.stem}) + "\n" for r in rows), encoding="utf-8")
    page = tmp_path / "page.html"
    code, out, err = call(
        capsys, "measure", synthetic, "--against", real, "--group", "source", "--page", page, *HASHING, "--json"
    )
    assert code == 0
    assert "--group source" in err and "1 group, too few for intervals" in err
    numbers = json.loads(out)
    assert "mmd" not in numbers and numbers["vendi_q1"]["low"] is None
