"""What the diversity code claims about speed, as ratios within one run.

    python benchmarks/measure_speed.py [rows ...]

Each line compares Cuvée's way with the plain n x n way in numpy on the same unit vectors: CPU seconds, memory
allocated beyond the vectors, and the difference of the two scores. About half a minute on two cores.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cuvee.records import Vectors
from cuvee.similarity import (
    Exponential,
    jackknife_bins,
    kernel_diversity,
    kernel_diversity_without,
    row_sums,
    single_blas_thread,
    spectra_without,
    spectrum,
    unit_rows,
    vendi_score,
)

TAUS = (1.0, 0.5, 0.2, 0.1, 0.05)


@dataclass(frozen=True)
class Timed:
    value: float
    seconds: float
    megabytes: float


def timed(work: Callable[[], float]) -> Timed:
    work_start = time.process_time()
    value = work()
    seconds = time.process_time() - work_start
    tracemalloc.start()
    work()
    megabytes = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return Timed(value, seconds, megabytes)


def naive_dcscore(unit: Vectors) -> float:
    kernel = unit @ unit.T
    powers = np.exp(kernel)
    return float(np.trace(powers / powers.sum(axis=1, keepdims=True)))


def naive_vendi(unit: Vectors) -> float:
    values = np.linalg.eigvalsh((unit @ unit.T) / len(unit))
    values = values[values > 1e-9]
    return float(np.exp(-np.sum(values * np.log(values))))


def tiled_dcscore(unit: Vectors) -> float:
    return kernel_diversity(row_sums(unit, [Exponential(1.0)])[0].total)


def all_taus_with_jackknife(unit: Vectors) -> float:
    bins = jackknife_bins([str(i) for i in range(len(unit))])
    sums = row_sums(unit, [Exponential(tau) for tau in TAUS], bins=bins)
    return float(sum(kernel_diversity_without(s, bins).std() for s in sums))


def vendi_with_jackknife(unit: Vectors) -> float:
    bins = jackknife_bins([str(i) for i in range(len(unit))])
    return float(np.std([vendi_score(values) for values in spectra_without(unit, bins)]))


def show(name: str, timing: Timed, base: Timed | None = None) -> None:
    line = f"  {name:<42} {timing.seconds:>8.3f} cpu-s {timing.megabytes:>9.1f} MB"
    if base is not None:
        off = abs(timing.value / base.value - 1)
        faster, leaner = base.seconds / timing.seconds, base.megabytes / timing.megabytes
        line += f"   {faster:>6.1f}x less time {leaner:>6.1f}x less memory"
        line += f", relative difference {off:.0e}"
    print(line)


def main(sizes: list[int]) -> None:
    centres = np.random.default_rng(0).normal(size=(50, 384))
    for n in sizes:
        rng = np.random.default_rng(n)
        unit = unit_rows((centres[rng.integers(0, 50, size=n)] + rng.normal(size=(n, 384))).astype(np.float32))
        print(f"n = {n}, d = 384")
        with single_blas_thread():
            naive = timed(lambda unit=unit: naive_dcscore(unit))
        show("DCScore, n x n softmax", naive)
        show("DCScore, symmetric tiles", timed(lambda unit=unit: tiled_dcscore(unit)), naive)
        show("DCScore, five taus with jackknife", timed(lambda unit=unit: all_taus_with_jackknife(unit)))
        if n <= 3000:  # O(n^3): minutes above
            with single_blas_thread():
                naive = timed(lambda unit=unit: naive_vendi(unit))
            show("Vendi, n x n eigenvalues", naive)
            show("Vendi, d x d dual", timed(lambda unit=unit: vendi_score(spectrum(unit))), naive)
        else:
            show("Vendi, d x d dual", timed(lambda unit=unit: vendi_score(spectrum(unit))))
        show("Vendi, dual with jackknife", timed(lambda unit=unit: vendi_with_jackknife(unit)))


if __name__ == "__main__":
    main([int(a) for a in sys.argv[1:]] or [2000, 8000])
