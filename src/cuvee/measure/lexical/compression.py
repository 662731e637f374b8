"""The compression ratio of the rows, in an order of their own."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.lexical.resampling import estimate_with_bins, merge_bins
from cuvee.measure.subject import Subject
from cuvee.records import Estimate

Compressor = Literal["bz2", "lzma", "gzip"]
_SETTINGS: dict[Compressor, str] = {"bz2": "bzip2, level 9", "lzma": "LZMA2, preset 6", "gzip": "DEFLATE, level 6"}
# bytes above which compressing once more for each merged bin takes over five seconds or so
_MOST_BYTES: dict[Compressor, int] = {"bz2": 4_000_000, "lzma": 600_000, "gzip": 4_000_000}
_SMALLEST_WINDOW = 4096  # of LZMA2


def measure_compression(subject: Subject, compressor: Compressor) -> Estimate | None:
    """Bytes of the rows, one a line, over their bytes after compression (Shaib et al., arXiv 2403.00553).

    Rows are sorted first, so that their order does not matter. The compressor decides how far apart a repetition
    may lie and still be seen: 32 kB for gzip (DEFLATE), which the literature uses and which sees only neighbours
    in a corpus of more than some 500 rows; 900 kB for bzip2; the whole corpus for LZMA, given a window of its
    size. bzip2 is also the one that order touches least: sorted or shuffled, 13,000 queries of 650 kB differ by 2%
    (LZMA 11%, gzip 16%).

    It rises with the size of the corpus. The interval compresses anew with each of at most 16 merged bins left
    out; there is none above 4 MB (LZMA: 600 kB), where that takes many seconds. None where all texts are empty.
    """
    rows = sorted(zip(subject.corpus.texts, merge_bins(subject).tolist(), strict=True))
    texts = [text for text, _ in rows]
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    if not size:
        return None
    settings: dict[str, str | float] = {"compressor": _SETTINGS[compressor], "order": "sorted"}
    value = compression_ratio(texts, compressor=compressor)
    if size > _MOST_BYTES[compressor]:
        return Estimate(value=value, n=subject.n, settings=settings)
    bins = merge_bins(subject)

    def without() -> NDArray[np.float64]:
        kept = ([text for text, b in rows if b != left_out] for left_out in range(int(bins.max()) + 1))
        return np.array([compression_ratio(part, compressor=compressor) for part in kept])

    return estimate_with_bins(subject, value, without, bins, settings)


def compression_ratio(texts: Sequence[str], *, compressor: Compressor = "bz2") -> float:
    """Bytes over compressed bytes of the texts, sorted, one a line; 0 for no byte at all.

    Args:
        texts: any number of texts, in any order.
        compressor: ``bz2`` (sees 900 kB at once), ``lzma`` (everything) or ``gzip`` (32 kB; without its header).

    Raises:
        ValueError: another compressor.
    """
    data = "\n".join(sorted(texts)).encode("utf-8", "surrogatepass")
    if compressor == "bz2":
        return len(data) / len(bz2.compress(data, 9))
    if compressor == "gzip":
        return len(data) / len(zlib.compress(data, 6))
    if compressor == "lzma":
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": max(_SMALLEST_WINDOW, len(data))}]
        return len(data) / len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters))
    raise ValueError(f"compressor is {compressor!r}; choose one of {', '.join(get_args(Compressor))}")
