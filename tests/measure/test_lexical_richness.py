"""MTLD against the lexical_diversity package."""

import sys
import types
from importlib.resources import files

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.measure.lexical import measure_distinct, measure_mtld, mtld
from cuvee.measure.subject import Subject


def subject_of(texts):
    return Subject(corpus=Corpus.from_rows({"text": t, "target": "x"} for t in texts))


def zipf_words(size, seed=0, types=500):
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, types + 1)
    return [f"w{w}" for w in rng.choice(types, size=size, p=share / share.sum())]


@pytest.fixture
def lex_div(monkeypatch):
    """The package asks setuptools' retired pkg_resources for the path of its word list, and for nothing else."""
    pytest.importorskip("lexical_diversity")
    shim = types.ModuleType("pkg_resources")
    shim.resource_filename = lambda package, name: str(files(package) / name)
    monkeypatch.setitem(sys.modules, "pkg_resources", shim)
    from lexical_diversity import lex_div

    return lex_div


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the package leaves its word list open
def test_mtld_is_that_of_lexical_diversity(lex_div):
    for seed, size in enumerate([11, 43, 100, 333, 1200]):
        words = zipf_words(size, seed)
        assert mtld(words) == pytest.approx(lex_div.mtld(words), abs=1e-9)


def test_mtld_by_hand():
    # ten words of 5 types end a factor at once, forward and backward
    assert mtld(["a", "b", "c", "d", "e"] * 4) == pytest.approx(20 / (1 + (1 - 5 / 10) / 0.28))
    assert mtld(["a", "b", "c"]) is None


def test_mtld_of_a_corpus_joins_the_rows_in_an_order_of_its_own():
    words = zipf_words(600)
    rows = [" ".join(words[i : i + 6]) for i in range(0, 600, 6)]
    found = measure_mtld(subject_of(rows))
    assert found.value == measure_mtld(subject_of(sorted(rows))).value
    assert found.low < found.value < found.high
    assert found.settings["factor"] == 0.72
    assert measure_mtld(subject_of(["a b", "c d"])) is None


def test_mtld_hardly_depends_on_the_number_of_rows_while_distinct_does():
    words = zipf_words(8000)
    rows = [" ".join(words[i : i + 8]) for i in range(0, 8000, 8)]
    few, many = measure_mtld(subject_of(rows[:250])).value, measure_mtld(subject_of(rows)).value
    assert few == pytest.approx(many, rel=0.1)
    assert measure_distinct(subject_of(rows[:250]), 2).value > 1.2 * measure_distinct(subject_of(rows), 2).value
