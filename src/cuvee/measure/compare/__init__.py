"""Numbers that compare: equal rows, matched lengths, one encoder, one set of settings."""

from cuvee.measure.compare.corpora import compare_corpora
from cuvee.measure.compare.measurements import compare_measurements

__all__ = ["compare_corpora", "compare_measurements"]
