"""The choice of rows as an estimator of scikit-learn."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_consistent_length, column_or_1d, validate_data

from cuvee.corpus import Corpus
from cuvee.mix.select import Selector


class RowSelector(BaseEstimator):  # type: ignore[misc]
    """Choose rows of a matrix of vectors by their diversity, with the interface of scikit-learn.

    Args:
        rows: how many, or a fraction of all below 1.
        method: ``vendi``, ``log_det``, ``k_center`` or ``random``; see
            ``cuvee.mix.Selector.best``.
        seed: of the search.

    Attributes:
        selected_indices_: places of the chosen rows, rising, shape (k,).
        n_features_in_: width of the vectors.
    """

    def __init__(self, rows: int | float = 0.5, *, method: str = "log_det", seed: int = 0) -> None:
        self.rows = rows
        self.method = method
        self.seed = seed

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Choose.

        Args:
            X: vectors, shape (n, d); their lengths do not matter.
            y: labels, shape (n,): each keeps its share of the rows. None: all rows are alike.

        Raises:
            ValueError: a row without direction, a label column of another length, or ``rows`` out of range.
        """
        vectors = validate_data(self, X, dtype=np.float32, ensure_min_samples=2)
        labels = None
        if y is not None:
            check_consistent_length(vectors, y)
            labels = [str(label) for label in column_or_1d(y)]
        if not self.rows > 0:
            raise ValueError(f"rows is {self.rows!r}; give a number of rows or a fraction below 1")
        count = self.rows if self.rows >= 1 else max(1, round(self.rows * len(vectors)))
        pool = Corpus.without_texts(len(vectors), targets=labels)
        selector = Selector(pool, vectors, int(count), match_lengths=False, seed=self.seed)
        self.selected_indices_ = np.asarray(selector.best(self.method).rows, dtype=np.int64)
        return self
