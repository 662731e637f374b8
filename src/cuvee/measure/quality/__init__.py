"""Quality of rows: labels, leaks, usable text."""

from cuvee.measure.quality.labels import measure_label_agreement, measure_leakage
from cuvee.measure.subject import Metric

QUALITY: tuple[Metric, ...] = (
    Metric(
        name="label_agreement",
        family="quality",
        description="fraction of rows whose label is what a probe fitted on the real training rows says",
        better="higher is cleaner; hard rows lower it too",
        needs=("vectors", "against", "labels"),
        compute=measure_label_agreement,
    ),
    Metric(
        name="leakage",
        family="quality",
        description="fraction of rows that repeat a held-out text more closely than real training rows do",
        better="lower is safer",
        needs=("vectors", "held_out"),
        compute=measure_leakage,
    ),
)
