"""Filters of a pool: each says which rows go and why, and every removed row is listed."""

from cuvee.mix.filters.agreement import Agreement
from cuvee.mix.filters.defective import Degenerate, Leak, NoLeaks, assert_no_leaks
from cuvee.mix.filters.duplicates import Dedupe, FewerPerCluster
from cuvee.mix.filters.sequence import FILTERS, Keep, Reasons, apply_filters
from cuvee.mix.filters.steps import Candidates, Encode, Filter, Filtered, FilterStep, Judgement, Removed

__all__ = [
    "FILTERS",
    "Agreement",
    "Candidates",
    "Dedupe",
    "Degenerate",
    "Encode",
    "FewerPerCluster",
    "Filter",
    "FilterStep",
    "Filtered",
    "Judgement",
    "Keep",
    "Leak",
    "NoLeaks",
    "Reasons",
    "Removed",
    "apply_filters",
    "assert_no_leaks",
]
