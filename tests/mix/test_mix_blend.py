from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.errors import InputError
from cuvee.mix import mix_corpora

LABELS = ("business", "sports", "tech")


def rows(n, origin, labels=LABELS):
    return Corpus.from_rows(
        [{"text": f"{origin} {label} number {i}", "target": label} for i in range(n) for label in labels],
        origin=origin,
    )


REAL, POOL = rows(4, "real"), rows(40, "synthetic")


def ids(blend, origin):
    return {i for i, o in zip(blend.corpus.ids, blend.corpus.origins, strict=True) if o == origin}


def test_fewer_rows_and_all_rows_are_what_a_short_pool_holds_and_leave_repeated_real_rows_as_they_are():
    short = POOL.keep(np.array(POOL.targets) != "tech")
    fewer = mix_corpora(REAL, short, share=0.5, seed=1, allow_fewer=True)
    assert fewer.composition.label_counts == {"business": (4, 4), "sports": (4, 4), "tech": (4, 0)}
    every = mix_corpora(REAL, short, amount="all", seed=1, allow_fewer=True)
    assert ids(every, "synthetic") == set(short.ids) and len(ids(every, "real")) == 12
    assert ids(mix_corpora(REAL, POOL, amount=3, seed=1), "synthetic") == ids(
        mix_corpora(REAL, POOL, share=0.75, seed=1), "synthetic"
    )
    repeated = [mix_corpora(REAL, share=0.5, seed=1, kind="real-duplicated", allow_fewer=f) for f in (False, True)]
    assert repeated[0].corpus.ids == repeated[1].corpus.ids and repeated[0].composition.rows == 24


@pytest.mark.parametrize(("share", "per_label"), [(0.2, 1), (0.5, 4), (0.75, 12), (0.9, 36)])
def test_augment_adds_exactly_what_the_share_means(share, per_label):
    made = mix_corpora(REAL, POOL, share=share, seed=1).composition
    assert made.label_counts == {label: (4, per_label) for label in LABELS}
    assert made.share == pytest.approx(share)
    assert (made.real_rows, made.synthetic_rows, made.most_repeats) == (12, 3 * per_label, 1)
    assert made.unique_rows == made.rows


def test_share_zero_needs_no_pool_and_keeps_the_real_rows_as_they_are():
    for kind in ("blend", "real-only"):
        blend = mix_corpora(REAL, share=0.0, seed=1, kind=kind)
        assert blend.corpus.fingerprint == REAL.fingerprint
        assert blend.composition.share == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(0, 0.9), st.floats(0, 0.9), st.sampled_from(["augment", "replace"]))
def test_blends_of_one_seed_are_nested(seed, one, other, regime):
    low, high = (mix_corpora(REAL, POOL, share=s, seed=seed, regime=regime) for s in sorted((one, other)))
    assert ids(low, "synthetic") <= ids(high, "synthetic")
    assert ids(high, "real") <= ids(low, "real")


def test_the_seed_alone_decides_which_rows():
    first, again, other = (mix_corpora(REAL, POOL, share=0.5, seed=s) for s in (1, 1, 2))
    assert first.corpus.fingerprint == again.corpus.fingerprint
    assert first.corpus.fingerprint != other.corpus.fingerprint
    assert first.composition == other.composition


def test_replace_holds_the_total():
    made = mix_corpora(REAL, POOL, share=0.5, seed=1, regime="replace").composition
    assert made.label_counts == {label: (2, 2) for label in LABELS}
    made = mix_corpora(REAL, POOL, share=1.0, seed=1, regime="replace").composition
    assert made.label_counts == {label: (0, 4) for label in LABELS}


def test_real_duplicated_repeats_evenly_to_the_same_total():
    blend = mix_corpora(REAL, share=0.6, seed=1, kind="real-duplicated")
    made = blend.composition
    assert (made.real_rows, made.synthetic_rows, made.unique_rows, made.most_repeats) == (30, 0, 12, 3)
    assert set(Counter(blend.corpus.ids).values()) == {2, 3}
    assert made.rows == mix_corpora(REAL, POOL, share=0.6, seed=1).composition.rows


def test_synthetic_only_has_no_real_row():
    wanted = {label: (0, 12) for label in LABELS}
    matching = mix_corpora(REAL, POOL, share=0.75, seed=1, kind="synthetic-only")
    assert matching.composition.label_counts == wanted
    assert matching.composition.share == 1
    assert ids(matching, "synthetic") == ids(mix_corpora(REAL, POOL, share=0.75, seed=1), "synthetic")


def test_repeats_only_where_allowed_and_reported():
    pool = rows(5, "synthetic")
    with pytest.raises(InputError) as refused:
        mix_corpora(REAL, pool, share=0.75, seed=1)
    message = (
        "label 'business': 12 synthetic rows were asked for, the pool has 5; the largest share this pool allows is"
    )
    assert message in str(refused.value)
    largest = float(str(refused.value).split(message)[1].split(";")[0])
    assert mix_corpora(REAL, pool, share=largest, seed=1).composition.synthetic_rows == 15
    made = mix_corpora(REAL, pool, share=0.75, seed=1, allow_repeats=True).composition
    assert (made.synthetic_rows, made.most_repeats, made.unique_rows) == (36, 3, 12 + 15)


def test_a_synthetic_copy_of_a_real_row_counts_as_a_repeat():
    copies = Corpus.from_rows(REAL.table.select(["text", "target"]).to_pylist(), origin="synthetic")
    made = mix_corpora(REAL, copies, share=0.5, seed=1).composition
    assert (made.rows, made.unique_rows, made.most_repeats) == (24, 12, 2)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (None, "there is no pool"),
        (rows(40, "synthetic", LABELS[:2]), "no rows of label 'tech'"),
        (rows(40, "synthetic", (*LABELS, "weather")), "the pool has label 'weather'"),
        (rows(40, "real"), "not marked synthetic"),
    ],
)
def test_unfit_pools_are_refused_with_the_label(pool, message):
    with pytest.raises(InputError, match=message):
        mix_corpora(REAL, pool, share=0.5, seed=1)


def test_synthetic_rows_never_pass_as_real():
    with pytest.raises(InputError, match="not marked real"):
        mix_corpora(POOL, POOL, share=0.5, seed=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 1.0}, "augment cannot reach"),
        ({"share": 0.5, "kind": "synthetic"}, "kind is 'synthetic'; valid: blend"),
        ({"share": 0.5, "kind": "real-only"}, "real-only takes share 0"),
    ],
)
def test_arguments_that_do_not_fit_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        mix_corpora(REAL, POOL, seed=1, **arguments)


def test_a_blend_prints_its_counts():
    text = str(mix_corpora(REAL, POOL, share=0.75, seed=1))
    assert text.splitlines()[0].startswith("Blend of 48 rows: 12 real, 36 synthetic (share 0.750); 48 distinct")
    assert "tech" in text


def test_weights_of_rows_go_into_the_blend_and_are_said():
    pool = POOL.with_columns(weight=np.tile([0.0, 2.0], len(POOL) // 2))
    blend = mix_corpora(REAL, pool, share=0.75, seed=1)
    assert blend.corpus.ids == mix_corpora(REAL, POOL, share=0.75, seed=1).corpus.ids
    weight_of = dict(zip(pool.ids, pool.weights.tolist(), strict=True)) | dict.fromkeys(REAL.ids, 1.0)
    assert blend.corpus.weights.tolist() == [weight_of[i] for i in blend.corpus.ids]
    zero = int((blend.corpus.weights == 0).sum())
    assert zero and f"rows have weights: {zero} weigh 0, all count as" in str(blend)
    assert "weights" not in str(mix_corpora(REAL, POOL, share=0.75, seed=1))


@pytest.mark.parametrize("task", ["generation", "retrieval"])
def test_tasks_without_labels_are_one_stratum(task):
    real = Corpus.from_rows(
        [{"text": f"ask {i}", "target": f"say {i}", "group": f"g{i}"} for i in range(20)], task=task
    )
    pool = Corpus.from_rows(
        [{"text": f"made {i}", "target": f"answer {i}"} for i in range(50)], origin="synthetic", task=task
    )
    blend = mix_corpora(real, pool, share=0.6, seed=1)
    made = blend.composition
    assert (made.real_rows, made.synthetic_rows, made.share, made.label_counts) == (20, 30, 0.6, {})
    assert blend.corpus.task == task and blend.corpus.groups[:20] == real.groups
    assert str(blend).endswith("; 200 words")  # of prompt and completion
    replaced = mix_corpora(real, pool, share=0.25, seed=1, regime="replace").composition
    assert (replaced.real_rows, replaced.synthetic_rows) == (15, 5)
    with pytest.raises(
        InputError, match=r"^180 synthetic rows were asked for, the pool has 50; the largest share .* 0.71"
    ):
        mix_corpora(real, pool, share=0.9, seed=1)
    with pytest.raises(InputError, match="both must be of one task"):
        mix_corpora(real, POOL, share=0.5, seed=1)


def skewed(counts, origin):
    return Corpus.from_rows(
        [{"text": f"{origin} {k} {i}", "target": k} for k, n in counts.items() for i in range(n)], origin=origin
    )


counts = st.dictionaries(st.sampled_from("abc"), st.integers(1, 8), min_size=3)


@settings(deadline=None, max_examples=25)
@given(counts, counts, st.floats(0, 0.95), st.sampled_from(["augment", "replace"]), st.booleans())
def test_a_shortage_is_refused_with_the_largest_share_that_is_possible(real, pool, share, regime, alone):
    rows = (skewed(real, "real"), skewed(pool, "synthetic"))
    kind = "synthetic-only" if alone else "blend"

    def refuse(share):
        try:
            mix_corpora(*rows, share=share, regime=regime, seed=0, kind=kind)
        except InputError as exc:
            return str(exc)
        return ""

    if refused := refuse(share):
        most = float(refused.split("this pool allows is ")[1].split(";")[0])
        assert most < share and refuse(most) == ""
