"""Trials of several folds, joined: each item once, each choice under one name, and nothing dropped unseen."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.encoders import load_encoder
from cuvee.evaluate.retrieval import judge_ranker
from cuvee.recommend.cells import collect_tables
from cuvee.records import Cell, Composition, Draw, Estimate, Measurement, Scores, Trial, TrialFailure
from cuvee.study.crossfit import (
    join_confirmations,
    join_estimates,
    join_measurements,
    join_trials,
    name_items,
    write_choices,
)
from cuvee.study.trials import ConfirmationTrials

COMPOSITION = Composition(
    share=0.5, real_rows=2, synthetic_rows=2, unique_rows=4, most_repeats=1, label_counts={"a": (2, 2)}
)
REAL_ONLY = Cell(kind="real-only", rows_per_label=2)


def trial(correct, cell=REAL_ONLY, generation=0, part="validation", graded=None) -> Trial:
    right = np.array(correct, dtype=bool)
    each = right.astype(float) if graded is None else np.array(graded, dtype=float)
    values = {"accuracy": Estimate(value=float(each.mean()), n=len(right))}
    return Trial(
        cell=cell,
        draw=Draw(generation=generation, sampling=0, training=0),
        composition=COMPOSITION,
        steps=1,
        part=part,
        scores=Scores(n=len(right), values=values, correct=right, graded=None if graded is None else each),
    )


@given(
    parts=st.lists(
        st.dictionaries(st.sampled_from("abcdefgh"), st.booleans(), min_size=1, max_size=6), min_size=2, max_size=4
    )
)
def test_a_joined_trial_has_every_item_once_with_its_mean(parts):
    joined = join_trials([[trial(list(p.values()))] for p in parts], [list(p) for p in parts])
    names = list(dict.fromkeys(name for part in parts for name in part))
    scores = joined[0].scores
    assert scores.n == len(names)
    for name, score, right in zip(names, scores.per_item, scores.correct, strict=True):
        given_by = [part[name] for part in parts if name in part]
        assert score == pytest.approx(np.mean(given_by)) and right == all(given_by)
    sizes = [len(part) for part in parts]
    mean = sum(sum(part.values()) for part in parts) / sum(sizes)
    assert scores.values["accuracy"].value == pytest.approx(mean)
    # without rows in common they are simply set one after another
    assert (scores.graded is None) == (sum(sizes) == len(names))


def test_a_trial_that_a_fold_lacks_is_a_failure():
    blend = Cell(kind="blend", dial="d", level="x", share=0.5, rows_per_label=2)
    failed = TrialFailure(cell=blend, draw=Draw(generation=0, sampling=0, training=0), stage="train", reason="no")
    first = [trial([1, 0]), trial([1, 1], generation=1), failed]
    second = [trial([1]), trial([1], blend), trial([0], blend, 1)]
    joined = join_trials([first, second], [["a", "b"], ["c"]])
    assert [type(outcome) for outcome in joined] == [Trial, TrialFailure, TrialFailure, TrialFailure]
    assert [outcome.reason for outcome in joined[1:]] == [
        "fold 2 has no rows for this draw", "fold 1: no", "fold 1 has no rows for this draw",
    ]  # fmt: skip
    assert joined[0].scores.per_item.tolist() == [1, 0, 1] and joined[2].stage == "train"
    assert next(iter(collect_tables(o for o in joined if isinstance(o, Trial)).values())).correct.shape == (1, 3)


def test_all_rows_of_a_pool_are_one_cell_over_folds_though_its_shares_differ():
    def of_fold(*shares):
        base = Cell(kind="blend", dial="d", rows_per_label=2, scope="this pool")
        wholes = [
            replace(base, level=level, share=share, whole=True) for level, share in zip("ab", shares, strict=True)
        ]
        part = replace(base, level="c", share=0.8)  # as much as all of another pool, and not all of its own
        repeated = [replace(REAL_ONLY, kind="real-duplicated", share=share) for share in sorted({*shares, 0.8})]
        return [trial([True, False], cell) for cell in (*wholes, part, *repeated)]

    shares = [(0.8, 0.75), (0.8, 0.8), (0.7, 0.8)]
    joined = join_trials([of_fold(*s) for s in shares], [[f"{s} 1", f"{s} 2"] for s in shares])
    found = [(o.cell.kind, o.cell.level, o.cell.share) for o in joined if isinstance(o, Trial)]
    assert found == [
        ("blend", "a", 0.8), ("blend", "b", 0.75), ("blend", "c", 0.8),
        ("real-duplicated", None, 0.75), ("real-duplicated", None, 0.8),
    ]  # fmt: skip


def test_graded_scores_are_joined_too():
    parts = [[trial([0, 1], graded=[0.25, 1])], [trial([0], graded=[0.75])]]
    scores = join_trials(parts, [["a", "b"], ["a"]])[0].scores
    assert scores.per_item.tolist() == [0.5, 1] and scores.correct.tolist() == [False, True]


def test_groups_of_folds_are_joined_by_the_items_that_they_share():
    def grouped(codes):
        one = trial([1] * len(codes))
        return [replace(one, scores=replace(one.scores, groups=np.array(codes)))]

    # fold 2 validates on group b, c too, and numbers it otherwise; x and y are apart in both
    joined = join_trials([grouped([0, 1, 1]), grouped([0, 0, 1, 1])], ["xbc", "cbyz"])
    assert joined[0].scores.groups.tolist() == [0, 1, 1, 2, 2]
    assert collect_tables(joined)[REAL_ONLY].correct.shape == (1, 3)
    assert join_trials([[trial([1])]], ["a"])[0].scores.groups is None


def confirmed(level, share, generations, ids, right) -> ConfirmationTrials:
    cell = Cell(kind="blend", dial="d", level=level, share=share, rows_per_label=2)
    duplicated = replace(cell, kind="real-duplicated", dial=None, level=None)
    outcomes = [trial(right, cell, g, "test") for g in generations]
    outcomes += [trial([0] * len(ids), REAL_ONLY, g, "test") for g in generations]
    outcomes += [trial([0] * len(ids), duplicated, g, "test") for g in generations]
    rows = Corpus.from_rows([{"id": i, "text": i, "target": "a"} for i in ids])
    return ConfirmationTrials(cell=cell, outcomes=tuple(outcomes), test=rows, fresh_draws=generations[0] >= 1000)


def test_what_each_fold_chose_is_confirmed_under_one_name():
    best = Cell(kind="blend", dial="d", level="x", share=0.75, rows_per_label=2)
    folds = [confirmed("x", 0.75, [1000, 1002], ["a", "b"], [1, 1]), confirmed("y", 0.5, [0, 1], ["c"], [0])]
    found = join_confirmations(folds, best)
    assert (found.cell, found.test_items, found.folds) == (best, 3, 2)
    assert found.accuracy == pytest.approx(2 / 3) and not found.fresh_draws
    assert [(gain.over, gain.draws) for gain in found.gains] == [("real-only", 2), ("real-duplicated", 2)]
    assert found.note.startswith("Fold 1 chose d=x at share 0.75; fold 2 chose d=y at share 0.5.")
    fresh = confirmed("x", 0.75, [1000, 1001], ["c"], [1])
    assert join_confirmations([folds[0], fresh], best).fresh_draws
    short = replace(folds[1], outcomes=tuple(o for o in folds[1].outcomes if o.draw.generation == 0))
    assert "3 of 6 trials are left out" in join_confirmations([folds[0], short], best).note
    none = replace(folds[1], outcomes=tuple(o for o in folds[1].outcomes if o.cell.kind != "blend"))
    assert join_confirmations([folds[0], none], best) is None


def test_choices_and_items_in_words():
    x, y = (Cell(kind="blend", dial="d", level=level, share=0.5, rows_per_label=2) for level in "xy")
    assert (
        write_choices([x, y, x])
        == "Fold 1 chose d=x at share 0.5; fold 2 chose d=y at share 0.5; fold 3 chose d=x at share 0.5."
    )
    assert write_choices([y, y]) == "Every fold chose d=y at share 0.5."
    rows = [{"text": "q", "target": "1", "context": "c"}, {"text": "q", "target": "2", "context": "d"}]
    rows += [{"text": "q", "target": "3", "context": "c"}]
    assert len(name_items(Corpus.from_rows(rows))) == 3
    assert name_items(Corpus.from_rows(rows, task="generation")) == ["c\n\nq", "d\n\nq"]
    assert name_items(Corpus.from_rows(rows, task="retrieval")) == ["q"]


class Alike:
    """A ranker: queries and passages by the hashing encoder."""

    def encode_queries(self, texts):
        return load_encoder("hashing").encode(texts)

    encode_passages = encode_queries


def test_items_are_named_in_the_order_in_which_they_are_scored():
    rows = [{"text": f"query {i % 3}", "target": f"passage {i}"} for i in (4, 0, 2, 3, 1)]
    corpus = Corpus.from_rows(rows, task="retrieval")
    judged = judge_ranker(Alike(), corpus)
    assert name_items(corpus) == [key.split("\x00")[0] for key in judged.keys] == ["query 1", "query 0", "query 2"]


NUMBERS = st.floats(min_value=-100, max_value=100)


@given(found=st.lists(st.tuples(NUMBERS, st.floats(0, 9), st.floats(0, 9), st.floats(0, 1)), min_size=2, max_size=6))
def test_a_number_over_folds_is_their_mean_with_its_range(found):
    folds = [
        Estimate(value=v, low=v - a, high=v + b, n=10 + i, p_value=p, settings={"folds": 5, "seen": i})
        for i, (v, a, b, p) in enumerate(found)
    ]
    joined, values = join_estimates(folds), [v for v, *_ in found]
    assert joined.value == pytest.approx(np.mean(values)) and joined.n == 10
    assert joined.settings == {"folds": 5, "over_folds": len(found), "lowest": min(values), "highest": max(values)}
    # no narrower than the interval of independent folds, no wider than the widest
    widths = [e.high - e.low for e in folds]
    assert np.sqrt(np.square(widths).sum()) / len(widths) - 1e-9 <= joined.high - joined.low <= max(widths) + 1e-9
    assert joined.low - 1e-9 <= joined.value <= joined.high + 1e-9
    assert joined.p_value == pytest.approx(min(1, 2 * np.mean([p for *_, p in found])))
    half = [folds[0], replace(folds[1], low=None, p_value=None)]
    assert (join_estimates(half).low, join_estimates(half).high, join_estimates(half).p_value) == (None, None, None)


def measured(name, print_, value, n=8, **more) -> Measurement:
    values = {"vendi_q1": Estimate(value=value, n=n)} | {k: Estimate(value=v, n=n) for k, v in more.items()}
    return Measurement(
        name=name, fingerprint=print_, against="r" + print_, n=n, encoder="e", encoder_hash="h", seed=0, values=values
    )


def test_measurements_of_folds_are_joined_by_pool():
    first = {"d=a": measured("d=a", "1", 3.0), "d=b": measured("d=b", "2", 5.0, mmd=0.5)}
    second = {"d=a": measured("d=a", "3", 5.0, n=6), "real": measured("real", "4", 9.0)}
    joined = join_measurements([first, second])
    assert list(joined) == ["d=a", "d=b", "real"] and joined["d=b"] == first["d=b"] and joined["real"] == second["real"]
    both = joined["d=a"]
    assert (both.values["vendi_q1"].value, both.n) == (4.0, 6)
    assert both.fingerprint not in "13" and both.against not in ("r1", "r3")
    assert join_measurements([first, first])["d=b"].values["mmd"].value == 0.5
