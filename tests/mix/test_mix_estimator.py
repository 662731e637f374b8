"""The choice of rows as an estimator of scikit-learn."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

import cuvee
from cuvee.mix import Selector

# what a cosine cannot do; every other check passes
REFUSED = {"check_estimators_dtypes": "its whole numbers hold a row of zeros, which has no direction"}


@pytest.mark.parametrize("method", ["log_det", "k_center", "random"])
@pytest.mark.filterwarnings("ignore:The estimator's expected failed checks:UserWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_it_passes_the_checks_of_scikit_learn(method):
    found = check_estimator(cuvee.RowSelector(method=method), expected_failed_checks=REFUSED, on_fail="raise")
    assert {each["check_name"] for each in found if each["status"] == "xfail"} == set(REFUSED)
    assert sum(each["status"] == "passed" for each in found) > 35


def test_it_chooses_what_the_selector_chooses_and_labels_keep_their_shares():
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(60, 8)).astype(np.float32), np.repeat(["a", "b"], [40, 20])
    pool = cuvee.Corpus.without_texts(60, targets=labels.tolist())
    same = Selector(pool, vectors, 15, match_lengths=False, seed=3).best("log_det")
    found = cuvee.RowSelector(rows=15, seed=3).fit(vectors, labels).selected_indices_
    assert np.array_equal(found, same.rows) and (labels[found] == "a").sum() == 10
    assert np.array_equal(clone(cuvee.RowSelector(rows=0.25, seed=3)).fit(vectors, labels).selected_indices_, found)
    plain = cuvee.RowSelector(rows=15, method="random").fit(vectors).selected_indices_
    assert len(plain) == 15 and not np.array_equal(plain, found)


def test_what_cannot_be_chosen_from_is_refused_in_one_line():
    with pytest.raises(ValueError, match="row 1 is zero"):
        cuvee.RowSelector().fit(np.array([[1.0, 2.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match=r"rows is -1; give a number of rows or a fraction below 1"):
        cuvee.RowSelector(rows=-1).fit(np.eye(4))
