"""Distribution shift from the real training rows."""

from functools import partial

from cuvee.measure.shift.classifier import Giveaway, giveaways, measure_c2st
from cuvee.measure.shift.discrepancy import measure_mmd
from cuvee.measure.shift.frechet import measure_frechet
from cuvee.measure.shift.manifold import Part, measure_manifold
from cuvee.measure.shift.mauve import measure_mauve
from cuvee.measure.shift.surface import measure_label_distance, measure_length_distance, measure_ngram_jsd
from cuvee.measure.subject import Metric

__all__ = ["SHIFT", "Giveaway", "giveaways"]

_CLOSER = "lower is closer to the real data"
_PARTS: tuple[tuple[Part, str, str], ...] = (
    ("precision", "share of rows within 5-nearest-neighbour reach of a real row", "higher is more like the real data"),
    ("recall", "share of real rows within 5-nearest-neighbour reach of a row", "higher covers more of the real data"),
    (
        "density",
        "5-nearest-neighbour balls of real rows that a row lies in, over 5",
        "higher is more like the real data",
    ),
    (
        "coverage",
        "share of real rows with a row in their 5-nearest-neighbour ball",
        "higher covers more of the real data",
    ),
)
SHIFT: tuple[Metric, ...] = (
    Metric(
        name="mmd",
        family="shift",
        description="unbiased squared maximum mean discrepancy to the real training rows, RBF kernel",
        better=_CLOSER,
        needs=("vectors", "against"),
        compute=measure_mmd,
    ),
    Metric(
        name="c2st",
        family="shift",
        description="cross-validated AUC of a linear classifier that tells rows from real training rows",
        better="0.5 cannot be told from the real data, 1 always can; rises with the number of rows",
        needs=("vectors", "against"),
        compute=measure_c2st,
    ),
    Metric(
        name="frechet",
        family="shift",
        description="Frechet distance of Gaussians fitted to the vectors and to the real ones, bias corrected",
        better=_CLOSER,
        needs=("vectors", "against"),
        compute=measure_frechet,
        standard=False,
    ),
    *(
        Metric(
            name=part,
            family="shift",
            description=description,
            better=f"{better}; compare at equal rows",
            needs=("vectors", "against"),
            compute=partial(measure_manifold, part=part),
            standard=False,
        )
        for part, description, better in _PARTS
    ),
    Metric(
        name="mauve",
        family="shift",
        description="MAUVE: area under the divergence curve of the quantised vectors and the real ones, 0 to 1",
        better="higher is closer to the real data; samples of one distribution score same_distribution, not 1",
        needs=("vectors", "against"),
        compute=measure_mauve,
        standard=False,
    ),
    Metric(
        name="label_distance",
        family="shift",
        description="total variation distance of the label distributions, 0 to 1",
        better=f"{_CLOSER}; falls with the number of rows",
        needs=("against", "labels"),
        compute=measure_label_distance,
    ),
    Metric(
        name="length_distance",
        family="shift",
        description="1-Wasserstein distance of the numbers of words, in standard deviations of the real rows",
        better=f"{_CLOSER}; falls with the number of rows",
        needs=("texts", "against"),
        compute=measure_length_distance,
    ),
    Metric(
        name="ngram_jsd",
        family="shift",
        description="Jensen-Shannon divergence of the word distributions in bits, bias corrected",
        better=_CLOSER,
        needs=("texts", "against"),
        compute=measure_ngram_jsd,
    ),
)
