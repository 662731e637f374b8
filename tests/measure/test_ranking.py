"""Pools are ranked before training by what they should gain, on real rows."""

import dataclasses

import numpy as np
import pytest
from test_findings import DATA, corpus, read, spoil, wrong_label

from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder
from cuvee.measure import compare_corpora
from cuvee.measure.comparing import rank_pools

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"real pools of {DATA} are needed")


@pytest.fixture(scope="module")
def pools():
    """Real rows, and pools of 300 rows each: whole, with 60% wrong labels, 30 rows again and again, half the labels."""
    real, rows = read("gptaug_stackoverflow", "train", 600), read("gptaug_stackoverflow", "synthetic", 300)
    labels = sorted({r["label"] for r in rows})
    half = [r for r in rows if r["label"] in labels[::2]]
    made = {
        "half the labels": (half * 3)[:300],
        "wrong labels": spoil(spoil(rows, 2, wrong_label(rows)), 5, wrong_label(rows)),
        "whole": rows,
        "thirty rows": rows[:30] * 10,
    }
    return corpus(real), {name: corpus(own) for name, own in made.items()}


def test_the_whole_pool_is_first_and_each_has_its_reason(pools):
    real, made = pools
    found = rank_pools(made, against=real, encoder=HashingEncoder())
    assert found.pools[0].name == "whole" and "whole" in found.advised and 2 <= len(found.advised) <= 3
    assert [p.score for p in found.pools] == sorted((p.score for p in found.pools), reverse=True)
    reasons = {p.name: p.reason for p in found.pools}
    assert "90% repeat others" in reasons["thirty rows"] and "0.5" in reasons["half the labels"].split("labels ")[-1]
    assert "Train with whole and " in str(found.finding) and found.finding.id == "ranking"


def test_real_rows_that_no_pool_has_are_shown(pools):
    real, made = pools
    half = {name: made[name] for name in ("half the labels",)} | {"again": made["half the labels"]}
    missing, whole = (rank_pools(each, against=real, encoder=HashingEncoder()) for each in (half, made))
    assert missing.lacking_share > whole.lacking_share and set(missing.lacking) <= set(real.texts)
    own = dict(zip(real.texts, real.targets, strict=True))
    absent = {own[text] not in half["again"].labels for text in missing.lacking}
    assert True in absent


def test_pools_without_labels_are_ranked_by_what_there_is(pools):
    real, made = (
        Corpus.from_rows([{"text": t, "target": "x"} for t in each.texts]) for each in (pools[0], pools[1]["whole"])
    )
    thin = made.take(np.arange(300) % 30)
    found = rank_pools({"thin": thin, "whole": made}, against=real, encoder=HashingEncoder())
    assert found.pools[0].name == "whole" and "covers" not in found.pools[0].numbers


@pytest.mark.slow
def test_a_comparison_ends_with_the_ranking_of_its_numbers_and_opens_with_it(pools):
    real, made = pools
    found = compare_corpora(made | {"real": real}, against=real, encoder=HashingEncoder(), draws=2, words=5)
    assert {p.name for p in found.ranking.pools} == set(made)
    assert found.findings[0] == found.ranking.finding and any(f.sentence.startswith("thirty") for f in found.findings)
    numbers = {p.name: p.numbers for p in found.ranking.pools}
    at = found.names.index("whole")
    assert numbers["whole"]["agrees"] == found.values["label_agreement"][at].value
    assert dataclasses.asdict(found)["ranking"]["advised"]
    assert compare_corpora(made, encoder=HashingEncoder(), metrics=["vendi_q1"]).ranking is None
