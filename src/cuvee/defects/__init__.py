"""Rows that should not be trained on: duplicates, degenerate text, leaks of held-out rows.

Pure functions on texts and vectors. A leak is a row that repeats a validation or test row more closely than
real training rows do by themselves.
"""

from cuvee.defects.degenerate import DegenerateReason, degenerate_reasons
from cuvee.defects.duplicates import (
    NEAR_TEXTS,
    SHINGLE,
    SLACK,
    NearTexts,
    find_near_texts,
    first_rows,
    near_repeats,
)
from cuvee.defects.leaks import (
    CONTAINMENT,
    NEAREST_FLOOR,
    NEAREST_QUANTILE,
    NGRAM,
    Leak,
    LeakFinder,
    LeakReason,
    Leaks,
    NoLeaks,
    SetLeak,
    detect_set_leak,
    find_leaks,
)

__all__ = [
    "CONTAINMENT",
    "NEAREST_FLOOR",
    "NEAREST_QUANTILE",
    "NEAR_TEXTS",
    "NGRAM",
    "SHINGLE",
    "SLACK",
    "DegenerateReason",
    "Leak",
    "LeakFinder",
    "LeakReason",
    "Leaks",
    "NearTexts",
    "NoLeaks",
    "SetLeak",
    "degenerate_reasons",
    "detect_set_leak",
    "find_leaks",
    "find_near_texts",
    "first_rows",
    "near_repeats",
]
