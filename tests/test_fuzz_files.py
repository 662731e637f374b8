"""Bytes of files, made up: a value, or one line that names the file; never another exception."""

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuvee.config.reading import read_config
from cuvee.corpus import load_corpus, write_corpus
from cuvee.errors import CuveeError

pytestmark = pytest.mark.filterwarnings("ignore::cuvee.errors.InputWarning")
TIMES = pytest.mark.parametrize("times", [60, pytest.param(500, marks=pytest.mark.slow)])


def fuzz(times: int):
    return settings(max_examples=times, deadline=None, suppress_health_check=list(HealthCheck))


# what such files are made of, so that more than the first byte is read
CELLS = st.one_of(
    st.sampled_from(
        ['"', '""', "text", "label", "a", "0", "", "\\", "\0", "é", "漢", "\u2028", "\ufeff", "{", "[", "nan", "1e999"]
    ),
    st.text(max_size=4),
)
CSV = st.lists(st.lists(CELLS, max_size=4), max_size=5).flatmap(
    lambda rows: st.builds(
        lambda cell, line: line.join(cell.join(row) for row in [["text", "label"], *rows]),
        st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["\n", "\r\n", "\r"]),
    )
)  # fmt: skip
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.just("\ud800")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["text", "label", "data", "train", "test", "seed_ids", "\ud800", ""]), inner, max_size=4
        ),
    ),
    max_leaves=8,
)
ROWS = st.lists(st.fixed_dictionaries({"text": JSON, "label": JSON}), min_size=1, max_size=3)
JSONL = st.one_of(st.lists(JSON, max_size=3), ROWS).map(lambda rows: "\n".join(map(json.dumps, rows)))
LINES = (
    "data: {real: x.csv}", "dials: [{name: sampling, levels: [0.3, 0.9]}]", "seed: 1", "- a", "? b", "a: &a 1", "*a",
    "---", "!!python/none x", "mix: {shares: [0.5]}", "draws: auto", "split: {test: -1}", "name: [", "x: |",
)  # fmt: skip
VALUES = JSON.map(lambda value: f"split: {json.dumps(value)}")
YAML = st.lists(st.one_of(st.sampled_from(LINES), st.text(max_size=6), VALUES), max_size=5).map("\n".join)


@st.composite
def contents(draw, text):
    """A text in some encoding, some of its bytes cut out, swapped in or packed."""
    data = draw(text).encode(
        draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le"])), "surrogatepass"
    )
    at, gone = draw(st.integers(0, len(data))), draw(st.integers(0, 3))
    damaged = draw(st.sampled_from([data, data, data[:at] + draw(st.binary(max_size=3)) + data[at + gone :]]))
    return draw(st.sampled_from([damaged, damaged, gzip.compress(damaged)]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def survives(path, content: bytes, read) -> None:
    path.write_bytes(content)
    try:
        read(path)
    except CuveeError as exc:
        assert str(path) in str(exc) and "\n" not in str(exc), str(exc)


def read_and_write(path) -> None:
    corpus = load_corpus(path, labelled=False)
    for suffix in ("csv", "jsonl"):
        again = path.with_name(f"again.{suffix}")
        write_corpus(corpus, again)
        assert load_corpus(again).fingerprint == corpus.fingerprint


@TIMES
@pytest.mark.parametrize(
    ("suffix", "text"), [("csv", CSV), ("tsv", CSV), ("jsonl", JSONL), ("json", st.one_of(JSON, ROWS).map(json.dumps))]
)
def test_any_rows(folder, suffix, text, times):
    @fuzz(times)
    @given(contents(st.one_of(text, st.text(max_size=20))))
    def reads(content):
        survives(folder / f"rows.{suffix}", content, read_and_write)

    reads()


@TIMES
def test_any_study(folder, times):
    @fuzz(times)
    @given(contents(YAML))
    def reads(content):
        survives(folder / "study.yaml", content, read_config)

    reads()
