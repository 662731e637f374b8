"""Distribution shift from the real training rows."""

from cuvee.measure.shift.discrepancy import measure_mmd
from cuvee.measure.subject import Metric

SHIFT: tuple[Metric, ...] = (
    Metric(
        name="mmd",
        family="shift",
        description="unbiased squared maximum mean discrepancy to the real training rows, RBF kernel",
        better="lower is closer to the real data",
        needs=("vectors", "against"),
        compute=measure_mmd,
    ),
)
