"""``cuvee split``: files of parts that share nothing, and one line for every kind of wrong input."""

import json

import pyarrow.parquet as pq
import pytest

from command_line import call, refused
from cuvee.corpus import load_corpus, normalise_text
from cuvee.encoders import load_encoder


@pytest.fixture
def data(tmp_path):
    """96 rows in 32 documents; every eighth text repeats the one before it with another punctuation."""
    rows = []
    for i in range(96):
        text = f"{['cats', 'dogs', 'fish'][i % 3]} seen in {['Oslo', 'Bonn', 'Rome', 'Cork'][i % 4]} on day {i * i}"
        rows.append({"text": text, "label": ["a", "b", "[c]"][i % 3], "doc": f"d{i // 3}"})
    rows += [{**r, "text": r["text"].upper() + "!"} for r in rows[::8]]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def parts(folder, form="parquet"):
    return {p.stem: load_corpus(p) for p in sorted(folder.glob(f"*.{form}"))}


def disjoint(found, read):
    sides = [set(read(found[name])) for name in ("train", "validation", "test")]
    return not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_files_and_counts(data, tmp_path, capsys):
    out = tmp_path / "parts"
    arguments = ["split", data, "--out", out, "--test", "0.2", "--validation", "9", "--rows-per-label", "16,4,all"]
    code, shown, _ = call(capsys, *arguments, "--json")
    told = json.loads(shown)
    found = parts(out)
    assert code == 0 and set(found) == {"train", "validation", "test", "train-4", "train-16"}
    for name, said in told["parts"].items():
        assert said["rows"] == len(found[name]) and said["label_counts"] == found[name].label_counts()
        assert said["path"] == str(out / f"{name}.parquet") and said["fingerprint"] == found[name].fingerprint
    assert found["train-4"].label_counts() == {"[c]": 4, "a": 4, "b": 4}
    assert set(found["train-4"].ids) < set(found["train-16"].ids) < set(found["train"].ids)
    assert len(found["train"]) + len(found["validation"]) + len(found["test"]) == 108
    assert disjoint(found, lambda c: [normalise_text(t) for t in c.texts])
    assert not disjoint(found, lambda c: [t.split()[0].casefold() for t in c.texts])  # the check can fail


def test_the_table_shows_every_part(data, tmp_path, capsys):
    code, shown, _ = call(capsys, "split", data, "--out", tmp_path / "o", "--rows-per-label", "4")
    lines = [line.split() for line in shown.splitlines()]
    assert code == 0 and ["part", "rows", "[c]", "a", "b"] in lines and ["train-4", "12", "4", "4", "4"] in lines
    assert shown.count("wrote ") == 4


def test_groups_and_near_duplicates_stay_on_one_side(data, tmp_path, capsys):
    call(capsys, "split", data, "--out", tmp_path / "groups", "--group", "doc")
    groups = parts(tmp_path / "groups")
    assert disjoint(groups, lambda c: c.groups) and len(groups["test"]) > 6
    near = ["--near", "0.9", "--encoder", "hashing"]
    call(capsys, "split", data, "--out", tmp_path / "near", *near)
    found = parts(tmp_path / "near")
    vectors = {name: load_encoder("hashing").encode(c.texts) for name, c in found.items()}
    assert (vectors["train"] @ vectors["test"].T).max() < 0.9
    call(capsys, "split", data, "--out", tmp_path / "plain")
    plain = {name: load_encoder("hashing").encode(c.texts) for name, c in parts(tmp_path / "plain").items()}
    assert (plain["train"] @ plain["test"].T).max() >= 0.9


def test_format_seed_and_task_change_what_they_say(data, tmp_path, capsys):
    for name, options in {"first": [], "again": [], "other": ["--seed", "1"]}.items():
        call(capsys, "split", data, "--out", tmp_path / name, "--format", "jsonl", *options)
    first, again, other = (parts(tmp_path / name, "jsonl") for name in ("first", "again", "other"))
    assert first["test"].ids == again["test"].ids != other["test"].ids
    call(capsys, "split", data, "--out", tmp_path / "c", "--context", "doc")
    assert disjoint(parts(tmp_path / "c"), lambda c: c.contexts)
    code, shown, _ = call(
        capsys, "split", data, "--out", tmp_path / "g", "--task", "generation", "--rows-per-label", "5", "--json"
    )
    told = json.loads(shown)["parts"]
    assert code == 0 and told["train-5"]["rows"] == 5 and told["test"]["label_counts"] == {}


def test_no_test_rows_may_be_asked_for(data, tmp_path, capsys):
    code, _, _ = call(capsys, "split", data, "--out", tmp_path / "o", "--test", "0", "--validation", "0")
    assert code == 0 and [p.name for p in (tmp_path / "o").iterdir()] == ["train.parquet"]
    assert pq.read_table(tmp_path / "o" / "train.parquet").num_rows == 108


def test_nothing_is_overwritten(data, tmp_path, capsys):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "mine.txt").write_text("x", encoding="utf-8")
    assert "the folder is not empty" in refused(capsys, "split", data, "--out", tmp_path / "o")
    assert "reads or writes this file" in refused(capsys, "split", data, "--out", data)
    assert [p.name for p in (tmp_path / "o").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--test", "0.9", "--validation", "0.2"], "lower --test, --validation or --rows-per-label"),
        (["--test", "1.5"], "--test is 1.5; give whole rows, or a fraction below 1"),
        (["--validation", "inf"], "--validation is inf"),
        (["--rows-per-label", "4,99"], "99 were asked for; the largest few-shot size is 2"),
        (["--rows-per-label", "4,few"], "--rows-per-label is '4,few'"),
        (["--rows-per-label", "0"], "--rows-per-label is '0'"),
        (["--near", "0", "--encoder", "hashing"], "--near 0 with encoder hashing: threshold is 0.0"),
        (["--near", "0.01", "--encoder", "hashing"], "--test 0.2 came out empty"),
        (["--encoder", "hashing"], "--encoder has no effect here: it goes with --near"),
        (["--format", "xml"], "'xml' is not one of 'parquet', 'jsonl', 'csv'"),
        (["--task", "ranking"], "'ranking' is not one of 'classification', 'generation', 'retrieval'"),
        (["--group", "docs"], "no column 'docs'"),
        (["--label", "text"], "error: "),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(data, tmp_path, capsys, options, message):
    assert message in refused(capsys, "split", data, "--out", tmp_path / "o", *options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.jsonl"]


def test_one_label_and_missing_files_are_told(tmp_path, capsys):
    one = tmp_path / "one.csv"
    one.write_text("text,label\n" + "".join(f"row {i},same\n" for i in range(20)), encoding="utf-8")
    assert "one label only ('same')" in refused(capsys, "split", one, "--out", tmp_path / "o")
    assert call(capsys, "split", one, "--out", tmp_path / "g", "--task", "generation")[0] == 0
    assert "no such file" in refused(capsys, "split", tmp_path / "nothing.csv", "--out", tmp_path / "o")
