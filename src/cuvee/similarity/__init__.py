"""Kernels, tiled row sums, spectra, MMD and the grouped jackknife: the maths that measure and mix share.

Vectors have shape (n, d), float32, one row an example.
"""

from cuvee.similarity.discrepancy import Discrepancy, median_distance, mmd
from cuvee.similarity.diversity import (
    kernel_diversity,
    kernel_diversity_without,
    mean_cosine,
    mean_cosine_without,
    spectra_without,
    spectrum,
    vendi_score,
)
from cuvee.similarity.jackknife import Interval, jackknife_bins, jackknife_interval
from cuvee.similarity.kernels import (
    AtLeast,
    Exponential,
    Kernel,
    Neighbours,
    RowSums,
    nearest_neighbours,
    row_sums,
    unit_rows,
)
from cuvee.similarity.threads import single_blas_thread

__all__ = [
    "AtLeast",
    "Discrepancy",
    "Exponential",
    "Interval",
    "Kernel",
    "Neighbours",
    "RowSums",
    "jackknife_bins",
    "jackknife_interval",
    "kernel_diversity",
    "kernel_diversity_without",
    "mean_cosine",
    "mean_cosine_without",
    "median_distance",
    "mmd",
    "nearest_neighbours",
    "row_sums",
    "single_blas_thread",
    "spectra_without",
    "spectrum",
    "unit_rows",
    "vendi_score",
]
