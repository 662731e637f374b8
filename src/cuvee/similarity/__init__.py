"""Kernels, tiled row sums, spectra, MMD and the grouped jackknife: the maths that measure and mix share.

Vectors have shape (n, d), float32, one row an example.
"""

from cuvee.similarity.backends import Compute, Device, Precision
from cuvee.similarity.budget import seconds_for_duplicates, seconds_for_pairs
from cuvee.similarity.discrepancy import Discrepancy, Membership, median_distance, mmd
from cuvee.similarity.diversity import (
    kernel_diversity,
    kernel_diversity_without,
    log_det,
    mean_cosine,
    mean_cosine_without,
    mean_pair,
    mean_pair_without,
    spectra_without,
    spectrum,
    vendi_score,
)
from cuvee.similarity.jackknife import Interval, jackknife_bins, jackknife_interval, two_sample_interval
from cuvee.similarity.kernels import (
    Distance,
    Exponential,
    Kernel,
    Laplacian,
    Polynomial,
    Rbf,
    unit_rows,
)
from cuvee.similarity.neighbours import NearDuplicates, find_near_duplicates, nearest_neighbours
from cuvee.similarity.novelty import proximity_means, proximity_means_without, reference_densities
from cuvee.similarity.sampling import SampledPass, canonical_order, sample_rows, sampled_pass
from cuvee.similarity.spread import (
    RowScores,
    mean_nearest_cosine,
    mean_nearest_cosine_without,
    nearest_by_bin,
    row_surprisal,
    score_rows,
)
from cuvee.similarity.threads import single_blas_thread
from cuvee.similarity.tiles import Neighbours, PairwisePass, Progress, RowSums, pairwise_pass, row_sums

__all__ = [
    "Compute",
    "Device",
    "Discrepancy",
    "Distance",
    "Exponential",
    "Interval",
    "Kernel",
    "Laplacian",
    "Membership",
    "NearDuplicates",
    "Neighbours",
    "PairwisePass",
    "Polynomial",
    "Precision",
    "Progress",
    "Rbf",
    "RowScores",
    "RowSums",
    "SampledPass",
    "canonical_order",
    "find_near_duplicates",
    "jackknife_bins",
    "jackknife_interval",
    "kernel_diversity",
    "kernel_diversity_without",
    "log_det",
    "mean_cosine",
    "mean_cosine_without",
    "mean_nearest_cosine",
    "mean_nearest_cosine_without",
    "mean_pair",
    "mean_pair_without",
    "median_distance",
    "mmd",
    "nearest_by_bin",
    "nearest_neighbours",
    "pairwise_pass",
    "proximity_means",
    "proximity_means_without",
    "reference_densities",
    "row_sums",
    "row_surprisal",
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
