"""Kernels, tiled row sums, spectra, MMD and the grouped jackknife: the maths that measure and mix share.

Vectors have shape (n, d), float32, one row an example.
"""

from cuvee.similarity.backends import single_blas_thread, unit_rows
from cuvee.similarity.discrepancy import Membership, median_distance, mmd
from cuvee.similarity.diversity import (
    NORMAL_QUANTILE,
    jackknife_bins,
    jackknife_interval,
    kernel_diversity,
    kernel_diversity_without,
    log_det,
    spectra_without,
    spectrum,
    two_sample_interval,
    vendi_score,
    wilson_interval,
)
from cuvee.similarity.neighbours import SLACK, find_near_duplicates, near_repeats, nearest_margins, nearest_neighbours
from cuvee.similarity.tiles import Neighbours, RowSums, pairwise_pass, row_sums, sample_rows, sampled_pass
