"""Quality of rows: labels, leaks, usable text."""

from cuvee.measure.quality.labels import measure_label_agreement, measure_leakage
from cuvee.measure.quality.noise import measure_label_noise
from cuvee.measure.quality.text import measure_degenerate_rate
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
        name="label_noise",
        family="quality",
        description="estimated fraction of mislabelled rows, by confident learning on the real training rows",
        better="lower is cleaner; takes the real labels as right",
        needs=("vectors", "against", "labels"),
        compute=measure_label_noise,
    ),
    Metric(
        name="degenerate_rate",
        family="quality",
        description="fraction of rows that are empty, broken, cut off, refused, repeated or in another language",
        better="lower is cleaner",
        needs=("texts",),
        compute=measure_degenerate_rate,
    ),
    Metric(
        name="leakage",
        family="quality",
        description="fraction of rows that repeat a held-out text more closely than real training rows do",
        better="lower is safer",
        needs=("texts", "vectors", "held_out"),
        compute=measure_leakage,
    ),
)
