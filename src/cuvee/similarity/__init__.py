"""Kernels, tiled row sums, spectra, MMD and the grouped jackknife: the maths that measure and mix share.

Vectors have shape (n, d), float32, one row an example.
"""

from cuvee.similarity.backends import Compute, Device, Precision, single_blas_thread
from cuvee.similarity.discrepancy import Membership, median_distance, mmd
from cuvee.similarity.diversity import (
    kernel_diversity,
    kernel_diversity_without,
    log_det,
    spectra_without,
    spectrum,
    vendi_score,
)
from cuvee.similarity.jackknife import jackknife_bins, jackknife_interval, two_sample_interval
from cuvee.similarity.kernels import Distance, Exponential, Kernel, Laplacian, Polynomial, Rbf, unit_rows
from cuvee.similarity.neighbours import (
    find_near_duplicates,
    nearest_neighbours,
    seconds_for_duplicates,
    seconds_for_pairs,
)
from cuvee.similarity.spread import (
    score_rows,
)
from cuvee.similarity.tiles import (
    Neighbours,
    Progress,
    RowSums,
    canonical_order,
    pairwise_pass,
    row_sums,
    sample_rows,
    sampled_pass,
)

__all__ = [
    "Compute",
    "Device",
    "Distance",
    "Exponential",
    "Kernel",
    "Laplacian",
    "Membership",
    "Neighbours",
    "Polynomial",
    "Precision",
    "Progress",
    "Rbf",
    "RowSums",
    "canonical_order",
    "find_near_duplicates",
    "jackknife_bins",
    "jackknife_interval",
    "kernel_diversity",
    "kernel_diversity_without",
    "log_det",
    "median_distance",
    "mmd",
    "nearest_neighbours",
    "pairwise_pass",
    "row_sums",
    "sample_rows",
    "sampled_pass",
    "score_rows",
    "seconds_for_duplicates",
    "seconds_for_pairs",
    "single_blas_thread",
    "spectra_without",
    "spectrum",
    "two_sample_interval",
    "unit_rows",
    "vendi_score",
]
