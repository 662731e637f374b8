"""Real ChatGPT paraphrases: more of them a source, at equal rows, are less diverse; real duplicates are found."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.encoders import load_encoder
from cuvee.measure import measure_corpus

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "gptaug_banking" / "synthetic.jsonl.gz"
pytestmark = pytest.mark.skipif(not DATA.is_file(), reason="the shared data sets are not on this machine")


def paraphrases(each: int, rows: int) -> Corpus:
    """That many rows: ``each`` paraphrases of each of rows / each sources, sources drawn by seed."""
    by_source: dict[str, list[dict[str, str]]] = {}
    with gzip.open(DATA, "rt", encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            by_source.setdefault(row["origin"], []).append(row)
    full = sorted(source for source, made in by_source.items() if len(made) >= 10)
    chosen = np.random.default_rng(0).permutation(full)[: rows // each]
    return Corpus.from_rows(
        {"text": row["text"], "target": row["label"], "group": source}
        for source in chosen
        for row in by_source[source][:each]
    )


@pytest.mark.slow
def test_more_paraphrases_a_source_are_less_diverse_at_equal_rows():
    names = ["vendi_q1", "dcscore_tau0.1", "distinct_2", "self_bleu"]
    found = [measure_corpus(paraphrases(m, 600), encoder=load_encoder(), metrics=names).values for m in (1, 2, 5, 10)]
    assert {v["vendi_q1"].n for v in found} == {600}
    for name in names[:3]:
        values = [v[name].value for v in found]
        assert values == sorted(values, reverse=True), name
        assert found[3][name].high < found[0][name].low, name
    assert [v["self_bleu"].value for v in found] == sorted(v["self_bleu"].value for v in found)
    assert found[0]["self_bleu"].high < found[3]["self_bleu"].low
