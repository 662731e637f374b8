"""Measure a corpus: diversity, shift, quality and leaks, each number with its interval and settings."""

from cuvee.measure.comparing import compare_corpora
from cuvee.measure.measuring import (
    FIELDS,
    METRICS,
    choose_metrics,
    draw_rows,
    measure_corpus,
    measure_fields,
    measure_parts,
    measure_subject,
    measure_texts,
    measure_vectors,
    parts_of,
)
from cuvee.measure.page import gather_page, map_pools, sample_rows, sample_subject, score_examples, tabulate_examples
from cuvee.measure.subject import GivenVectors, Metric, Subject
