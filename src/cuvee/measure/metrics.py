"""The METRICS table: every number Cuvée can measure, under the name that results carry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError
from cuvee.measure import lexical, manifold, ngrams, quality, semantic, shift, surface
from cuvee.measure.subject import LESS, MORE, TAUS, Family, Metric, Need, Subject
from cuvee.records import Estimate
from cuvee.registry import Kind, resolve_name

_REMEDY: dict[Need, str] = {
    "texts": "a corpus with texts",
    "vectors": "an encoder",
    "against": "against=, the real training rows",
    "held_out": "held_out=, the validation and test texts; a comparison takes none",
    "labels": "a corpus and an against of the task classification, with at least two labels",
}
_EQUAL_N = "compare only at equal numbers of rows"
_RISES = f"{LESS}; rises with the number of rows"
_MEANINGS = "effective number of distinct meanings"
_MEDIAN = "kernel of the median distance, tau = 0.1"
_CLOSER = "lower is closer to the real data"
_LIKE = "is more like the real data; compare at equal rows"
_COVERS = "higher covers more of the real data; compare at equal rows"
Entry = tuple[str, Callable[[Subject], Estimate | None], str, str]
"""A metric's name, what computes it, what it is, and how to read it."""
Group = tuple[Family, tuple[Need, ...], bool, Sequence[Entry]]
"""A family, what its metrics need, whether they are measured unless others are asked for, and the metrics."""


_GROUPS: tuple[Group, ...] = (
    ("semantic", ("vectors",), True, [
        *(
            (f"dcscore_tau{tau:g}", partial(semantic.measure_dcscore, tau=tau),
             f"DCScore, cosine kernel, tau = {tau:g}: {_MEANINGS}", MORE)
            for tau in TAUS
        ),
        *(
            (f"vendi_q{q:g}", partial(semantic.measure_vendi, q=q),
             f"Vendi score of order {q:g}, cosine kernel: effective number of independent directions", MORE)
            for q in (0.5, 1.0, 2.0, float("inf"))
        ),
        ("mean_pairwise_cosine", semantic.measure_mean_cosine, "mean cosine over all pairs of different rows", LESS),
        ("mean_nearest_cosine", semantic.measure_mean_nearest_cosine,
         "mean cosine of a row to the nearest other row", f"{_RISES}, {_EQUAL_N}"),
        ("near_duplicate_rate", semantic.measure_near_duplicates,
         "fraction of rows that have another row at a cosine of at least 0.95", LESS),
    ]),
    ("semantic", ("vectors",), False, [
        ("dcscore_rbf", partial(semantic.measure_dcscore_kernel, name="rbf"),
         f"DCScore, RBF {_MEDIAN}: {_MEANINGS}", MORE),
        ("dcscore_laplacian", partial(semantic.measure_dcscore_kernel, name="laplacian"),
         f"DCScore, Laplacian {_MEDIAN}: {_MEANINGS}", MORE),
        ("dcscore_polynomial", partial(semantic.measure_dcscore_kernel, name="polynomial"),
         f"DCScore, polynomial kernel of degree 3, tau = 0.1: {_MEANINGS}", MORE),
        ("remote_clique", semantic.measure_remote_clique,
         "mean Euclidean distance over all pairs of different rows", MORE),
        ("log_det", semantic.measure_log_det,
         "log det(I + K) a row, cosine kernel, in nats: log-volume that the rows span",
         f"{MORE}; falls with the number of rows, {_EQUAL_N}"),
    ]),
    ("semantic", ("vectors", "against"), False, [(
        "novelsum", semantic.measure_novelsum,
        "NovelSum, density of the real rows: mean proximity-weighted cosine distance to the other rows",
        f"{MORE}; falls with the number of rows, {_EQUAL_N} and against the same real rows",
    )]),
    ("lexical", ("texts",), True, [
        *(
            (f"distinct_{size}", partial(ngrams.measure_distinct, size=size),
             f"different {size}-grams over all {size}-grams of words",
             f"{MORE}; falls with the number of rows and their length")
            for size in (1, 2, 3)
        ),
        ("ngram_entropy_2", ngrams.measure_entropy, "Shannon entropy of the 2-grams of words, in bits",
         f"{MORE}; rises with the number of rows and their length"),
        ("self_bleu", ngrams.measure_self_bleu, "mean BLEU-4 of each row against all the others", _RISES),
        ("rouge_l_homogenisation", lexical.measure_rouge_l, "mean ROUGE-L F1 over pairs of different rows",
         f"{LESS}; the same at any number of rows, changes with their length"),
        ("self_repetition", ngrams.measure_self_repetition,
         "fraction of 4-grams of words that stand in another row too", _RISES),
        ("mtld", lexical.measure_mtld, "MTLD of the joined rows: words until the type-token ratio falls below 0.72",
         f"{MORE}; hardly depends on the number of rows"),
        ("hd_d", ngrams.measure_hd_d, "HD-D: expected type-token ratio of 42 words drawn from all rows",
         f"{MORE}; hardly depends on the number of rows or their length"),
        ("compression_ratio", lexical.measure_compression,
         "bytes of the sorted rows over their bytes after bzip2, which sees 900 kB at once", _RISES),
        ("exact_duplicate_rate", lexical.measure_exact_duplicates,
         "fraction of rows that repeat an earlier one, case and punctuation aside", _RISES),
        ("near_duplicate_rate_minhash", lexical.measure_near_duplicates,
         "fraction of rows that share at least 0.8 (Jaccard) of their 5-character runs with another row", _RISES),
        ("mean_words", lexical.measure_mean_words, "mean number of words a row",
         "not a diversity: compare the other numbers at equal length"),
    ]),
    ("shift", ("vectors", "against"), True, [
        ("mmd", shift.measure_mmd, "unbiased squared maximum mean discrepancy to the real training rows, RBF kernel",
         _CLOSER),
        ("c2st", shift.measure_c2st,
         "cross-validated AUC of a linear classifier that tells rows from real training rows",
         "0.5 cannot be told from the real data, 1 always can; rises with the number of rows"),
    ]),
    ("shift", ("vectors", "against"), False, [
        ("frechet", manifold.measure_frechet,
         "Frechet distance of Gaussians fitted to the vectors and to the real ones, bias corrected", _CLOSER),
        ("precision", partial(manifold.measure_manifold, part="precision"),
         "share of rows within 5-nearest-neighbour reach of a real row", f"higher {_LIKE}"),
        ("recall", partial(manifold.measure_manifold, part="recall"),
         "share of real rows within 5-nearest-neighbour reach of a row", _COVERS),
        ("mauve", manifold.measure_mauve,
         "MAUVE: area under the divergence curve of the quantised vectors and the real ones, 0 to 1",
         "higher is closer to the real data; samples of one distribution score same_distribution, not 1"),
    ]),
    ("shift", ("against", "labels"), True, [(
        "label_distance", surface.measure_label_distance, "total variation distance of the label distributions, 0 to 1",
        f"{_CLOSER}; falls with the number of rows",
    )]),
    ("shift", ("texts", "against"), True, [
        ("length_distance", surface.measure_length_distance,
         "1-Wasserstein distance of the numbers of words, in standard deviations of the real rows",
         f"{_CLOSER}; falls with the number of rows"),
        ("ngram_jsd", surface.measure_ngram_jsd,
         "Jensen-Shannon divergence of the word distributions in bits, bias corrected", _CLOSER),
    ]),
    ("quality", ("vectors", "against", "labels"), True, [
        ("label_agreement", quality.measure_label_agreement,
         "fraction of rows whose label is what a probe fitted on the real training rows says",
         "higher is cleaner; hard rows lower it too"),
        ("label_noise", quality.measure_label_noise,
         "estimated fraction of mislabelled rows, by confident learning on the real training rows",
         "lower is cleaner; takes the real labels as right"),
    ]),
    ("quality", ("texts",), True, [(
        "degenerate_rate", quality.measure_degenerate_rate,
        "fraction of rows that are empty, broken, cut off, refused, repeated or in another language",
        "lower is cleaner",
    )]),
    ("quality", ("texts", "vectors", "held_out"), True, [(
        "leakage", quality.measure_leakage,
        "fraction of rows that repeat a held-out text more closely than real training rows do", "lower is safer",
    )]),
)  # fmt: skip

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        name: Metric(
            name=name, family=family, description=text, better=better, needs=needs, compute=compute, standard=standard
        )
        for family, needs, standard, entries in _GROUPS
        for name, compute, text, better in entries
    }
)
STANDARD: tuple[str, ...] = tuple(name for name, metric in METRICS.items() if metric.standard)


def are_named(metrics: Sequence[str | Metric] | None) -> bool:
    """Whether metrics were asked for one by one, so that none may be left out."""
    return metrics is not None and "all" not in metrics


def choose_metrics(metrics: Sequence[str | Metric] | None) -> tuple[Metric, ...]:
    """The metrics that are meant: None the standard ones, "all" every one, else those named or given.

    Raises:
        ConfigError: no metric of that name, or ``module:Name`` of something else.
    """
    if metrics is None:
        return tuple(METRICS[name] for name in STANDARD)
    return tuple(map(_resolve, metrics)) if are_named(metrics) else tuple(METRICS.values())


def pick_defined(
    metrics: Sequence[str | Metric] | None,
    corpora: Sequence[Corpus],
    against: Corpus | None,
    held_out: Sequence[str] | None = None,
) -> tuple[Metric, ...]:
    """The metrics that are meant, less those that lack what they need.

    Args:
        metrics: as for ``choose_metrics``.
        corpora: what is measured.
        against: the real training rows.
        held_out: validation and test texts.

    Raises:
        ConfigError: no metric of that name.
        ValueError: a metric was asked for by name, and its needs are not met.
    """
    chosen, has_texts = choose_metrics(metrics), all(any(corpus.texts) for corpus in corpora)
    labelled = against is not None and len(against.labels) > 1
    met: dict[Need, bool] = {
        "texts": has_texts,
        "vectors": True,
        "against": against is not None,
        "held_out": bool(held_out),
        "labels": labelled and all(corpus.task == "classification" for corpus in corpora),
    }
    of_both = has_texts and (against is None or any(against.texts))
    missing: dict[str, Need | None] = {}
    for metric in chosen:
        here = {**met, "texts": of_both} if "against" in metric.needs else met
        missing[metric.name] = need = next((need for need in metric.needs if not here[need]), None)
        if need is not None and are_named(metrics):
            raise ValueError(f"metric {metric.name!r} needs {_REMEDY[need]}; give that, or leave the metric out")
    return tuple(metric for metric in chosen if missing[metric.name] is None)


def _resolve(entry: str | Metric) -> Metric:
    if isinstance(entry, str):
        return resolve_name(entry, METRICS, Kind(name="metric", is_a=Metric))
    if not isinstance(entry, Metric):
        raise ConfigError(f"metric {entry!r} is not a cuvee.measure.Metric but a {type(entry).__name__}")
    return entry
