import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.corpus import Corpus, load_corpus, normalise_text, write_corpus
from cuvee.corpus.table import SCHEMA
from cuvee.errors import InputError


def rows(n: int = 6) -> list[dict[str, object]]:
    return [{"text": f"text {i}", "target": "ab"[i % 2]} for i in range(n)]


def test_rows_get_stable_unique_ids_from_their_content():
    corpus = Corpus.from_rows([*rows(), rows()[0]])
    assert len(set(corpus.ids)) == 7
    assert corpus.ids[6] == f"{corpus.ids[0]}-2"
    assert Corpus.from_rows(reversed(rows())).ids[-1] == corpus.ids[0]
    assert corpus.table.schema == SCHEMA


def test_fingerprint_follows_content_order_and_origin():
    corpus = Corpus.from_rows(rows())
    assert corpus.fingerprint == Corpus.from_rows(rows()).fingerprint
    assert corpus.fingerprint != corpus.take([1, 0, 2, 3, 4, 5]).fingerprint
    assert corpus.fingerprint != Corpus.from_rows(rows(), origin="synthetic").fingerprint


def test_take_keep_join_and_counts():
    corpus = Corpus.from_rows(rows())
    assert corpus.take([3, 1]).texts == ["text 3", "text 1"]
    assert corpus.keep([t == "a" for t in corpus.targets]).label_counts() == {"a": 3}
    assert len(corpus.joined(corpus)) == 12
    assert corpus.labels == ["a", "b"]
    assert "6 real" in repr(corpus) and "<table" in corpus._repr_html_()
    head, names, first, *_ = str(corpus).splitlines()
    assert head == repr(corpus) and names.split() == ["text", "target", "origin"] and first.split()[0] == "text"
    assert len(str(corpus).splitlines()) == 7 and max(map(len, str(corpus).splitlines()[1:])) < 80


def test_groups_are_own_rows_where_none_is_given():
    corpus = Corpus.from_rows([{"text": "x", "target": "a", "group": "g"}, {"text": "y", "target": "a"}])
    assert corpus.groups[0] == "g" and corpus.groups[1].startswith("row:")


def test_pandas_and_datasets_round_trips():
    corpus = Corpus.from_rows(rows())
    frame = pd.DataFrame({"text": corpus.texts, "label": corpus.targets})
    assert Corpus.from_pandas(frame).fingerprint == corpus.fingerprint
    datasets = pytest.importorskip("datasets")
    assert load_corpus(datasets.Dataset(corpus.table)).fingerprint == corpus.fingerprint
    assert list(corpus.to_pandas().columns) == SCHEMA.names


def test_without_pandas_a_table_is_shown_and_a_frame_is_refused(tmp_path):
    (tmp_path / "pandas.py").write_text("raise ModuleNotFoundError(__name__)")
    code = f"""import sys; sys.path.insert(0, {str(tmp_path)!r})
from cuvee import Corpus
corpus = Corpus.from_rows([dict(text="<b>", target="a")])
assert "<td>&lt;b&gt;</td>" in corpus._repr_html_()
corpus.to_pandas()"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = done.stderr.splitlines()[-1]
    assert said == "cuvee.errors.MissingDependency: pandas is not installed: pip install 'cuvee[pandas]'"


def test_class_labels_become_their_names():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    dataset = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [1, 0]}, features=features)
    assert load_corpus(dataset).targets == ["yes", "no"]


def test_a_row_without_text_is_refused():
    with pytest.raises(InputError, match="row 1"):
        Corpus.from_rows([{"text": "x", "target": "a"}, {"text": None, "target": "a"}])
    with pytest.raises(InputError, match="occurs twice"):
        Corpus.from_rows([{"id": "1", "text": "x", "target": "a"}, {"id": "1", "text": "y", "target": "a"}])


@given(st.text())
def test_normalised_text_is_a_fixed_point(text):
    once = normalise_text(text)
    assert normalise_text(once) == once


def test_normalised_text_ignores_case_punctuation_and_space():
    assert normalise_text("  Hello,  WORLD! ") == normalise_text("hello world")


# --- the weight of rows ---
ROWS = [{"text": f"text {i}", "target": "ab"[i % 2]} for i in range(4)]


@pytest.mark.parametrize("name", ["c.parquet", "c.jsonl"])
def test_weights_are_read_back_and_follow_their_rows(tmp_path, name):
    plain = Corpus.from_rows(ROWS)
    assert plain.weights.tolist() == [1, 1, 1, 1]
    corpus = plain.with_columns(weight=np.array([0.0, 2.5, 1.0, 1 / 3]))
    write_corpus(corpus, tmp_path / name)
    assert load_corpus(tmp_path / name).weights.tolist() == [0.0, 2.5, 1.0, 1 / 3]
    assert corpus.take([3, 1]).weights.tolist() == [1 / 3, 2.5]
    assert plain.joined(corpus).weights.tolist() == [1, 1, 1, 1, 0.0, 2.5, 1.0, 1 / 3]
    assert Corpus.from_rows(corpus.table.to_pylist()).weights.tolist() == corpus.weights.tolist()


def test_weights_are_part_of_the_fingerprint_and_a_weight_of_one_says_nothing():
    plain = Corpus.from_rows(ROWS)
    ones, others, again = (plain.with_columns(weight=np.array(w)) for w in ([1.0] * 4, [1, 2, 1, 1], [1, 2, 1, 1.0]))
    assert plain.fingerprint == ones.fingerprint != others.fingerprint == again.fingerprint
    assert others.fingerprint != plain.with_columns(weight=np.array([1, 1, 2, 1.0])).fingerprint


def test_wrong_weights_are_told(tmp_path):
    for weight in (-1, float("nan"), float("inf"), "much", True):
        with pytest.raises(InputError, match="row 1: weight must be a number of at least 0 or None"):
            Corpus.from_rows([ROWS[0], {**ROWS[1], "weight": weight}])
    rows = Corpus.from_rows(ROWS).table.to_pylist()
    rows[2]["weight"] = -0.5
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(InputError, match=r"bad.jsonl, row 3: weight is -0.5; give a number of at least 0"):
        load_corpus(path)
