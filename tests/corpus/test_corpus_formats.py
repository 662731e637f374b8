"""Files as people have them: what each holds is read as it stands, or refused in one line."""

import bz2
import gzip
import json
import lzma
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from command_line import call, refused
from cuvee.corpus import Corpus, compare_labels, load_corpus, write_corpus
from cuvee.corpus.table import SCHEMA
from cuvee.errors import InputError, InputWarning

ROWS = [("one", "a"), ("two", "b")]


def rows_of(path, **options) -> list[tuple[str, str]]:
    corpus = load_corpus(path, **options)
    return list(zip(corpus.texts, corpus.targets, strict=True))


def told(path, **options) -> str:
    with pytest.raises(InputError) as info:
        load_corpus(path, **options)
    assert str(path) in str(info.value) and "\n" not in str(info.value)
    return str(info.value)


def put(path, content: str | bytes):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_cells_of_csv_are_what_they_look_like(tmp_path):
    cells = ["0070", "FALSE", "NA", "1e5", "2024-02-30", "nan", "1.50", "null", "+4", "９"]
    path = put(tmp_path / "c.csv", "text,label\n" + "".join(f"{cell},{cell}\n" for cell in cells))
    assert rows_of(path) == [(cell, cell) for cell in cells]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_another_separator_is_found_and_said(tmp_path, separator):
    lines = [("text", "label"), ('"a, b; c"', "x"), ("d, e", "y"), ('"say ""no"""', "x")]
    path = put(tmp_path / "c.csv", "".join(separator.join(line) + "\n" for line in lines))
    with pytest.warns(InputWarning, match="c.csv: its cells are read as separated by"):
        assert rows_of(path) == [("a, b; c", "x"), ("d, e", "y"), ('say "no"', "x")]
    put(path, f"sep={separator}\ntext{separator}label\none{separator}a\ntwo{separator}b\n")
    with pytest.warns(InputWarning):
        assert rows_of(path) == ROWS


def test_commas_stay_the_separator_where_texts_hold_others(tmp_path):
    path = put(tmp_path / "c.csv", "text,label\na; b; c,x\nd | e,y\nf,y\n")
    assert rows_of(path) == [("a; b; c", "x"), ("d | e", "y"), ("f", "y")]


@pytest.mark.parametrize(
    ("lines", "texts"),
    [
        (['"open', "mid", 'clo"se', 'shut"'], ['"open', "mid", 'clo"se', 'shut"']),  # no line is swallowed
        (['"open', "mid", 'shut"'], ['"open', "mid", 'shut"']),  # nor where the marks happen to pair
        (['"Yes!"', "no", "why"], ['"Yes!"', "no", "why"]),  # someone speaks
        (['"a"', '"b ""c"""', '"d"'], ["a", 'b "c"', "d"]),  # quoted throughout
        (['"b ""c"""', "plain"], ['b "c"', "plain"]),  # quoted where it must be, as pandas writes
        (['"two\nlines"', '"a\ttab"', "plain"], ["two\nlines", "a\ttab", "plain"]),
    ],
)
def test_quotation_marks_of_a_tsv(tmp_path, lines, texts):
    path = put(
        tmp_path / "t.tsv", "text\tlabel\n" + "".join(f"{line}\t{'ab'[i % 2]}\n" for i, line in enumerate(lines))
    )
    assert load_corpus(path).texts == texts


def test_a_quotation_mark_that_swallows_lines_of_csv_is_named(tmp_path):
    assert load_corpus(put(tmp_path / "c.csv", 'text,label\n"half open,a\nshut,b\n')).texts == ['"half open', "shut"]
    assert "c.csv, line 3: a quotation mark" in told(
        put(tmp_path / "c.csv", 'text,label\n"a, b",a\n"half,a\n"c, d",b\n')
    )
    assert "Row #3" in told(put(tmp_path / "c.csv", "text,label\na,b\nc\n"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.json", '[{"text": "one", "label": "a"},\n {"text": "two", "label": "b"}]'),
        ("d.jsonl", '[\n{"text": "one", "label": "a"},\n{"text": "two", "label": "b"}\n]\n'),
        ("d.json", '{"version": 2, "data": [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}]}'),
        ("d.json", '{\n"train": [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}]}'),
        ("d.json", '{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}'),
        ("d.txt", '\n{"text": "one", "label": "a"}\r\n{"text": "two", "label": "b"}'),
        ("d.csv", '{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n'),
        ("rows", '{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n'),
        ("d.csv", gzip.compress(b"text,label\none,a\ntwo,b\n", mtime=0)),
        ("d.jsonl.gz", b'{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n'),
        ("d.csv", "text,label\none,a\ntwo,b\n".encode("utf-8-sig")),
        ("d.csv", "text,label\none,a\ntwo,b\n".encode("utf-16")),
        ("d.tsv", "text\tlabel\r\none\ta\r\ntwo\tb\r\n".encode("utf-16-le")),
        ("d.jsonl", '{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n'.encode("utf-32-be")),
    ],
)
def test_the_content_tells_the_kind(tmp_path, name, content):
    assert rows_of(put(tmp_path / name, content)) == ROWS


@pytest.mark.parametrize(("pack", "kind"), [(bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_files_packed_in_another_way_are_named(tmp_path, pack, kind):
    assert f"is {kind}, which is not read; unpack it" in told(put(tmp_path / "d.jsonl", pack(b'{"text": "one"}')))


def test_parquet_under_another_name(tmp_path):
    pq.write_table(pa.table({"text": ["one", "two"], "label": ["a", "b"]}), tmp_path / "d.data")
    assert rows_of(tmp_path / "d.data") == ROWS


# --- cells -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "texts",
    [
        pa.array([b"one", b"two"]),
        pa.array([b"one", b"two"], pa.large_binary()),
        pa.array(["one", "two"], pa.large_string()),
        pa.array(["one", "two"], pa.string_view()),
        pa.array(["one", "two"]).dictionary_encode(),
        pa.array([b"one", b"two"]).dictionary_encode(),
    ],
)
def test_texts_of_any_type_of_parquet_are_read(tmp_path, texts):
    other = {"vector": [[0.1], [0.2]], "struct": [{"a": 1}, None], "raw": [b"\xff", b""]}
    pq.write_table(
        pa.table({"text": texts, "label": pa.array(["a", "b"], pa.large_string()), **other}), tmp_path / "d.parquet"
    )
    assert rows_of(tmp_path / "d.parquet") == ROWS


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ([], "holds a list"),
        ({"a": 1}, "holds an object"),
        ("\ud800", "holds half of a surrogate pair"),
    ],
)
def test_what_is_no_text_is_refused_by_row_and_column_and_matters_only_where_it_is_read(tmp_path, cell, said):
    rows = [{"text": "one", "label": "a", "odd": "x"}, {"text": "two", "label": "b", "odd": cell}]
    path = put(tmp_path / "d.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert rows_of(path) == ROWS
    for role in ("text", "label", "group"):
        assert f"row 2: column 'odd' {said}" in told(path, **{role: "odd"})


def test_lists_and_bytes_of_parquet_are_refused_by_row(tmp_path):
    table = pa.table({"text": ["one", "two"], "label": [None, ["a"]], "raw": [b"ok", b"\xff"]})
    pq.write_table(table, tmp_path / "d.parquet")
    assert "row 2: column 'label' holds a list, not text: ['a']" in told(tmp_path / "d.parquet")
    assert "row 2: column 'raw' holds bytes that are not UTF-8" in told(tmp_path / "d.parquet", label="raw")


def test_numbers_of_any_size_and_mixed_kinds_read_as_they_are_written(tmp_path):
    path = put(tmp_path / "d.jsonl", f'{{"text": "a", "label": {2**70}}}\n{{"text": 5, "label": "b"}}\n')
    assert rows_of(path) == [("a", str(2**70)), ("5", "b")]


def test_columns_of_one_name_matter_only_where_they_are_read(tmp_path):
    assert rows_of(put(tmp_path / "d.csv", "text,label,x,x\none,a,1,2\ntwo,b,3,4\n")) == ROWS
    assert "has 2 columns 'text'" in told(put(tmp_path / "d.csv", "text,label,text\none,a,1\n"))
    frame = pd.DataFrame([["one", "a", 1, "12"], ["two", "b", 2, 12.5]], columns=["text", "label", "x", "x"])
    assert Corpus.from_pandas(frame).texts == ["one", "two"]
    own = Corpus.from_pandas(frame.iloc[:, [0, 1, 3]].assign(stars=[4, 5]))
    write_corpus(own, tmp_path / "d.jsonl")
    written = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert [(row["x"], row["stars"]) for row in written] == [("12", 4), (12.5, 5)]
    with pytest.warns(InputWarning, match="column 'raw' mixes kinds .* left out"):
        assert Corpus.from_pandas(frame.iloc[:, :2].assign(raw=[b"1", 2.5])).own.column_names == []
    with pytest.raises(InputError, match="column 'x' mixes kinds"):
        Corpus.from_pandas(frame.iloc[:, [0, 1, 3]], label="x")


@pytest.mark.parametrize("empty", ["null", "NaN", '""', '"  \\t"', '"\\u200b\\ufeff"'])
def test_cells_without_anything_are_one_thing(tmp_path, empty):
    rows = [f'{{"text": "t{i}", "label": {cell}, "passage": {cell}}}\n' for i, cell in enumerate(['"a"', empty, empty])]
    path = put(tmp_path / "d.jsonl", "".join(rows))
    assert "row 2: column 'label' is empty (2 rows have none); fill it or drop the row" in told(path)
    found = load_corpus(path, label="text", context="passage", task="generation")
    assert found.contexts == ["a", None, None]


def test_a_file_whose_labels_are_all_empty_is_texts_alone(tmp_path):
    path = put(tmp_path / "d.csv", "text,label\none,\ntwo,\n")
    with pytest.warns(InputWarning, match="no row has a label in column 'label'"):
        assert rows_of(path, labelled=False) == [("one", ""), ("two", "")]
    assert "row 1: column 'label' is empty (2 rows have none)" in told(path)


# --- Hugging Face ----------------------------------------------------------------------------------
def classes(numbers: list[int | None]):
    datasets = pytest.importorskip("datasets")
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    columns = {"text": [f"text {i}" for i in range(len(numbers))], "label": numbers}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def test_names_of_classes_come_from_the_files_metadata(tmp_path):
    dataset = classes([1, 0, 1])
    dataset.to_parquet(tmp_path / "d.parquet")
    for source in (
        tmp_path / "d.parquet",
        dataset.with_format("numpy", columns=["label"]),
        dataset.to_iterable_dataset(),
    ):
        assert load_corpus(source).targets == ["yes", "no", "yes"]
    classes([1, -1, -1]).save_to_disk(tmp_path / "saved")
    assert "row 2: column 'label' is empty (2 rows have none)" in told(tmp_path / "saved")
    table = pq.read_table(tmp_path / "d.parquet")
    pq.write_table(table.set_column(1, "label", pa.array([0, 7, 1])), tmp_path / "d.parquet")
    assert "row 2: column 'label' is class 7, and 2 classes have names" in told(tmp_path / "d.parquet")


def test_of_splits_one_is_chosen(tmp_path):
    datasets = pytest.importorskip("datasets")
    both = datasets.DatasetDict({"train": classes([1, 0]), "test": classes([1, 1, 1])})
    both.save_to_disk(tmp_path / "saved")
    folder = tmp_path / "shards"
    for path in (folder / "data", tmp_path / "parts" / "train", tmp_path / "parts" / "test"):
        path.mkdir(parents=True)
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        pq.write_table(pa.table({"text": [name], "label": ["a"]}), folder / "data" / f"{name}.parquet")
        part = tmp_path / "parts" / name.split("-")[0]
        pq.write_table(pa.table({"text": [name], "label": ["a"]}), part / f"{len(list(part.iterdir()))}.parquet")
    put(tmp_path / "both.json", json.dumps({name: [{"text": name, "label": "a"}] for name in ("train", "test")}))
    for path, rows in ((tmp_path / "saved", 2), (folder, 2), (tmp_path / "parts", 2), (tmp_path / "both.json", 1)):
        said = told(path)
        assert "has the splits" in said and "train" in said and f"such as {path}" in said
        assert len(load_corpus(path / "train")) == rows
        assert "no such file or split" in told(path / "dev") and "no such file" in told(path / "dev" / "x.csv")
    assert "no such file; give" in told(folder / "data" / "train.jsonl")  # no split has the ending of a file
    with pytest.raises(InputError, match="has splits train, test"):
        load_corpus(both)


def test_an_empty_shard_is_no_rows(tmp_path):
    pq.write_table(pa.table({"text": ["one", "two"], "label": ["a", "b"]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"text": pa.nulls(0), "label": pa.nulls(0)}), tmp_path / "1.parquet")
    assert rows_of(tmp_path) == ROWS
    (tmp_path / "0.parquet").unlink()
    assert "no rows" in told(tmp_path)


# --- labels ----------------------------------------------------------------------------------------
def test_labels_that_differ_by_case_or_blanks_are_pointed_out(tmp_path, capsys):
    path = put(tmp_path / "d.csv", "text,label\none,up\ntwo,Up\nthree,up \nfour,\u00e9\nfive,e\u0301\nsix,up\u200b\n")
    with pytest.warns(InputWarning, match=r"own: 'Up', 'up', 'up ', 'up.*'; 'e\u0301', '\u00e9'; write"):
        load_corpus(path)
    code, _, err = call(capsys, "measure", path, "--encoder", "hashing", "--metric", "mean_words")
    assert code == 0 and err.count("note: ") == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_corpus(path, task="generation")


def test_label_sets_that_do_not_meet_are_named(tmp_path, capsys):
    whole, real, odd = (tmp_path / name for name in ("w.jsonl", "r.jsonl", "o.jsonl"))
    for path, labels in ((whole, [0, 1]), (real, ["0", "1"]), (odd, ["0", "2"])):
        rows = [{"text": f"{path.name} says {i} of {labels[i % 2]}", "label": labels[i % 2]} for i in range(12)]
        put(path, "".join(json.dumps(row) + "\n" for row in rows))
    decimal = put(tmp_path / "d.csv", "text,label\n" + "".join(f"a text {i},{i % 2}.0\n" for i in range(8)))
    out = tmp_path / "model"
    fast = ("--encoder", "hashing")
    assert call(capsys, "train", whole, "--out", out, *fast)[0] == 0
    for command in (
        ("evaluate", out, decimal),
        ("mix", real, decimal, "--share", 0.5, "--out", tmp_path / "b.csv"),
    ):
        assert "d.csv: has the labels '0.0', '1.0', and" in refused(capsys, *command)
    code, _, err = call(capsys, "measure", decimal, "--against", real, *fast, "--metric", "mmd")  # needs no labels
    assert code == 0 and "d.csv: unknown labels '0.0', '1.0', and" in err
    for command in (("evaluate", out, odd), ("measure", odd, "--against", real, *fast, "--metric", "mean_words")):
        code, _, err = call(capsys, *command)
        assert code == 0 and "note: " in err and "o.jsonl: unknown labels '2', and" in err
    compare_labels(["a"], [""], known_name="x", found_name="a corpus without labels")


# --- what is written comes back --------------------------------------------------------------------
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
SOME = st.one_of(st.none(), TEXT, st.just(""))
WRITTEN = st.fixed_dictionaries(
    {
        "text": TEXT, "target": TEXT, "origin": st.sampled_from(["real", "synthetic"]), "group": SOME, "dial": SOME,
        "seed_ids": st.one_of(st.none(), st.lists(TEXT, max_size=3)), "level": SOME, "generator": SOME,
        "block": st.one_of(st.none(), st.integers(-1, 2**31 - 1)), "context": SOME,
        "weight": st.one_of(st.none(), st.floats(0, 1e300)),
    }
)  # fmt: skip


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_every_corpus_that_is_written_comes_back_whole(tmp_path_factory, suffix):
    path = tmp_path_factory.mktemp("written") / f"c.{suffix}"

    @settings(max_examples=30, deadline=None)
    @given(st.lists(WRITTEN, min_size=1, max_size=4))
    @example(
        [{"text": 'a "b"\r\nc', "target": "0", "group": "", "context": "\r", "seed_ids": ["x,y", '"'], "block": 0}]
    )
    def comes_back(rows):
        corpus = Corpus.from_rows(rows)
        write_corpus(corpus, path)
        back = load_corpus(path)
        assert back.table.equals(corpus.table) and back.fingerprint == corpus.fingerprint

    comes_back()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_predictions_keep_every_column_of_any_file(tmp_path, capsys, suffix):
    rows = [
        {"text": "one", "label": "a", "n": 1, "odd": [1, {"b": None}], "mixed": 1, "half": "\ud800"},
        {"text": "two", "label": "b", "n": None, "odd": "x", "mixed": 2.5, "half": "y"},
    ]
    path = put(tmp_path / "d.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert call(capsys, "train", path, "--encoder", "hashing", "--out", tmp_path / "m")[0] == 0
    out = tmp_path / f"p.{suffix}"
    code, _, err = call(capsys, "predict", tmp_path / "m", path, "--out", out)
    assert code == 0, err
    from cuvee.corpus.formats import read_table

    table = read_table(out)
    assert set(rows[0]) < set(table.column_names) and "predicted" in table.column_names
    odd = table["odd"].to_pylist()
    assert json.loads(odd[0]) == rows[0]["odd"]


def test_a_corpus_with_gaps_is_refused_by_row(tmp_path):
    table = Corpus.from_rows([{"text": "one", "target": "a"}, {"text": "two", "target": "b"}]).table
    for column, value, said in (
        ("target", None, "row 2: column 'target' is empty"),
        ("origin", "fake", "origin 'fake'"),
    ):
        place = SCHEMA.get_field_index(column)
        cells = table[column].to_pylist()[:1]
        pq.write_table(table.set_column(place, column, pa.array([*cells, value])), tmp_path / "c.parquet")
        assert said in told(tmp_path / "c.parquet")


def test_a_long_cell_is_a_cell(tmp_path):
    long = "word " * 400_000
    for name, content in (("d.csv", f'text,label\n"{long}",a\n'), ("d.tsv", f"text\tlabel\n{long}\ta\n")):
        assert np.array([len(text) for text in load_corpus(put(tmp_path / name, content)).texts]).sum() == len(long)


def test_blanks_around_the_name_of_a_column_are_pointed_out(tmp_path):
    path = put(tmp_path / "d.csv", "text, label\none,a\ntwo,b\n")
    with pytest.warns(InputWarning, match="d.csv: column ' label' has blanks at its edges; remove them"):
        assert rows_of(path, label=" label") == ROWS
