"""The weight of rows: kept by every file, part of the fingerprint where there are any."""

import json

import numpy as np
import pytest

from cuvee.corpus import Corpus, load_corpus, write_corpus
from cuvee.errors import InputError

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


def test_files_written_before_the_column_came_are_read_back(tmp_path):
    corpus = Corpus.from_rows([{**row, "context": f"c{i}"} for i, row in enumerate(ROWS)])
    rows = corpus.table.drop_columns(["weight"]).to_pylist()
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = load_corpus(tmp_path / "old.jsonl")
    assert found.table.equals(corpus.table) and found.fingerprint == corpus.fingerprint


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
