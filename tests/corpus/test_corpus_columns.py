"""Corpora made of columns, a batch at a time: what rows give, and texts as they always read."""

import datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus, cells, content, load_corpus, normalise_text
from cuvee.corpus import table as corpus_table
from cuvee.errors import InputError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6).filter(str.strip)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.one_of(st.sampled_from(["a", "b"]), TEXTS),
            "target": st.sampled_from(["x", "y"]),
            "group": st.sampled_from([None, "g"]),
            "context": st.sampled_from([None, "c"]),
        }
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=40)
@given(ROWS, st.integers(1, 7), st.sampled_from(["classification", "generation"]))
def test_columns_in_chunks_and_batches_are_the_rows(rows, size, task):
    parts = [pa.Table.from_pylist(rows[at : at + size]) for at in range(0, len(rows), size)]
    table = pa.concat_tables(parts, promote_options="permissive")
    columns = {name: table[name].cast(pa.string()) for name in rows[0]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "_BATCH", 4)
        found = Corpus.from_columns(columns, task=task)
    expected = Corpus.from_rows(rows, task=task)
    assert found.table.equals(expected.table) and found.fingerprint == expected.fingerprint
    assert found.targets == [row["target"] for row in rows] and all(c.num_chunks == 1 for c in found.table.columns)


def test_an_empty_cell_is_named_by_its_row_in_whatever_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "READ_ROWS", 2)
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "one,a\n" * 4 + " ,a\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"rows.csv, row 5: column 'text' is empty"):
        load_corpus(path)


def test_numbers_and_dates_read_as_they_are_written():
    day = datetime.date(2026, 3, 4)
    table = pa.table({"text": pa.array([day, None]), "label": [1.0, 2.5], "source": [True, None], "n": [7, 8]})
    found = [corpus_table.column_strings(table, name, "here").to_pylist() for name in table.column_names]
    assert found == [["2026-03-04", None], ["1.0", "2.5"], ["True", None], ["7", "8"]]


@given(st.text(st.characters(max_codepoint=127)))
def test_plain_letters_are_normalised_as_all_others_are(text):
    """With an accent at its end a text goes the long way."""
    assert f"{normalise_text(text)} é".strip() == normalise_text(f"{text} é")
