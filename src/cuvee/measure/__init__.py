"""Measure a corpus: diversity, shift, quality and leaks, each number with its interval and settings."""

from cuvee.measure.corpus_measurement import measure_corpus, subsample_groups
from cuvee.measure.metrics import METRICS, STANDARD
from cuvee.measure.subject import Metric, Subject

__all__ = ["METRICS", "STANDARD", "Metric", "Subject", "measure_corpus", "subsample_groups"]
