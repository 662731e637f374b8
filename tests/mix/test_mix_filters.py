"""Filters: what goes, why, and that everything adds up; on crafted rows, and on real LLM data where it is at hand."""

import gzip
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus, normalise_text
from cuvee.defects import NoLeaks
from cuvee.encoders import HashingEncoder, load_encoder
from cuvee.errors import ConfigError, InputError, LeakError
from cuvee.fingerprint import derive_rng
from cuvee.measure import GivenVectors, measure_corpus
from cuvee.mix import (
    Agreement,
    Dedupe,
    Degenerate,
    FewerPerCluster,
    Keep,
    Leak,
    Pairs,
    Scored,
    apply_filters,
    first_rows,
    row_wise,
)
from cuvee.mix.filters import FILTERS, Candidates, Filtered, FilterVerdict
from cuvee.probe import fit_probe
from cuvee.similarity import unit_rows

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not on this machine")
encode = HashingEncoder().encode
SHORTER = np.random.default_rng(0).normal(size=(512, 12)).astype(np.float32)


def make_pool(rows, *, groups=None, origin="synthetic"):
    names = groups or [None] * len(rows)
    return Corpus.from_rows(
        [
            {"id": f"r{i}", "text": text, "target": label, "group": group}
            for i, ((text, label), group) in enumerate(zip(rows, names, strict=True))
        ],
        origin=origin,
    )


def look_up(*tables):
    """An encoder that knows these texts; ``tables`` are pairs of a corpus (or texts) and their vectors."""
    known = {}
    for texts, vectors in tables:
        known |= zip(getattr(texts, "texts", texts), vectors, strict=True)
    return lambda texts: np.stack([known[text] for text in texts])


def reasons_of(filtered: Filtered) -> dict[str, str]:
    return {r.id: r.reason for r in filtered.removed}


# --- crafted rows ---
def test_exact_repeats_go_and_the_first_row_stays():
    pool = make_pool([("A cat.", "a"), ("a  CAT", "a"), ("Real row!", "a"), ("A cat", "b"), ("a dog", "b")])
    out = apply_filters(pool, [Dedupe(against=["real row"])])
    assert out.corpus.ids == ["r0", "r4"] and out.rows.tolist() == [0, 4]
    assert reasons_of(out) == {
        "r1": "repeats an earlier row",
        "r2": "repeats a given text",
        "r3": "repeats an earlier row of another label",
    }


def test_a_chain_of_near_rows_keeps_those_that_are_unlike_the_first():
    angles = np.radians([0, 20, 40, 200, 201, 90])
    vectors = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    pool = make_pool([(f"text {i}", "a") for i in range(6)])
    near = float(np.cos(np.radians(25)))
    out = apply_filters(pool, [Dedupe(near=near)], encode=look_up((pool, vectors)))
    assert out.corpus.ids == ["r0", "r2", "r3", "r5"]  # 40 degrees is linked to 0 through 20, yet unlike it
    assert set(reasons_of(out).values()) == {"near-duplicate of an earlier row"}
    against = Dedupe(near=near, against=["given"])
    both = look_up((pool, vectors), (["given"], np.array([[0.0, 3.0]], dtype=np.float32)))
    found = reasons_of(apply_filters(pool, [against], encode=both))
    assert found == {
        "r1": "near-duplicate of an earlier row",
        "r4": "near-duplicate of an earlier row",
        "r5": "near-duplicate of a given text",
    }
    copies = apply_filters(pool, [Dedupe(near=1.0)], encode=look_up((pool, np.tile(vectors[1], (6, 1)))))
    assert copies.corpus.ids == ["r0"]


def test_degenerate_rows_go_with_their_reason():
    pool = make_pool([("a fine day", "a"), ("I cannot assist with that.", "a"), ("ERROR: no answer", "a")])
    assert reasons_of(apply_filters(pool, [Degenerate()])) == {"r1": "refusal", "r2": "error message"}


def test_leaks_go_by_kind_and_the_note_says_how_they_were_looked_for():
    held_out = ["why was my card payment declined at the shop today", "top up failed"]
    pool = make_pool(
        [
            ("Top up failed!", "a"),
            ("failed top up", "a"),
            ("so why was my card payment declined at the shop today", "a"),
            ("where is my new card", "a"),
            ("why was my card payments declined at the shops today", "a"),
        ]
    )
    by_words = apply_filters(pool, [Leak(held_out=held_out)])
    kinds = {"r0": "exact", "r1": "reordered", "r2": "overlap"}
    assert reasons_of(by_words) == {row: f"leaks held-out data ({kind})" for row, kind in kinds.items()}
    assert by_words.steps[0].note == "2 held-out texts; by words alone"
    vectors = np.eye(5, 6, dtype=np.float32)
    known = look_up((pool, vectors), (held_out, vectors[[4, 4]]), (["some real row"], np.eye(6, dtype=np.float32)[5:]))
    by_vectors = apply_filters(pool, [Leak(held_out=held_out, reference=["some real row"])], encode=known)
    assert reasons_of(by_vectors)["r4"] == "leaks held-out data (nearest)"
    assert by_vectors.steps[0].note.startswith("2 held-out texts; neighbours above cosine 0.950; 0.0% of the real")
    encoded = apply_filters(pool, [Leak(held_out=held_out)], encode=encode)
    assert "neighbours above cosine 0.950" in encoded.steps[0].note
    assert apply_filters(pool, [Leak(held_out=[])]).corpus.ids == pool.ids


def test_a_pool_that_leaks_as_a_whole_stops_with_its_share_examples_and_a_remedy():
    rng = np.random.default_rng(0)
    real = rng.standard_normal((120, 16)).astype(np.float32)
    near = real[:60] + 0.6 * rng.standard_normal((60, 16)).astype(
        np.float32
    )  # a cosine of some 0.85, refused by no rule
    vectors = {f"real {i}": v for i, v in enumerate(real)} | {f"written {i}": v for i, v in enumerate(near)}

    def look_up(texts):
        return unit_rows(np.stack([vectors[text] for text in texts]))

    pool = Corpus.from_rows([{"text": f"written {i}", "target": "a"} for i in range(60)], origin="synthetic")
    held_out, train = [f"real {i}" for i in range(60)], [f"real {i}" for i in range(60, 120)]
    with pytest.raises(
        LeakError, match=r"of \d+ rows whose nearest real row is held out, .* 'written .* 'real .*whole: false"
    ):
        apply_filters(pool, [Leak(held_out=held_out, reference=train)], encode=look_up)
    kept = apply_filters(pool, [Leak(held_out=held_out, reference=train, whole=False)], encode=look_up)
    assert len(kept.corpus) == 60
    assert len(apply_filters(pool, [Leak(held_out=train, reference=held_out)], encode=look_up).corpus) == 60
    assert len(apply_filters(pool, [Leak(held_out=held_out)], encode=look_up).corpus) == 60  # no yardstick


class Careless(Leak):
    """Overlooks every leak."""

    def judge(self, rows: Candidates) -> FilterVerdict:
        return FilterVerdict(reasons=(None,) * len(rows.corpus))


class Swap:
    """Not a filter of rows: it changes them behind the back of the sequence."""

    name = "swap"

    def judge(self, rows: Candidates) -> FilterVerdict:
        rows.corpus = make_pool([("Held out", "a")] * len(rows.corpus))
        return FilterVerdict(reasons=(None,) * len(rows.corpus))


def test_the_guard_stops_after_the_leak_filter_and_after_each_later_step():
    pool = make_pool([("fine", "a"), ("held OUT!", "a")])
    with pytest.raises(LeakError, match=r"row 'r1' \('held OUT!'\) is a held-out text after filter 'leak' \(1 of 2"):
        apply_filters(pool, [Careless(held_out=["held out"])])
    with pytest.raises(LeakError, match="after filter 'swap'"):
        apply_filters(pool, [Leak(held_out=["held out"]), Swap()])
    with pytest.raises(LeakError, match=r"row 'r1' .* remove leaks"):
        NoLeaks(["held out"]).check(pool)
    NoLeaks(["held"]).check(pool)
    NoLeaks(["another"]).check(pool)
    assert apply_filters(pool, [Swap()]).steps[0].removed == 0  # nothing is held out, nothing to hold


def test_fewer_rows_of_each_group_or_cluster_nested_in_the_limit():
    groups = ["x", "x", None, "x", "y", "y", None]
    pool = make_pool([(f"text {i}", "a") for i in range(7)], groups=groups)
    kept = [apply_filters(pool, [FewerPerCluster(limit=limit)]).corpus.ids for limit in (1, 2, 3)]
    assert kept[0] == ["r0", "r2", "r4", "r6"] and kept[1] == ["r0", "r1", "r2", "r4", "r5", "r6"]
    assert kept[2] == pool.ids and set(kept[0]) <= set(kept[1])
    angles = np.radians([0, 20, 40, 200, 201, 90, 300])
    vectors = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    out = apply_filters(pool, [FewerPerCluster(limit=1, threshold=0.9)], encode=look_up((pool, vectors)))
    assert out.corpus.ids == ["r0", "r3", "r5", "r6"]  # here a chain is one family
    assert set(reasons_of(out).values()) == {"not among the first 1 of its cluster"}
    assert out.steps[0].note.startswith("4 clusters, the largest of 3 rows")


# --- agreement ---
def blobs(rows, *, seed, noise=0.0, name="row"):
    """Rows of two labels whose vectors are apart; a fraction ``noise`` of the labels is wrong."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 2, rows)
    vectors = unit_rows((rng.normal(size=(rows, 8)) * 0.4 + np.eye(8)[true] * 2).astype(np.float32))
    wrong = rng.random(rows) < noise
    labels = ["ab"[int(t ^ w)] for t, w in zip(true, wrong, strict=True)]
    return make_pool([(f"{name} {i}", label) for i, label in enumerate(labels)]), vectors, wrong


def test_agreement_drops_wrong_labels_and_reports_how_far_to_trust_it():
    train, train_vectors, _ = blobs(60, seed=0, name="real")
    pool, vectors, wrong = blobs(200, seed=1, noise=0.3)
    known = look_up((pool, vectors), (train, train_vectors))
    out = apply_filters(pool, [Agreement(train=train, threshold=0.5)], encode=known)
    assert not wrong[out.rows].any() and len(out.rows) == int((~wrong).sum())
    assert out.steps[0].reasons == {"label less probable than 0.5": int(wrong.sum())}
    assert out.steps[0].note.startswith("probe of 60 real rows, cross-validated accuracy 1.000")
    best = apply_filters(pool, [Agreement(train=train, top=0.5)], encode=known)
    assert not wrong[best.rows].any() and len(best.rows) == 100
    # labels dealt at random: the note must not promise anything
    random = make_pool([(f"noise {i}", "ab"[i % 2]) for i in range(60)])
    vectors_of_noise = unit_rows(np.random.default_rng(5).normal(size=(60, 8)).astype(np.float32))
    doubtful = Agreement(train=random, threshold=0.5)
    guessed = apply_filters(pool, [doubtful], encode=look_up((pool, vectors), (random, vectors_of_noise)))
    assert float(guessed.steps[0].note.split("accuracy ")[1].split(" ")[0]) < 0.7
    given = GivenVectors("blobs", vectors, vectors_of_noise)
    measured = measure_corpus(pool, against=random, encoder=given, metrics=["label_agreement"])
    # of two labels the likelier one has a half: what is measured is what would stay
    assert len(guessed.rows) / 200 == measured.values["label_agreement"].value
    judged = fit_probe(vectors_of_noise, random.targets).predict(vectors)
    assert guessed.rows.tolist() == np.flatnonzero(np.array(judged) == np.array(pool.targets)).tolist()
    constant = look_up((pool, vectors), (random, np.tile(vectors[:1], (60, 1))))
    assert "no better than always saying 'a'" in apply_filters(pool, [doubtful], encode=constant).steps[0].note
    few = Agreement(train=train.take([0, int(np.argmax(np.array(train.targets) != train.targets[0]))]), threshold=0.5)
    assert "too few to cross-validate" in apply_filters(pool, [few], encode=encode).steps[0].note


@settings(max_examples=5, deadline=None)  # two probes and their cross-validation a case
@given(st.integers(0, 1000), st.floats(0.05, 1), st.floats(0.05, 1))
def test_top_keeps_exact_counts_in_the_proportions_of_labels_and_is_nested(seed, one, other):
    train, train_vectors, _ = blobs(30, seed=7, name="real")
    pool, vectors, _ = blobs(41, seed=seed, noise=0.3)
    small, large = sorted((one, other))
    kept = {}
    for top in (small, large):
        known = look_up((pool, vectors), (train, train_vectors))
        out = apply_filters(pool, [Agreement(train=train, top=top)], encode=known)
        assert len(out.corpus) == int(np.floor(top * 41 + 0.5))
        for label, rows in pool.label_counts().items():
            assert abs(out.corpus.label_counts().get(label, 0) - len(out.corpus) * rows / 41) < 1
        kept[top] = set(out.corpus.ids)
    assert kept[small] <= kept[large]


def test_equal_probabilities_go_by_row_order_and_unknown_labels_always_go():
    train, train_vectors, _ = blobs(30, seed=7, name="real")
    pool = make_pool([("one", "a"), ("two", "z"), ("three", "a"), ("four", "a"), ("five", "a")])
    known = look_up((pool, np.tile(train_vectors[0], (5, 1))), (train, train_vectors))
    out = apply_filters(pool, [Agreement(train=train, top=0.5)], encode=known)
    assert out.corpus.ids == ["r0", "r2"]
    assert reasons_of(out)["r1"] == "has a label the real rows lack"
    loose = apply_filters(pool, [Agreement(train=train, threshold=0)], encode=known)
    assert list(reasons_of(loose)) == ["r1"]


# --- the sequence ---
def test_vectors_are_made_once_and_only_of_the_rows_left_by_then():
    asked = []

    def counting(texts):
        asked.append(list(texts))
        return encode(texts)

    pool = make_pool([("one cat", "a"), ("one cat", "a"), ("two dogs", "b"), ("three birds", "b")])
    steps = [Dedupe(), Dedupe(near=0.9, name="near"), FewerPerCluster(limit=1, threshold=0.9), Leak(held_out=["x y"])]
    out = apply_filters(pool, steps, encode=counting)
    assert asked == [["one cat", "two dogs", "three birds"], ["x y"]]
    assert [s.name for s in out.steps] == ["dedupe", "near", "fewer-per-cluster", "leak"]
    assert "dedupe 4 -> 3 1 repeats an earlier row" in " ".join(str(out).split())
    assert "3 of 4 rows left" in out._repr_html_()
    assert [(r.slot, r.reason) for r in out.rejected] == [("r1", "dedupe: repeats an earlier row")]


def test_vectors_stay_with_their_rows():
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 2, 3]]
    pool = make_pool([(f"text {i}", "a") for i in range(6)])
    first = Keep("first", lambda p: ["gone" if row == "r0" else None for row in p.ids])
    steps = [FewerPerCluster(limit=2, threshold=0.9), first, Dedupe(near=0.9)]
    assert apply_filters(pool, steps, encode=look_up((pool, vectors))).corpus.ids == ["r1", "r2", "r3", "r5"]


WORDS = st.sampled_from(["red", "blue", "Red!", "green", "held", "lost", "it it it it it it it it"])
ROWS = st.lists(st.tuples(st.lists(WORDS, min_size=1, max_size=3).map(" ".join), st.sampled_from("ab")), max_size=25)


@settings(max_examples=30, deadline=None)
@given(ROWS, st.permutations(range(5)), st.integers(1, 3))
def test_counts_add_up_and_every_row_is_kept_or_listed_once(rows, order, limit):
    pool = make_pool(rows, groups=[text.split()[0] for text, _ in rows])
    held_out = ["held", "lost red"]
    filters = [
        Dedupe(against=["blue"], near=0.95),
        Degenerate(),
        Leak(held_out=held_out),
        FewerPerCluster(limit=limit),
        Keep("own", short_texts),
    ]
    chosen = [filters[i] for i in order]
    out, again = (apply_filters(pool, chosen, encode=lambda texts: encode(texts) @ SHORTER) for _ in range(2))
    assert out.corpus.table.equals(again.corpus.table) and out.removed == again.removed and out.steps == again.steps
    assert out.corpus.table.equals(pool.take(out.rows).table)  # texts, labels and order untouched
    assert sorted([*out.corpus.ids, *(r.id for r in out.removed)]) == sorted(pool.ids)
    by_id = dict(zip(pool.ids, pool.texts, strict=True))
    assert all(r.text == by_id[r.id] for r in out.removed)
    before = [len(pool), *(s.rows_after for s in out.steps)]
    assert [s.rows_before for s in out.steps] == before[:-1] and before[-1] == len(out.corpus)
    assert Counter((r.filter, r.reason) for r in out.removed) == {
        (s.name, reason): count for s in out.steps for reason, count in s.reasons.items()
    }
    keys = [normalise_text(text) for text in out.corpus.texts]
    assert len(set(keys)) == len(keys) and not {normalise_text(t) for t in held_out} & set(keys)
    assert max(Counter(out.corpus.groups).values(), default=0) <= limit


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 500), st.floats(0.3, 0.99))
def test_no_two_rows_that_stay_are_near_and_each_that_goes_is_near_one_that_stays(seed, near):
    rng = np.random.default_rng(seed)
    vectors = unit_rows(rng.normal(size=(40, 3)).astype(np.float32))
    pool = make_pool([(f"text {i}", "a") for i in range(40)])
    out = apply_filters(pool, [Dedupe(near=near)], encode=look_up((pool, vectors)))
    cosines = vectors @ vectors.T
    kept = out.rows
    inside = cosines[np.ix_(kept, kept)] - 2 * np.eye(len(kept))
    assert inside.max(initial=-1) < near + 1e-5
    for row in np.setdiff1d(np.arange(40), kept):
        assert cosines[row, kept[kept < row]].max() > near - 1e-5


def short_texts(pool):
    return ["too long" if len(text) > 10 else None for text in pool.texts]


@pytest.mark.trust("own_filters", __name__)
def test_a_function_of_the_users_own_is_a_filter(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_filters", sys.modules[__name__])
    pool = make_pool([("short", "a"), ("rather long", "a")])
    out = apply_filters(pool, [Keep.load("own_filters:short_texts")])
    assert [(r.id, r.filter, r.reason) for r in out.removed] == [("r1", "own_filters:short_texts", "too long")]
    with pytest.raises(ConfigError, match="unknown filter 'dedup'; did you mean 'dedupe'"):
        Keep.load("dedup")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        Keep.load("own_filters:missing")
    with pytest.raises(ConfigError, match=r"it must be a function of \(corpus\)"):
        Keep.load("own_filters:WORDS_OF_NOTHING")
    for function, says in (
        (lambda _: [None], "filter 'odd' gave 1 reasons for 2 rows"),
        (lambda _: ["", None], "filter 'odd' gave the reason ''"),
        (lambda _: None, "filter 'odd' failed with TypeError"),
        (lambda p: [p.texts[9], None], "filter 'odd' failed with IndexError: list index out of range; mend"),
    ):
        with pytest.raises(ConfigError, match=says):
            apply_filters(pool, [Keep("odd", function)])


@pytest.mark.trust("failing_filters")
def test_a_module_that_fails_as_it_is_imported_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "failing_filters.py").write_text("raise ZeroDivisionError('oh')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="filter 'failing_filters:x' cannot be loaded: ZeroDivisionError: oh"):
        Keep.load("failing_filters:x")


def test_rows_with_contexts_are_compared_with_them_and_leak_by_them():
    rows = [("who is it", "Ann", "one"), ("Who is it.", "Bob", "two"), ("who is it", "Cid", "one"),
            ("what now", "x" * 40, "three"), ("why so", "as it is", "Two!")]  # fmt: skip
    pool = Corpus.from_rows(
        [{"text": t, "target": y, "context": c, "id": f"r{i}"} for i, (t, y, c) in enumerate(rows)],
        origin="synthetic", task="generation",
    )  # fmt: skip
    filters = [Dedupe(against=["two\n\nwho is it"]), Degenerate(), Leak(held_out=["z"], sources=["two"])]
    out = apply_filters(pool, filters)
    assert {r.id: (r.filter, r.reason) for r in out.removed} == {
        "r1": ("dedupe", "repeats a given text"),
        "r2": ("dedupe", "repeats an earlier row"),
        "r3": ("degenerate", "completion: repetition"),
        "r4": ("leak", "leaks held-out data (source)"),
    }
    passages = Corpus.from_rows([{"text": "ask", "target": "Passage A."}], origin="synthetic", task="retrieval")
    assert len(apply_filters(passages, [Leak(held_out=["z"], sources=["passage a"])]).corpus) == 0
    with pytest.raises(LeakError, match="is about a held-out source"):
        NoLeaks([], ["passage a"]).check(passages)


def make_pairs(*rows, **more):
    made = [{"text": text, "target": target, "context": context} for text, target, context in rows]
    return Corpus.from_rows([{**row, "id": f"r{i}"} for i, row in enumerate(made)], task="generation", **more)


def test_answers_go_that_copy_run_on_or_stand_nowhere_in_their_context():
    context = "An old miller had three sons, and when he died the youngest got nothing but a cat."
    pool = make_pairs(
        ("What did the youngest son get?", "a cat", context),
        ("What did the youngest son get?", "What did the youngest son get", context),
        ("What did he get?", context.upper(), context),
        ("Who was old?", "the millers", context),  # the same word but for its end
        ("What did he get?", "a golden palace far away", context),
        ("What did he get?", "a cat and a cat and a cat", context),
        ("Name a cat with boots", "boots of a cat", None),  # without a context the text is what it stands in
    )
    reasons = reasons_of(apply_filters(pool, [Pairs(grounded=0.5, longest=6)]))
    assert reasons == {
        "r1": "answer repeats what it answers", "r2": "answer repeats what it answers",
        "r4": "answer not grounded in what it is about", "r5": "answer too long",
    }  # fmt: skip
    assert [*reasons_of(apply_filters(pool, [Pairs()]))] == ["r1", "r2"]


def test_rows_are_kept_by_a_score_from_outside_and_the_note_has_the_real_rows_own():
    pool = make_pairs(*[("why?", "a" * n, None) for n in range(5)])
    real = make_pairs(*[("why?", "a" * 3, None) for _ in range(120)])
    score = lambda rows: np.array([np.nan if t == "a" else len(t) / 4 for t in rows.targets])  # noqa: E731
    found = apply_filters(pool, [Scored(score=score, least=0.6, what="agreement", real=real, name="reader")])
    low = "agreement below 0.6"
    assert reasons_of(found) == {"r0": low, "r1": "no agreement", "r2": low}
    assert found.steps[0].note == "mean agreement 0.56; of 100 real rows 0.75, of which 100% would stay"


WORDS_OF_NOTHING = 3


def test_no_rows_are_asked_about_after_the_last_one_went():
    pool = make_pool([("one", "a")])
    out = apply_filters(pool, [Keep("all", lambda p: ["gone"] * len(p)), FewerPerCluster(limit=1, threshold=0.5)])
    assert len(out.corpus) == 0 and out.steps[1].note == "no rows left to judge"
    assert apply_filters(pool, []).corpus.ids == ["r0"]


def test_the_table_lists_each_filter_under_its_own_name():
    made = {
        "agreement": Agreement(train=make_pool([("a", "a")]), top=0.5),
        "dedupe": Dedupe(),
        "degenerate": Degenerate(),
        "fewer-per-cluster": FewerPerCluster(limit=1),
        "judge": Scored(score=len, least=5, what="verdict", real=make_pool([("a", "a")]), name="judge"),
        "leak": Leak(held_out=()),
        "pairs": Pairs(),
        "reader": Scored(score=len, least=0.3, what="agreement", real=make_pool([("a", "a")]), name="reader"),
    }
    assert tuple(made) == FILTERS
    assert all(each.name == name for name, each in made.items())


def test_bad_arguments_are_named():
    train = make_pool([("one", "a"), ("two", "b")])
    for wrong, message in [
        (lambda: Dedupe(near=1.5), "near is 1.5"),
        (lambda: Agreement(train=train), "give exactly one"),
        (lambda: Agreement(train=train, top=0.5, threshold=0.5), "give exactly one"),
        (lambda: Agreement(train=train, top=0), "top 0;"),
        (lambda: Agreement(train=train, threshold=2), "threshold is 2"),
        (lambda: apply_filters(train, [Dedupe(near=0.9)]), "filter 'dedupe' compares vectors"),
        (lambda: apply_filters(train, [Agreement(train=train, top=1)]), "filter 'agreement' compares vectors"),
    ]:
        with pytest.raises(ValueError, match=message):
            wrong()
    with pytest.raises(ConfigError, match="task 'generation' has none"):
        Agreement(train=Corpus(train.table, "generation"), top=0.5)
    with pytest.raises(InputError, match="no vector for 'one'"):
        apply_filters(train, [Dedupe(near=0.9)], encode=lambda texts: np.zeros((len(texts), 2), np.float32))


# --- real data ---
def load_shared(name, file, origin):
    path = SHARED / name / file
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    return Corpus.from_rows(
        [{"text": r["text"], "target": r["label"], "group": r.get("origin")} for r in rows], origin=origin
    )


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file", "exact", "duplicates"),
    [
        ("gptaug_banking", "synthetic.jsonl.gz", 12, 22),
        ("gptaug_banking", "train.jsonl", 0, 0),
        ("gptaug_stackoverflow", "synthetic.jsonl.gz", 0, 21),
        ("gptaug_stackoverflow", "dev.jsonl", 3, 1),
    ],
)
def test_the_known_leaks_and_duplicates_of_real_data_go_and_are_all_listed(name, file, exact, duplicates):
    pool = load_shared(name, file, "synthetic")
    train, test = load_shared(name, "train.jsonl", "real"), load_shared(name, "test.jsonl", "real")
    reference = [] if file == "train.jsonl" else train.texts
    # vectors of hashed n-grams for the smaller pools only: they add little here but time
    out = apply_filters(
        pool,
        [Leak(held_out=test.texts, reference=reference), Dedupe()],
        encode=encode if len(pool) < 3_000 else None,
    )
    leaks, repeats = out.steps
    assert leaks.reasons.get("leaks held-out data (exact)", 0) == exact
    assert duplicates - exact <= repeats.removed <= duplicates  # a repeated leak went as a leak
    assert not {normalise_text(t) for t in out.corpus.texts} & {normalise_text(t) for t in test.texts}
    assert len(set(map(normalise_text, out.corpus.texts))) == len(out.corpus)
    listed = [r.id for r in out.removed]
    assert len(set(listed)) == len(listed) and set(listed) | set(out.corpus.ids) == set(pool.ids)
    assert len(listed) == len(pool) - len(out.corpus) > 0
    if exact:
        with pytest.raises(LeakError, match=rf"\({exact} of {len(pool)} rows are\)"):
            NoLeaks(test.texts).check(pool)
    NoLeaks(test.texts).check(out.corpus)


@needs_data
@pytest.mark.slow
def test_agreement_keeps_real_synthetic_rows_that_another_probe_believes_more_than_random_ones():
    real = load_shared("workergpt_sentiment", "train.jsonl", "real")
    pool = load_shared("workergpt_sentiment", "synthetic.jsonl.gz", "synthetic")
    pool = pool.take(np.sort(derive_rng(0, "sample").choice(len(pool), 500, replace=False)))
    halves = derive_rng(0, "halves").permutation(len(real))
    ours, theirs = real.take(halves[:250]), real.take(halves[250:])
    encoder = load_encoder()
    out = apply_filters(pool, [Agreement(train=ours, top=0.5)], encode=encoder.encode)
    judge = fit_probe(encoder.encode(theirs.texts), theirs.targets)
    hits = np.array(judge.predict(encoder.encode(pool.texts))) == np.array(pool.targets)
    assert len(out.rows) == 250
    rng = np.random.default_rng(0)
    random = [hits[rng.choice(500, 250, replace=False)].mean() for _ in range(200)]
    assert hits[out.rows].mean() > max(random)


def test_row_wise_filters_judge_the_rows_that_are_needed_and_those_that_stand_in_for_removed_ones():
    rng, words = np.random.default_rng(5), [f"word{k}" for k in range(40)]
    texts = [" ".join(rng.choice(words[20 * (i % 2) :][:20], 6)) for i in range(260)]
    train = make_pool([(text, "ab"[i % 2]) for i, text in enumerate(texts[:20])], origin="real")
    wrong = set(range(0, 200, 3))  # a third has the other label
    rows = [(text, "ab"[(i + (i in wrong)) % 2]) for i, text in enumerate(texts[20:220])]
    held_out = texts[220:]
    pool = make_pool([*rows, *[(f"{text} {text}", "a") for text in held_out], (held_out[0], "a")])
    filters = [FewerPerCluster(limit=200), Agreement(train=train, threshold=0.5), Leak(held_out=held_out, whole=False)]
    assert row_wise(filters) == filters[1:] and list(row_wise([*filters, Dedupe()])) == []
    seen = set()

    def count(texts):
        seen.update(texts)
        return encode(texts)

    def take(corpus, label_rows=12):
        return np.isin(np.arange(len(corpus)), first_rows(corpus, {"a": label_rows, "b": label_rows}, seed=3))

    every = apply_filters(pool, filters, encode=encode).corpus
    some = apply_filters(pool, filters, encode=count, needed=take)
    assert every.keep(take(every)).ids == some.corpus.keep(take(some.corpus)).ids
    judged = {r.text for r in some.removed} | set(some.corpus.keep(take(some.corpus)).texts)
    assert seen & set(pool.texts) - set(held_out) == judged - {held_out[0]}  # its words give that away, needed or not
    assert len(judged) < 80 < len(pool) and held_out[0] not in some.corpus.texts
