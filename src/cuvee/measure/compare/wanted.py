"""The metrics that a comparison measures: those whose needs all corpora meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cuvee.corpus import Corpus
from cuvee.measure.metrics import are_named, choose_metrics
from cuvee.measure.subject import Metric, Need

_REMEDY: dict[Need, str] = {
    "texts": "texts in every corpus",
    "vectors": "an encoder",
    "against": "against=, the real training rows",
    "held_out": "held-out texts, which a comparison does not take",
    "labels": "corpora and an against of the task classification, with at least two labels",
}


def pick_metrics(
    metrics: Sequence[str | Metric] | None, corpora: Mapping[str, Corpus], against: Corpus | None
) -> tuple[Metric, ...]:
    """The metrics to measure: None the standard ones, "all" every one, less those whose needs are not met.

    Raises:
        ConfigError: no metric of that name.
        ValueError: a metric was asked for by name, and its needs are not met.
    """
    chosen = choose_metrics(metrics)
    met = _met_needs(corpora, against)
    lacking = {metric.name: [need for need in metric.needs if need not in met] for metric in chosen}
    if are_named(metrics):
        for name, needs in lacking.items():
            if needs:
                raise ValueError(f"metric {name!r} needs {_REMEDY[needs[0]]}; leave the metric out")
    return tuple(metric for metric in chosen if not lacking[metric.name])


def _met_needs(corpora: Mapping[str, Corpus], against: Corpus | None) -> set[Need]:
    met: set[Need] = {"vectors"}
    if all(any(corpus.texts) for corpus in corpora.values()):
        met.add("texts")
    if against is not None:
        met.add("against")
        if len(against.labels) > 1 and all(corpus.task == "classification" for corpus in corpora.values()):
            met.add("labels")
    return met
