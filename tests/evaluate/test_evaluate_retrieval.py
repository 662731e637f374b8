"""Rankings against two reference implementations, by brute force over ties, and their properties."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, TrainingError
from cuvee.evaluate import compare_predictors, evaluate_model, judge_model, rank_passages
from cuvee.evaluate.retrieval import count_ranks, score_ranks

NAMES = ["ndcg@10", "mrr@10", "recall@1", "recall@10", "recall@100"]


class Table:
    """Vectors of texts, looked up."""

    def __init__(self, vectors):
        self.vectors = vectors

    def encode_queries(self, texts):
        return np.array([self.vectors[t] for t in texts], dtype=np.float32)

    encode_passages = encode_queries


def world(n=30, passages=25, seed=0, levels=None):
    """Random similarities as vectors: query i is a unit axis, so that its cosines are a passage's coordinates."""
    rng = np.random.default_rng(seed)
    similar = rng.normal(size=(n, passages)) if levels is None else rng.integers(0, levels, size=(n, passages)) / 8
    relevant = [sorted(rng.choice(passages, size=rng.integers(1, 4), replace=False).tolist()) for _ in range(n)]
    return similar.astype(np.float32), relevant


def scored(similar, relevant):
    return score_ranks(*count_ranks(np.eye(len(similar), dtype=np.float32), similar.T.copy(), relevant), relevant)


def test_scores_agree_with_trec_eval_where_nothing_ties():
    pytrec_eval = pytest.importorskip("pytrec_eval")
    similar, relevant = world(passages=150)
    judged = {f"q{i}": {f"d{j}": 1 for j in found} for i, found in enumerate(relevant)}
    run = {f"q{i}": {f"d{j}": float(s) for j, s in enumerate(row)} for i, row in enumerate(similar)}
    top = {q: dict(sorted(found.items(), key=lambda item: -item[1])[:10]) for q, found in run.items()}
    wanted = {"ndcg_cut_10", "recall_1", "recall_10", "recall_100"}
    expected = pytrec_eval.RelevanceEvaluator(judged, wanted).evaluate(run)
    ranks = pytrec_eval.RelevanceEvaluator(judged, {"recip_rank"}).evaluate(top)
    numbers, _ = scored(similar, relevant)
    for i in range(len(similar)):
        theirs = expected[f"q{i}"]
        assert numbers["ndcg@10"][i] == pytest.approx(theirs["ndcg_cut_10"])
        assert numbers["mrr@10"][i] == pytest.approx(ranks[f"q{i}"]["recip_rank"])
        assert [numbers[f"recall@{k}"][i] for k in (1, 10, 100)] == pytest.approx(
            [theirs[f"recall_{k}"] for k in (1, 10, 100)]
        )


@pytest.mark.parametrize("levels", [None, 2, 5])
def test_ndcg_agrees_with_scikit_learn_with_and_without_ties(levels):
    similar, relevant = world(levels=levels)
    truth = np.array([[j in found for j in range(similar.shape[1])] for found in relevant], dtype=float)
    expected = [ndcg_score(truth[[i]], similar[[i]], k=10) for i in range(len(similar))]
    assert scored(similar, relevant)[0]["ndcg@10"] == pytest.approx(expected)


def mean_over_orders(similar, relevant):
    """Scores as means over all orders of equal passages, one after the other."""
    found = []
    for order in itertools.permutations(range(len(similar))):
        if any(similar[a] < similar[b] for a, b in itertools.pairwise(order)):
            continue
        ranks = sorted(order.index(j) + 1 for j in relevant)
        gain = sum(1 / np.log2(r + 1) for r in ranks if r <= 10)
        best = sum(1 / np.log2(r + 1) for r in range(1, len(ranks) + 1))
        recall = [np.mean([r <= k for r in ranks]) for k in (1, 10, 100)]
        found.append([gain / best, 1 / ranks[0] if ranks[0] <= 10 else 0.0, *recall])
    return np.mean(found, axis=0)


@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=6),
    st.sets(st.integers(0, 5), min_size=1, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_ties_are_means_over_all_orders(similar, places):
    relevant = sorted(p for p in places if p < len(similar)) or [0]
    numbers, first = scored(np.array([similar], dtype=np.float32), [relevant])
    assert [numbers[name][0] for name in NAMES] == pytest.approx(mean_over_orders(similar, relevant).tolist())
    top = {j for j, s in enumerate(similar) if s == max(similar)}
    assert first[0] == (top <= set(relevant))


@given(st.integers(0, 1000))
@settings(max_examples=30)
def test_scores_have_bounds_grow_with_k_and_ignore_the_order_of_passages(seed):
    similar, relevant = world(n=6, passages=14, seed=seed, levels=4)
    numbers, first = scored(similar, relevant)
    order = np.random.default_rng(seed).permutation(14)
    place = np.argsort(order)
    again, _ = scored(similar[:, order], [sorted(place[j] for j in found) for found in relevant])
    for name in NAMES:
        assert (numbers[name] >= 0).all() and (numbers[name] <= 1 + 1e-12).all()
        assert again[name] == pytest.approx(numbers[name])
    assert (numbers["recall@1"] <= numbers["recall@10"] + 1e-12).all()
    assert (numbers["mrr@10"][first] == 1).all()


def test_a_collapsed_encoder_scores_as_chance_does():
    rows = [{"text": f"q{i}", "target": f"p{i}"} for i in range(50)]
    vectors = {t: [1.0, 0.0] for row in rows for t in row.values()}
    scores = evaluate_model(Table(vectors), Corpus.from_rows(rows, task="retrieval"), intervals=False)
    assert scores.values["recall@1"].value == pytest.approx(1 / 50)
    assert scores.values["recall@10"].value == pytest.approx(10 / 50)
    assert scores.values["mrr@10"].value == pytest.approx(sum(1 / r for r in range(1, 11)) / 50)
    assert not scores.correct.any()


def queries(*rows, task="retrieval"):
    return Corpus.from_rows([dict(zip(("text", "target"), row, strict=True)) for row in rows], task=task)


SMALL = queries(("one", "A"), ("two", "B"), ("two", "C"), ("three", "A"))
AXES = dict(zip("ABCD", np.eye(4), strict=True)) | {"one": [1, 0, 0, 0], "two": [0, 0.6, 0, 0.8], "three": [0, 0, 1, 0]}


def test_rows_of_one_query_name_several_passages_and_a_pool_adds_more():
    items = judge_model(Table(AXES), SMALL)
    assert items.correct.tolist() == [True, True, False]
    assert items.groups.tolist() == [0, 1, 0]  # two questions on one passage
    assert items.columns["recall@1"].tolist() == [1.0, 0.5, 0.0]
    wider = judge_model(Table(AXES), SMALL, passages=["D", "A"])
    assert wider.correct.tolist() == [True, False, False]
    assert wider.columns["recall@1"].tolist() == [1.0, 0.0, 0.0]
    with pytest.raises(Exception, match="same rows"):
        compare_predictors(items, wider)


def test_every_score_has_an_interval_even_at_its_bound():
    perfect = Table(dict(zip("ABC", np.eye(3), strict=True)) | {"one": [1, 0, 0], "two": [0, 1, 1], "three": [1, 0, 0]})
    scores = evaluate_model(perfect, SMALL)
    assert scores.n == 3 and list(scores.values) == NAMES
    sure = scores.values["ndcg@10"]
    assert (sure.value, sure.high, sure.interval) == (1.0, 1.0, "wilson") and 0 < sure.low < 0.7


def test_best_passages_come_first_and_equal_ones_in_their_order():
    ranking = rank_passages(Table(AXES), ["two", "one"], ["A", "B", "C", "D"], top=3)
    assert ranking.places.tolist() == [[3, 1, 0], [0, 1, 2]]
    assert ranking.similarities[0] == pytest.approx([0.8, 0.6, 0.0], abs=1e-6)
    similar, _ = world(n=5, passages=40, levels=6)
    many = Table({f"q{i}": row for i, row in enumerate(np.eye(5))} | {f"p{j}": c for j, c in enumerate(similar.T)})
    found = rank_passages(many, [f"q{i}" for i in range(5)], [f"p{j}" for j in range(40)], top=9)
    assert found.places.tolist() == np.argsort(-similar, axis=1, kind="stable")[:, :9].tolist()
    assert rank_passages(Table(AXES), ["one"], ["A"], top=3).places.shape == (1, 1)


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(TrainingError, match="not finite for some queries"):
        judge_model(Table(AXES | {"one": [np.nan] * 4}), SMALL)
    with pytest.raises(ConfigError, match=r"with labels and predict_proba; .*for task 'retrieval'"):
        judge_model(Table(AXES), queries(("one", "A"), task="classification"))
