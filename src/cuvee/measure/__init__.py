"""Measure a corpus: diversity, shift, quality and leaks, each number with its interval and settings."""

from cuvee.measure.corpus_measurement import measure_corpus, subsample_groups
from cuvee.measure.metrics import METRICS
from cuvee.measure.subject import Metric, Subject

__all__ = ["METRICS", "Metric", "Subject", "measure_corpus", "subsample_groups"]
