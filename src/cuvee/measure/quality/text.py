"""Degenerate text: the fraction of rows that are no usable example."""

from __future__ import annotations

from collections import Counter

import numpy as np

from cuvee.defects import degenerate_reasons
from cuvee.measure.intervals import estimate_rate
from cuvee.measure.subject import Subject
from cuvee.records import Estimate


def measure_degenerate_rate(subject: Subject) -> Estimate:
    """Fraction of rows that are empty, broken, refused, error messages, repetition and so on (``degenerate_reasons``).

    Where real rows are given, rows that are cut off or in another language than those count too. The settings hold
    the number of rows of each reason that occurs.
    """
    reference = None if subject.against is None else subject.against.texts
    reasons = degenerate_reasons(subject.corpus.texts, reference=reference)
    counts = Counter(reason for reason in reasons if reason is not None)
    settings: dict[str, str | float] = {"reference_rows": 0 if reference is None else len(reference)}
    settings |= {reason: float(count) for reason, count in sorted(counts.items())}
    return estimate_rate(subject, np.array([reason is not None for reason in reasons]), settings)
