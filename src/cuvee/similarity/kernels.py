"""Unit rows, and kernels as functions of the cosine of two unit rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from cuvee.records import Vectors

Matrix = NDArray[np.float32]
"""Of numbers, float32 or float64: a tensor where a torch backend works on it."""
_CHUNK = 4096  # rows normalised at a time


def unit_rows(vectors: Vectors, *, dtype: type[np.float32] | type[np.float64] = np.float32) -> Vectors:
    """The rows scaled to length 1, shape (n, d), computed in float64 and stored as ``dtype``.

    Raises:
        ValueError: ``vectors`` is not a matrix, or a row is zero or not finite (its number is named).
    """
    data = np.asanyarray(vectors)
    if data.ndim != 2:
        raise ValueError(f"vectors has shape {data.shape!r}; it must be (rows, dimensions)")
    out = np.empty(data.shape, dtype=dtype)
    for start in range(0, len(data), _CHUNK):
        part = data[start : start + _CHUNK].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            largest = np.abs(part).max(axis=1, initial=0.0)
        bad = np.flatnonzero(~np.isfinite(largest) | (largest == 0))
        if len(bad):
            kind = "is zero" if largest[bad[0]] == 0 else "is not finite"
            raise ValueError(f"vectors row {start + bad[0]} {kind}; it has no direction, drop that row")
        part /= largest[:, None]  # first by the largest entry: squares of huge or tiny rows stay in range
        out[start : start + _CHUNK] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return cast("Vectors", out)


class Operations:
    """The elementwise functions that kernels are made of, for numpy; each may write into its argument."""

    def exp(self, values: Matrix) -> Matrix:
        """The exponential of each value."""
        return np.exp(values, out=values)

    def scaled_exp(self, values: Matrix, rate: float) -> Matrix:
        """``exp(rate * (values - 1))``, as a new matrix."""
        out = np.subtract(values, values.dtype.type(1.0))
        if rate != 1.0:
            out *= values.dtype.type(rate)
        return np.exp(out, out=out)

    def sqrt(self, values: Matrix) -> Matrix:
        """The square root of each value."""
        return np.sqrt(values, out=values)

    def above(self, values: Matrix, floor: float) -> Matrix:
        """Each value, at least ``floor``."""
        return np.maximum(values, np.asarray(floor, dtype=values.dtype), out=values)


class Kernel(Protocol):
    """A similarity of two unit rows as a function of their cosine, 1 where they are equal."""

    def values(self, cosines: Matrix, ops: Operations) -> Matrix:
        """The kernel of a tile of cosines, as a new tile."""


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} is {value!r}; it must be positive")


_ROUNDING = 1e-6  # of a cosine of float32 rows


@dataclass(frozen=True, slots=True)
class Exponential:
    """``exp((cos - 1) / tau)``: the similarity whose diversity of order 0 is DCScore (arXiv 2502.08512)."""

    tau: float

    def __post_init__(self) -> None:
        _positive("tau", self.tau)

    def values(self, cosines: Matrix, ops: Operations) -> Matrix:
        """The kernel of a tile of cosines."""
        return ops.scaled_exp(cosines, 1.0 / self.tau)


@dataclass(frozen=True, slots=True)
class Rbf:
    """``exp((exp(-|x - y|^2 / (2 sigma^2)) - 1) / tau)``, or without tau the RBF kernel itself.

    With ``tau`` it is the similarity that DCScore has with the RBF kernel: softmax of K / tau.
    """

    sigma: float
    tau: float | None = None

    def __post_init__(self) -> None:
        _positive("sigma", self.sigma)

    def values(self, cosines: Matrix, ops: Operations) -> Matrix:
        """The kernel of a tile of cosines; |x - y|^2 = 2 - 2 cos."""
        return _sharpen(ops.scaled_exp(cosines, 1.0 / self.sigma**2), self.tau, ops)


@dataclass(frozen=True, slots=True)
class Laplacian:
    """``exp(-|x - y| / sigma)`` with the Euclidean distance; with ``tau`` as in ``Rbf``."""

    sigma: float
    tau: float | None = None

    def __post_init__(self) -> None:
        _positive("sigma", self.sigma)

    def values(self, cosines: Matrix, ops: Operations) -> Matrix:
        """The kernel of a tile of cosines."""
        distance = _distances(cosines, ops)
        return _sharpen(ops.exp(distance * (-1.0 / self.sigma)), self.tau, ops)


@dataclass(frozen=True, slots=True)
class Polynomial:
    """``((cos + offset) / (1 + offset)) ^ degree``, 0 for cosines below ``-offset``; ``tau`` as in ``Rbf``."""

    degree: int = 3
    offset: float = 1.0
    tau: float | None = None

    def __post_init__(self) -> None:
        if self.degree < 1 or self.offset < 0:
            raise ValueError(f"degree is {self.degree!r} and offset {self.offset!r}; they must be >= 1 and >= 0")

    def values(self, cosines: Matrix, ops: Operations) -> Matrix:
        """The kernel of a tile of cosines."""
        base = ops.above((cosines + self.offset) * (1.0 / (1.0 + self.offset)), 0.0)
        return _sharpen(base**self.degree, self.tau, ops)


@dataclass(frozen=True, slots=True)
class Distance:
    """``|x - y|``, the Euclidean distance: no kernel (0 where rows are equal), for sums of distances."""

    def values(self, cosines: Matrix, ops: Operations) -> Matrix:
        """The distances of a tile of cosines."""
        return _distances(cosines, ops)


def _distances(cosines: Matrix, ops: Operations) -> Matrix:
    """Euclidean distances; cosines of equal rows differ from 1 by rounding, which the root would magnify."""
    return ops.sqrt(ops.above((cosines - (1.0 - _ROUNDING)) * -2.0, 0.0))


def _sharpen(kernel: Matrix, tau: float | None, ops: Operations) -> Matrix:
    return kernel if tau is None else ops.scaled_exp(kernel, 1.0 / tau)


def evaluate_kernels(kernels: Sequence[Kernel], cosines: Matrix, ops: Operations) -> list[Matrix]:
    """The tiles of several kernels; exponentials whose 1/tau is made of others' are products, not new powers.

    exp(5 x) is exp(2 x)^2 exp(x): a product costs a fifth of an exponential, and the relative error of a cell
    stays below 1e-5 in float32, mostly below 1e-6.
    """
    found: dict[float, Matrix] = {}
    out: dict[int, Matrix] = {}
    rates = {i: 1.0 / k.tau for i, k in enumerate(kernels) if isinstance(k, Exponential)}
    for i, rate in sorted(rates.items(), key=lambda item: item[1]):
        if rate not in found:
            made = _combine(rate, found)
            found[rate] = kernels[i].values(cosines, ops) if made is None else made
        out[i] = found[rate]
    return [out[i] if i in out else kernel.values(cosines, ops) for i, kernel in enumerate(kernels)]


def _combine(rate: float, found: dict[float, Matrix]) -> Matrix | None:
    """exp(rate x) as exp(a x)^2 or exp(a x)^2 exp(b x) of rates that are there, None where it is not."""
    for a, values in found.items():
        rest = rate - 2.0 * a
        if abs(rest) < 1e-9 * rate:
            return values * values
        near = next((b for b in found if abs(rest - b) < 1e-9 * rate), None)
        if near is not None:
            return values * values * found[near]
    return None
