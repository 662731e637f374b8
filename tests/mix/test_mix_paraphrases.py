"""Rows replaced by ready-made paraphrases of others: exact counts, nesting, provenance; on real ones too."""

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus, normalise_text
from cuvee.corpus.table import SCHEMA
from cuvee.encoders import load_encoder
from cuvee.errors import ConfigError, InputError
from cuvee.mix import replace_with_paraphrases
from cuvee.similarity import spectrum, vendi_score

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not on this machine")


def make_base(sizes, *, origin="real", groups=None):
    rows = [
        {"id": f"{label}{i}", "text": f"row {label} {i}", "target": label, "group": (groups or {}).get(f"{label}{i}")}
        for label, size in sizes.items()
        for i in range(size)
    ]
    return Corpus.from_rows(rows, origin=origin)


def make_paraphrases(counts, name=str):
    """``counts``: source id -> how many."""
    rows = [
        {"id": f"{source}/{p}", "text": f"other words {p} for {source}", "target": source[0], "group": name(source)}
        for source, count in counts.items()
        for p in range(count)
    ]
    return Corpus.from_rows(rows, origin="synthetic")


def even(sizes, each):
    return make_paraphrases({f"{label}{i}": each for label, size in sizes.items() for i in range(size)})


def tell_replaced(base, out, label):
    """Ids of the rows of a label that are paraphrased, of those that went, and of the paraphrases."""
    placed = zip(base.ids, out.corpus.ids, base.targets, strict=True)
    changed = [(gone, new) for gone, new, target in placed if target == label and gone != new]
    new = [name for _, name in changed]
    return {name.split("/")[0] for name in new}, {gone for gone, _ in changed}, set(new)


def test_m_p_of_each_of_r_sources_stand_in_for_other_rows_of_the_label():
    sizes = {"a": 10, "b": 14}
    base = make_base(sizes)
    out = replace_with_paraphrases(base, even(sizes, 4), m_p=3, r=2, seed=0)
    assert out.m_r == 6 and len(out.corpus) == 24 and out.corpus.targets == base.targets
    for label, size in sizes.items():
        sources, replaced, paraphrases = tell_replaced(base, out, label)
        assert out.corpus.targets.count(label) == size and len(sources) == 2 and len(replaced) == 6
        assert Counter(p.split("/")[0] for p in paraphrases) == dict.fromkeys(sources, 3)
        assert not sources & replaced and sources <= set(out.corpus.ids)
    assert Counter(out.corpus.origins) == {"real": 12, "synthetic": 12}
    assert str(out) == (
        "Replaced: 12 of 24 rows by paraphrases of others "
        "(m_p = 3 of each of r = 2 sources a label, m_r = 6 rows a label)"
    )


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=8, max_size=16),
    st.lists(st.integers(0, 5), min_size=8, max_size=16),
    st.integers(0, 1000),
    st.sampled_from([None, 3]),
)
def test_rows_and_labels_stay_and_smaller_settings_are_inside_larger_ones(first, second, seed, most):
    base = make_base({"a": len(first), "b": len(second)})
    counts = {f"a{i}": n for i, n in enumerate(first)} | {f"b{i}": n for i, n in enumerate(second)}
    paraphrases = make_paraphrases(counts)
    made = {}
    for m_p in range(4):
        for r in range(1, 5):
            arguments = {"m_p": m_p, "r": r, "seed": seed, "max_m_p": most}
            feasible = all(
                r * (1 + m_p) <= len(has) and sorted(has)[-r] >= m_p for has in (first, second)
            )  # the r rows with the most paraphrases, and room for theirs
            if m_p and not sum(counts.values()):
                continue
            if not feasible and m_p:
                with pytest.raises(InputError):
                    replace_with_paraphrases(base, paraphrases, **arguments)
                continue
            out = made[m_p, r] = replace_with_paraphrases(base, paraphrases, **arguments)
            again = replace_with_paraphrases(base, paraphrases, **arguments)
            assert out.corpus.table.equals(again.corpus.table)
            assert out.corpus.label_counts() == base.label_counts() and out.corpus.targets == base.targets
            assert len(set(out.corpus.ids)) == len(base) and len(set(out.corpus.texts)) == len(base)
            for label in ("a", "b"):
                sources, replaced, new = tell_replaced(base, out, label)
                assert len(replaced) == len(new) == m_p * r and sources <= set(out.corpus.ids)
    for (m, r), small in made.items():
        for (m2, r2), large in made.items():
            if m <= m2 and r <= r2:
                for label in ("a", "b"):
                    parts = (tell_replaced(base, out, label) for out in (small, large))
                    assert all(one <= two for one, two in zip(*parts, strict=True))


def test_no_paraphrases_leave_the_base_as_it_is():
    base = make_base({"a": 3, "b": 3})
    out = replace_with_paraphrases(base, make_paraphrases({}), m_p=0, r=1, seed=0)
    assert out.corpus.table.equals(base.table) and out.m_r == 0


def test_seeds_choose_other_sources_and_a_series_gives_all_able_rows_equal_chances():
    base = make_base({"a": 12})
    paraphrases = make_paraphrases({f"a{i}": 2 + 3 * (i == 5) for i in range(12)})

    def sources(most):
        made = (replace_with_paraphrases(base, paraphrases, m_p=2, r=1, seed=s, max_m_p=most) for s in range(40))
        return {source for out in made for source in tell_replaced(base, out, "a")[0]}

    assert sources(None) == {"a5"}  # it alone has five
    assert len(sources(2)) > 5


def test_sources_are_named_by_id_group_or_text():
    base = make_base({"a": 4}, groups={f"a{i}": f"g{i}" for i in range(4)})
    counts = {f"a{i}": 2 for i in range(4)}
    by_id = replace_with_paraphrases(base, make_paraphrases(counts), m_p=1, r=2, seed=3)
    for name in (lambda source: f"g{source[1:]}", lambda source: f"ROW  a {source[1:]}."):
        other = replace_with_paraphrases(base, make_paraphrases(counts, name), m_p=1, r=2, seed=3)
        assert other.corpus.table.equals(by_id.corpus.table)
    numbered = make_paraphrases(counts, lambda source: f"number {source[1:]}")
    with pytest.raises(InputError, match=r"no paraphrase has a source.*'number 0', the first id of the base 'a0'"):
        replace_with_paraphrases(base, numbered, m_p=1, r=2, seed=3)
    some = numbered.with_columns(group=["a2" if group == "number 2" else group for group in numbered.groups])
    part = replace_with_paraphrases(base, some, m_p=1, r=1, seed=3)
    assert tell_replaced(base, part, "a")[0] == {"a2"} and part.unused == {"no source row in the base": 6}
    shared = make_base({"a": 4}, groups=dict.fromkeys(("a0", "a1"), "both"))
    with pytest.raises(InputError, match="no paraphrase has a source"):  # a group of two rows names neither
        replace_with_paraphrases(shared, make_paraphrases({"a0": 2}, lambda _: "both"), m_p=1, r=1, seed=0)


def test_paraphrases_that_repeat_another_row_are_skipped_and_counted():
    base = make_base({"a": 6})
    rows = [
        {"id": "p0", "text": "ROW a 3.", "target": "a", "group": "a0"},  # a row of the base
        {"id": "p1", "text": "same words", "target": "a", "group": "a0"},
        {"id": "p2", "text": "Same words.", "target": "a", "group": "a0"},  # an earlier paraphrase
        {"id": "p3", "text": "new words", "target": "a", "group": "a0"},
        {"id": "p4", "text": "of nothing", "target": "a"},
    ]
    out = replace_with_paraphrases(base, Corpus.from_rows(rows, origin="synthetic"), m_p=2, r=1, seed=0)
    assert tell_replaced(base, out, "a")[2] == {"p1", "p3"}
    assert out.unused == {"no source row in the base": 1, "repeats another row": 2}


def test_sources_and_paraphrases_are_one_group_with_their_seed_examples_and_draw():
    sizes = {"a": 6}
    real = replace_with_paraphrases(make_base(sizes), even(sizes, 2), m_p=2, r=1, seed=0).corpus
    said = {
        i: (g, s) for i, g, s in zip(*(real.table[c].to_pylist() for c in ("id", "group", "seed_ids")), strict=True)
    }
    source = next(i for i in said if said[i][0] == i)
    assert said[f"{source}/0"] == said[f"{source}/1"] == (source, [source]) and said[source] == (source, None)
    assert Counter(real.groups)[source] == 3

    made = make_base(sizes, origin="synthetic", groups={f"a{i}": "document" for i in range(6)})
    table = made.table
    for name, value in (("seed_ids", [["real row"]] * 6), ("block", [4] * 6)):
        at = SCHEMA.get_field_index(name)
        table = table.set_column(at, SCHEMA.field(name), pa.array(value, SCHEMA.field(name).type))
    out = replace_with_paraphrases(Corpus(table), even(sizes, 2), m_p=2, r=1, seed=0).corpus
    assert out.groups == ["document"] * 6 and out.blocks.tolist() == [4] * 6
    assert out.table["seed_ids"].to_pylist() == [["real row"]] * 6


def test_too_few_say_the_largest_possible_settings_and_these_work():
    base = make_base({"a": 10, "b": 7})
    paraphrases = make_paraphrases({f"a{i}": 3 for i in range(10)} | {f"b{i}": 3 - (i > 1) for i in range(7)})
    with pytest.raises(
        InputError,
        match=r"label 'a': m_p=4 and r=2 need 10 rows, 2 of them with 4 paraphrases; it has 10 rows, 0 of them with so "
        r"many. With r=2 the largest possible m_p is 2; with m_p=4 the largest possible r is 0",
    ):
        replace_with_paraphrases(base, paraphrases, m_p=4, r=2, seed=0)
    assert replace_with_paraphrases(base, paraphrases, m_p=2, r=2, seed=0).m_r == 4
    with pytest.raises(InputError, match=r"label 'b': .*r=3 the largest possible m_p is 1; with m_p=2 .* r is 2"):
        replace_with_paraphrases(base, paraphrases, m_p=2, r=3, seed=0)
    assert replace_with_paraphrases(base, paraphrases, m_p=1, r=3, seed=0).m_r == 3


def test_bad_arguments_and_rows_are_named():
    base, good = make_base({"a": 4}), make_paraphrases({"a0": 2})
    for wrong in ({"m_p": -1, "r": 1}, {"m_p": 1, "r": 0}, {"m_p": 2, "r": 1, "max_m_p": 1}):
        with pytest.raises(ValueError, match=rf"m_p is {wrong['m_p']}, r {wrong['r']}"):
            replace_with_paraphrases(base, good, seed=0, **wrong)
    unmarked = Corpus.from_rows([{"text": "x", "target": "a"}, {"text": "y", "target": "a"}])
    with pytest.raises(InputError, match="2 of 2 paraphrases are not marked synthetic"):
        replace_with_paraphrases(base, unmarked, m_p=1, r=1, seed=0)
    labelled = Corpus.from_rows([{"id": "p", "text": "x", "target": "b", "group": "a0"}], origin="synthetic")
    with pytest.raises(InputError, match="paraphrase 'p' has label 'b', its source 'a0' has 'a'"):
        replace_with_paraphrases(base, labelled, m_p=1, r=1, seed=0)
    same_id = Corpus.from_rows([{"id": "a1", "text": "x", "target": "a", "group": "a0"}], origin="synthetic")
    with pytest.raises(InputError, match="row id 'a1' occurs 2 times"):
        replace_with_paraphrases(base, same_id, m_p=1, r=1, seed=0)
    with pytest.raises(ConfigError, match="only classification"):
        replace_with_paraphrases(Corpus(base.table, "generation"), good, m_p=1, r=1, seed=0)
    with pytest.raises(InputError, match="the base has no rows"):
        replace_with_paraphrases(base.take([]), good, m_p=1, r=1, seed=0)


# --- real paraphrases ---
def load_shared(name):
    """Real rows, and their paraphrases with the id of the row (the data numbers rows in order)."""
    folder = SHARED / name
    with (folder / "train.jsonl").open(encoding="utf-8") as stream:
        real = [json.loads(line) for line in stream]
    with gzip.open(folder / "synthetic.jsonl.gz", "rt", encoding="utf-8") as stream:
        made = [json.loads(line) for line in stream]
    base = Corpus.from_rows({"text": r["text"], "target": r["label"]} for r in real)
    ids = dict(zip(dict.fromkeys(r["origin"] for r in made), base.ids, strict=True))
    paraphrases = Corpus.from_rows(
        ({"text": r["text"], "target": r["label"], "group": ids[r["origin"]]} for r in made), origin="synthetic"
    )
    return base, paraphrases


@needs_data
@pytest.mark.slow
def test_real_paraphrases_replace_rows_and_make_the_corpus_less_diverse():
    base, paraphrases = load_shared("gptaug_stackoverflow")
    chosen = [i for label in base.labels for i in np.flatnonzero(np.array(base.targets) == label)[:30]]
    base = base.take(sorted(chosen))  # 600 of 2791 rows: most paraphrases are of other rows
    encoder = load_encoder("hashing")
    scores, used = [], []
    for m_p in (0, 2, 5, 9):
        out = replace_with_paraphrases(base, paraphrases, m_p=m_p, r=3, seed=0, max_m_p=9)
        assert out.corpus.label_counts() == base.label_counts() == dict.fromkeys(base.labels, 30)
        assert out.corpus.origins.count("synthetic") == out.m_r * 20 == m_p * 3 * 20
        assert len({normalise_text(t) for t in out.corpus.texts}) == len({normalise_text(t) for t in base.texts})
        used.append(set(out.corpus.ids) - set(base.ids))
        scores.append(vendi_score(spectrum(encoder.encode(out.corpus.texts)), 1))
    assert scores == sorted(scores, reverse=True) and scores[-1] < 0.8 * scores[0]
    assert used[0] < used[1] < used[2] < used[3]
    with pytest.raises(InputError, match=r"need 33 rows, .* it has 30 rows, .* the largest possible m_p is 9; with"):
        replace_with_paraphrases(base, paraphrases, m_p=10, r=3, seed=0)
