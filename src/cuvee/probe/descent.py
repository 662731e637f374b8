"""Mini-batch gradient descent with Nesterov momentum on a softmax over linear scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cuvee.records import Vectors
from cuvee.similarity import single_blas_thread

_MOMENTUM = 0.9
_WARM_UP = 0.1  # fraction of the steps over which the learning rate rises
_WATCHED = 512  # at most so many rows of a kind whose gradients are compared


class Stage(Protocol):
    """A stretch of training: which rows, what share of the steps, how strong a pull to where it began."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows that batches are drawn from."""

    @property
    def share(self) -> float:
        """Of all steps."""

    @property
    def pull(self) -> float:
        """Strength of the proximal term: pull / 2 times the squared distance to where the stage began."""


class Objective(Protocol):
    """A loss that is, for each row, a function of the log probability of the row's label."""

    @property
    def weights(self) -> NDArray[np.float64]:
        """Static weight of each row, above 0: what the penalty is measured against."""

    @property
    def phases(self) -> Sequence[Stage]:
        """In the order they are run."""

    @property
    def needs_gradients(self) -> bool:
        """Whether ``observe`` is to be called."""

    def slopes(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivative of each row's loss by its log probability, shape (b,): -1 is plain cross-entropy."""

    def observe(self, step: int, agreement: float) -> None:
        """Take note of the cosine between the gradients of synthetic and of held-out rows, before a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Whose gradients to compare: training rows at ``synthetic``, and held-out rows with columns ``codes``."""

    synthetic: NDArray[np.int64]
    data: Vectors
    codes: NDArray[np.int64]


@single_blas_thread()
def descend(
    data: Vectors,
    codes: NDArray[np.int64],
    k: int,
    objective: Objective,
    steps: int,
    batch: int,
    learning_rate: float,
    l2: float | None,
    rng: np.random.Generator,
    watch: Watch | None = None,
) -> NDArray[np.float32]:
    """Weights with the bias as last row, shape (d + 1, k), after ``steps`` steps over all phases."""
    rows = np.hstack([data, np.ones((len(data), 1), dtype=np.float32)])
    lengths = _phase_steps([phase.share for phase in objective.phases], steps)
    order = _draw_order(objective.phases[0].rows, lengths[0], batch, rng)
    weights = rng.normal(0.0, 0.01, size=(rows.shape[1], k)).astype(np.float32)
    weights[-1] = 0.0
    agreement = None if watch is None else _Agreement(rows, codes, watch)
    done = 0
    for number, (phase, length) in enumerate(zip(objective.phases, lengths, strict=True)):
        if number > 0:
            order = _draw_order(phase.rows, length, batch, rng)
        penalty = 0.1 / float(objective.weights[phase.rows].sum()) if l2 is None else l2
        weights = _run_phase(
            weights, rows, codes, objective, order, learning_rate, penalty, phase.pull, agreement, done
        )
        done += length
    return weights


def _run_phase(
    weights: NDArray[np.float32],
    rows: Vectors,
    codes: NDArray[np.int64],
    objective: Objective,
    order: NDArray[np.int64],
    learning_rate: float,
    l2: float,
    pull: float,
    agreement: _Agreement | None,
    done: int,
) -> NDArray[np.float32]:
    steps, batch = order.shape
    anchor, weights = weights, weights.copy()
    velocity = np.zeros_like(weights)
    inside = np.arange(batch)
    for step in range(steps):
        rate = np.float32(learning_rate * _schedule(step, steps))
        chosen = order[step]
        part = rows[chosen]
        # Nesterov: the gradient is taken where the momentum is about to carry the weights
        ahead = weights + _MOMENTUM * velocity
        if agreement is not None:
            objective.observe(done + step, agreement.cosine(ahead))
        residual, log_p = _residual(part, codes[chosen], ahead, inside)
        scale = (-objective.slopes(chosen, log_p)).astype(np.float32) / np.float32(batch)
        residual *= scale[:, None]
        velocity *= _MOMENTUM
        velocity -= rate * (part.T @ residual)
        velocity[:-1] -= (rate * np.float32(l2)) * ahead[:-1]
        if pull > 0:
            # the proximal term's step is implicit: an explicit one diverges where rate * pull is over 2
            tie = np.float32(min(float(rate) * pull, 1e30))
            moved = (weights + velocity - anchor) / (np.float32(1.0) + tie) + anchor
            velocity = moved - weights
        weights += velocity
    return weights


def _residual(
    part: Vectors, codes: NDArray[np.int64], weights: NDArray[np.float32], inside: NDArray[np.int64]
) -> tuple[Vectors, NDArray[np.float64]]:
    """Softmax minus one-hot, shape (b, k), and the log probability of each label, shape (b,)."""
    residual = part @ weights
    residual -= residual.max(axis=1, keepdims=True)
    own = residual[inside, codes].astype(np.float64)
    np.exp(residual, out=residual)
    total = residual.sum(axis=1, keepdims=True)
    residual /= total
    residual[inside, codes] -= 1.0
    return residual, own - np.log(total[:, 0].astype(np.float64))


class _Agreement:
    """Cosine between the gradients of synthetic rows and of held-out rows, their vectors centred.

    What all vectors have in common only moves how often each label is said. Any two sources agree about that, even
    one of permuted labels, and while the rate is high it is most of the gradient.
    """

    def __init__(self, rows: Vectors, codes: NDArray[np.int64], watch: Watch) -> None:
        chosen = watch.synthetic[_spread(len(watch.synthetic))]
        held = _spread(len(watch.codes))
        data = watch.data[held]
        self._own = rows[chosen], codes[chosen]
        self._held = np.hstack([data, np.ones((len(data), 1), dtype=np.float32)]), watch.codes[held]

    def cosine(self, weights: NDArray[np.float32]) -> float:
        """At these weights; 0 where one gradient is zero."""
        one, other = _centred_gradient(*self._own, weights), _centred_gradient(*self._held, weights)
        norm = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
        return float((one * other).sum()) / norm if norm > 0 else 0.0


def _centred_gradient(rows: Vectors, codes: NDArray[np.int64], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    residual, _ = _residual(rows, codes, weights, np.arange(len(codes)))
    out: NDArray[np.float32] = (rows - rows.mean(axis=0)).T @ residual
    return out


def _spread(count: int) -> NDArray[np.int64]:
    """At most ``_WATCHED`` places, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, _WATCHED)).astype(np.int64)) if count else np.arange(0)


def _phase_steps(shares: Sequence[float], steps: int) -> list[int]:
    """Steps of each phase; they sum to ``steps``, and each phase has one where there are enough."""
    ends = np.rint(np.cumsum(shares) / sum(shares) * steps).astype(int)
    if steps >= len(shares):
        for i in range(len(ends)):
            ends[i] = min(max(ends[i], (ends[i - 1] if i else 0) + 1), steps - (len(ends) - 1 - i))
    return [int(n) for n in np.diff(ends, prepend=0)]


def _draw_order(rows: NDArray[np.int64], steps: int, batch: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of each step, shape (steps, batch): permutations of ``rows``, one after another."""
    length = steps * batch
    epochs = -(-length // len(rows))
    places = rng.permuted(np.tile(np.arange(len(rows)), (epochs, 1)), axis=1).ravel()[:length]
    drawn: NDArray[np.int64] = rows[places].reshape(steps, batch)
    return drawn


def _schedule(step: int, steps: int) -> float:
    warm = max(1.0, _WARM_UP * steps)
    if step + 1 < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + float(np.cos(np.pi * (step + 1 - warm) / max(1.0, steps - warm))))
