"""Diversity of words."""

from functools import partial

from cuvee.measure.lexical.compression import Compressor, measure_compression
from cuvee.measure.lexical.distinct import measure_distinct, measure_entropy
from cuvee.measure.lexical.near_duplicates import measure_near_duplicates
from cuvee.measure.lexical.richness import measure_hd_d, measure_mtld
from cuvee.measure.lexical.rouge_l import measure_rouge_l
from cuvee.measure.lexical.rows import measure_exact_duplicates, measure_mean_words
from cuvee.measure.lexical.self_bleu import measure_self_bleu
from cuvee.measure.lexical.self_repetition import measure_log_self_repetition, measure_self_repetition
from cuvee.measure.subject import LESS, MORE, Metric

_RISES = f"{LESS}; rises with the number of rows"
_WINDOWS: dict[Compressor, str] = {
    "lzma": "bytes of the sorted rows over their bytes after LZMA, which sees all rows at once",
    "gzip": "bytes of the sorted rows over their bytes after gzip's compression, which sees 32 kB at once",
}
_DISTINCT = [
    Metric(
        name=f"distinct_{size}",
        family="lexical",
        description=f"different {size}-grams over all {size}-grams of words",
        better=f"{MORE}; falls with the number of rows and their length",
        needs=("texts",),
        compute=partial(measure_distinct, size=size),
    )
    for size in (1, 2, 3)
]
_ENTROPY = [
    Metric(
        name=f"ngram_entropy_{size}",
        family="lexical",
        description=f"Shannon entropy of the {size}-grams of words, in bits",
        better=f"{MORE}; rises with the number of rows and their length",
        needs=("texts",),
        compute=partial(measure_entropy, size=size),
        standard=size == 2,
    )
    for size in (1, 2, 3)
]
_COMPRESSION = [
    Metric(
        name=f"compression_ratio_{compressor}",
        family="lexical",
        description=description,
        better=_RISES,
        needs=("texts",),
        compute=partial(measure_compression, compressor=compressor),
        standard=False,
    )
    for compressor, description in _WINDOWS.items()
]
LEXICAL: tuple[Metric, ...] = (
    *_DISTINCT,
    *_ENTROPY,
    Metric(
        name="self_bleu",
        family="lexical",
        description="mean BLEU-4 of each row against all the others",
        better=_RISES,
        needs=("texts",),
        compute=measure_self_bleu,
    ),
    Metric(
        name="rouge_l_homogenisation",
        family="lexical",
        description="mean ROUGE-L F1 over pairs of different rows",
        better=f"{LESS}; the same at any number of rows, changes with their length",
        needs=("texts",),
        compute=measure_rouge_l,
    ),
    Metric(
        name="self_repetition",
        family="lexical",
        description="fraction of 4-grams of words that stand in another row too",
        better=_RISES,
        needs=("texts",),
        compute=measure_self_repetition,
    ),
    Metric(
        name="self_repetition_log",
        family="lexical",
        description="mean log(1 + number of a row's 4-grams that stand in another row)",
        better=f"{LESS}; rises with the number of rows, and many times over with their length",
        needs=("texts",),
        compute=measure_log_self_repetition,
        standard=False,
    ),
    Metric(
        name="mtld",
        family="lexical",
        description="MTLD of the joined rows: words until the type-token ratio falls below 0.72",
        better=f"{MORE}; hardly depends on the number of rows",
        needs=("texts",),
        compute=measure_mtld,
    ),
    Metric(
        name="hd_d",
        family="lexical",
        description="HD-D: expected type-token ratio of 42 words drawn from all rows",
        better=f"{MORE}; hardly depends on the number of rows or their length",
        needs=("texts",),
        compute=measure_hd_d,
    ),
    Metric(
        name="compression_ratio",
        family="lexical",
        description="bytes of the sorted rows over their bytes after bzip2, which sees 900 kB at once",
        better=_RISES,
        needs=("texts",),
        compute=partial(measure_compression, compressor="bz2"),
    ),
    *_COMPRESSION,
    Metric(
        name="exact_duplicate_rate",
        family="lexical",
        description="fraction of rows that repeat an earlier one, case and punctuation aside",
        better=_RISES,
        needs=("texts",),
        compute=measure_exact_duplicates,
    ),
    Metric(
        name="near_duplicate_rate_minhash",
        family="lexical",
        description="fraction of rows that share at least 0.8 (Jaccard) of their 5-character runs with another row",
        better=_RISES,
        needs=("texts",),
        compute=measure_near_duplicates,
    ),
    Metric(
        name="mean_words",
        family="lexical",
        description="mean number of words a row",
        better="not a diversity: compare the other numbers at equal length",
        needs=("texts",),
        compute=measure_mean_words,
    ),
)
