"""What the page of one measured corpus shows: curves, map, parts and sample rows, gathered from one subject."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cuvee._version import __version__
from cuvee.measure.examples import pick_extremes, score_examples
from cuvee.measure.mapping import map_examples
from cuvee.measure.metrics import METRICS
from cuvee.measure.parts import added_diversity, decompose_diversity
from cuvee.measure.semantic import order_profile, tau_profile
from cuvee.measure.shift import giveaways
from cuvee.measure.subject import EXACT_ROWS, Subject
from cuvee.records import DatasetMap, Measurement, MeasurementPage, MetricNote

_ALL_PAIRS = EXACT_ROWS // 5  # rows up to which curves and each row's scores are worth their all-pairs passes
_MOST_PARTS = 200


def gather_page(
    subject: Subject,
    measurement: Measurement,
    parts: Mapping[str, Measurement] | None = None,
    *,
    by: str = "label",
    against_name: str = "",
    reproduce: str = "",
) -> MeasurementPage:
    """Everything that the page of a measurement shows.

    Curves over tau and q, each row's scores and what the synthetic rows add need all pairs of rows; above 20,000
    rows they are left out.

    Args:
        subject: what was measured.
        measurement: its numbers.
        parts: the numbers of each part alone, from ``measure_parts``.
        by: what the parts are.
        against_name: of the real rows.
        reproduce: the command or code that gives these numbers again.
    """
    small = subject.n <= _ALL_PAIRS
    corpus, real = subject.corpus, subject.against
    redundant, novel = pick_extremes(corpus, score_examples(subject)) if small and any(corpus.texts) else ((), ())
    labels = corpus.labels
    split = 1 < len(labels) <= _MOST_PARTS and small
    tested = real is not None and not subject.is_real and "c2st" in measurement.values
    return MeasurementPage(
        measurement=measurement,
        taus=tau_profile(subject) if small else None,
        orders=(order_profile(subject, "vendi"), *([order_profile(subject, "dcscore")] if small else [])),
        by_label=parts or {},
        by=by,
        decomposition=decompose_diversity(subject, corpus.targets) if split else (),
        added=added_diversity(subject) if real is not None and small and not subject.is_real else (),
        map=_draw_map(subject),
        redundant=redundant,
        novel=novel,
        giveaways=tuple((g.text, g.probability) for g in giveaways(subject)) if tested else (),
        notes={n: MetricNote(family=m.family, description=m.description, better=m.better) for n, m in METRICS.items()},
        against_name=against_name,
        against_rows=None if real is None else len(real),
        settings=_write_settings(subject),
        reproduce=reproduce,
        version=__version__,
    )


def _draw_map(subject: Subject) -> DatasetMap:
    """The map of the corpus, together with the real rows where there are any; by level where rows have one."""
    corpus, real = subject.corpus, None if subject.is_real else subject.against
    levels = [None if v is None else str(v) for v in corpus.table["level"].to_pylist()]
    by_level = len({v for v in levels if v is not None}) > 1
    groups = [v or "no level" for v in levels] if by_level else list(corpus.targets)
    if real is None:
        vectors, origins, texts = subject.unit, list(corpus.origins), list(corpus.texts)
    else:
        vectors = np.vstack([subject.unit, subject.against_unit])
        origins = ["synthetic"] * len(corpus) + ["real"] * len(real)
        texts = [*corpus.texts, *real.texts]
        groups += ["real"] * len(real) if by_level else list(real.targets)
    return map_examples(
        vectors, origins=origins, groups=groups, texts=texts, seed=subject.seed,
        grouping="level" if by_level else "label",
    )  # fmt: skip


def _write_settings(subject: Subject) -> dict[str, str]:
    compute = subject.compute
    found = {"device": compute.device, "precision": compute.precision, "seed": str(subject.seed)}
    if subject.sample is not None:
        found["all pairs"] = f"{len(subject.sample):,} sampled rows against all {subject.n:,}"
    return found
