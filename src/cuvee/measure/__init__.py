"""Measure a corpus: diversity, shift, quality and leaks, each number with its interval and settings."""

from cuvee.measure.by_part import measure_parts, parts_of
from cuvee.measure.compare import compare_corpora, compare_measurements
from cuvee.measure.corpus_measurement import measure_corpus, measure_subject, prepare_subject, subsample_groups
from cuvee.measure.examples import pick_extremes, score_examples, tabulate_examples
from cuvee.measure.given_vectors import GivenVectors, measure_vectors
from cuvee.measure.mapping import map_examples
from cuvee.measure.metrics import METRICS, STANDARD
from cuvee.measure.parts import added_diversity, decompose_diversity
from cuvee.measure.pictures import gather_page
from cuvee.measure.saved import measurement_to_json, read_measurement
from cuvee.measure.semantic.profiles import order_profile, tau_profile
from cuvee.measure.subject import Metric, Subject

__all__ = [
    "METRICS",
    "STANDARD",
    "GivenVectors",
    "Metric",
    "Subject",
    "added_diversity",
    "compare_corpora",
    "compare_measurements",
    "decompose_diversity",
    "gather_page",
    "map_examples",
    "measure_corpus",
    "measure_parts",
    "measure_subject",
    "measure_vectors",
    "measurement_to_json",
    "order_profile",
    "parts_of",
    "pick_extremes",
    "prepare_subject",
    "read_measurement",
    "score_examples",
    "subsample_groups",
    "tabulate_examples",
    "tau_profile",
]
