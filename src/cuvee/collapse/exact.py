"""Models small enough to have exact answers: a Gaussian, and counts of words. All chains are drawn at once.

Oracles (docs/concepts.md): with n rows a generation and an unbiased covariance, n times the variance of the mean is
t + 1 under ``replace``, the sum of 1/i^2 under ``accumulate`` (never above pi^2/6), and converges where fresh real
rows are mixed in; a covariance by maximum likelihood shrinks by 1 - 1/n a generation, and so does the chance that two
words differ.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cuvee.config.collapse import CollapseConfig, CountsModel, Diet, GaussianModel
from cuvee.errors import ConfigError
from cuvee.fingerprint import derive_rng
from cuvee.records import Course, Floats

SCORES = {"gaussian": "mean_error", "unigram": "lost_diversity", "bigram": "lost_diversity"}
_AT_ONCE = 2**23  # numbers that the rows of some chains may have together
_TAIL = 0.1  # of the real law's probability, that of its rarest words
_WORDS = 12


class Gaussian:
    """A standard normal law of ``d`` coordinates. Rows of c chains have shape (c, rows, d).

    A fit has shape (c, d + 1, d): the mean, and below it the covariance.
    """

    def __init__(self, model: GaussianModel) -> None:
        self._rows, self._d, self._temperature = model.rows, model.dimension, model.temperature
        self._lost = 1 if model.estimator == "unbiased" else 0  # what the divisor of the covariance is below n

    def real(self, chains: int, rows: int, rng: np.random.Generator) -> Floats:
        """Rows of the standard normal law."""
        return rng.standard_normal((chains, rows, self._d))

    def draw(self, fit: Floats, rows: int, rng: np.random.Generator) -> Floats:
        """Rows of a fitted normal law; its density to the power 1/T is that of T times the covariance."""
        try:
            factor = np.linalg.cholesky(self._temperature * fit[:, 1:])
        except np.linalg.LinAlgError as exc:
            told = f"model.rows is {self._rows}, and a covariance became singular; raise it, or lower generations"
            raise ConfigError(told) from exc
        noise = rng.standard_normal((len(fit), rows, self._d))
        return fit[:, :1] + noise @ factor.transpose(0, 2, 1)

    def fit(self, rows: Floats, weight: float = 1.0) -> Floats:
        """Mean and covariance, times a weight."""
        mean = rows.mean(axis=1, keepdims=True)
        covariance = (rows - mean).transpose(0, 2, 1) @ (rows - mean) / max(1, rows.shape[1] - self._lost)
        return weight * np.concatenate([mean, covariance], axis=1)

    def pool(self, before: Floats, more: Floats) -> Floats:
        """Rows one after the other."""
        return np.concatenate([before, more], axis=1)

    def subsample(self, rows: Floats, count: int, rng: np.random.Generator) -> Floats:
        """Other rows in each chain."""
        chosen = np.argsort(rng.random(rows.shape[:2]), axis=1)[:, :count, None]
        return np.take_along_axis(rows, chosen, axis=1)

    def measure(self, fit: Floats) -> dict[str, Floats]:
        """Squared error of the mean a coordinate times the rows of a generation, and the mean variance."""
        return {
            "mean_error": self._rows * (fit[:, 0] ** 2).mean(axis=1),
            "variance": np.trace(fit[:, 1:], axis1=1, axis2=2) / self._d,
        }

    def expect(self, diet: Diet, generations: int) -> dict[str, Floats]:
        """Of the mean with an unbiased covariance, of the variance with one by maximum likelihood."""
        steps, heat = np.arange(generations + 1), self._temperature
        shrunk = heat**steps * (1.0 if self._lost else (1 - 1 / self._rows) ** (steps + 1.0))
        if diet.regime == "replace":
            return {"mean_error": np.cumsum([1.0, *heat * shrunk[:-1]]), "variance": np.asarray(shrunk)}
        if heat != 1 or not self._lost or diet.regime in ("accumulate_subsample", "curated"):
            return {}
        if diet.regime == "accumulate":
            return {"mean_error": np.cumsum(1 / (steps + 1.0) ** 2)}
        # with n times the variance v: w^2 n / fresh + (1 - w)^2 (v + n / written)
        fresh, w, found = diet.fresh_rows(self._rows), diet.weight, [1.0]
        for _ in range(generations):
            noise = w**2 * self._rows / fresh + (1 - w) ** 2 * self._rows / (self._rows - fresh)
            found.append(noise + (1 - w) ** 2 * found[-1])
        return {"mean_error": np.array(found), "variance": np.ones(generations + 1)}

    def show(self, fit: Floats) -> tuple[str, ...]:
        """Mean and standard deviation of the first coordinate."""
        return (repr(float(fit[0, 0, 0])), repr(float(np.sqrt(fit[0, 1, 0]))))


def take_nearest(rows: Floats, count: int) -> Floats:
    """The rows of each chain that lie nearest to the real mean: a filter of a Gaussian's rows."""
    chosen = np.argsort((rows**2).sum(axis=2), axis=1, kind="stable")[:, :count, None]
    return np.take_along_axis(rows, chosen, axis=1)


class Counts:
    """Words of a Zipf law, each drawn by itself or by the word before it.

    Rows of c chains are counts: of words, shape (c, v), or of pairs of neighbours, shape (c, v, v). A text of pairs is
    read as a circle, so that every word that occurs is followed by one.
    """

    def __init__(self, model: CountsModel) -> None:
        self._temperature = model.temperature
        law = 1 / np.arange(1, model.vocabulary + 1) ** model.exponent
        self._law: Floats = law / law.sum()
        self._v, self._rows, self._pairs = model.vocabulary, model.rows, model.kind == "bigram"
        self._tail = np.cumsum(self._law[::-1])[::-1] <= _TAIL
        self._tail[-1] = True

    def real(self, chains: int, rows: int, rng: np.random.Generator) -> Floats:
        """Words of the real law; among pairs each word has a law of its own, the same ranks in another order."""
        if not self._pairs:
            return rng.multinomial(rows, np.broadcast_to(self._law, (chains, self._v))).astype(np.float64)
        shifted = np.array([np.roll(self._law, word) for word in range(self._v)])
        shape = (chains, self._v)
        return self._walk(np.broadcast_to(shifted, (*shape, self._v)), np.broadcast_to(self._law, shape), rows, rng)

    def draw(self, fit: Floats, rows: int, rng: np.random.Generator) -> Floats:
        """Words of a fitted law; ``fit`` holds probabilities of words, or of pairs."""
        if not self._pairs:
            return rng.multinomial(rows, self._heat(fit)).astype(np.float64)
        return self._walk(self._heat(fit), fit.sum(axis=1), rows, rng)

    def _heat(self, law: Floats) -> Floats:
        """Probabilities along the last axis to the power 1/T; a word that is gone is never reached."""
        raised = law ** (1 / self._temperature)
        sums = raised.sum(axis=-1, keepdims=True)
        return np.asarray(raised / np.where(sums > 0, sums, 1))

    def _walk(self, following: Floats, first: Floats, rows: int, rng: np.random.Generator) -> Floats:
        """Counts of pairs of a text of so many words a chain, by the laws of each word's successor and of the first."""
        every, edges = np.arange(len(first)), np.cumsum(following, axis=2)
        at = rng.random((rows, len(first), 1))

        def choose(uniform: Floats, edge: Floats) -> NDArray[np.int64]:
            return np.asarray((uniform * edge[:, -1:] < edge).argmax(axis=1))

        last = start = choose(at[0], np.cumsum(first, axis=1))
        counts = np.zeros(edges.shape)
        for uniform in at[1:]:
            word = choose(uniform, edges[every, last])
            counts[every, last, word] += 1
            last = word
        counts[every, last, start] += 1
        return counts

    def fit(self, rows: Floats, weight: float = 1.0) -> Floats:
        """Relative frequencies, times a weight."""
        return np.asarray(weight * rows / rows.sum(axis=tuple(range(1, rows.ndim)), keepdims=True))

    def pool(self, before: Floats, more: Floats) -> Floats:
        """The sum of counts."""
        return before + more

    def subsample(self, rows: Floats, count: int, rng: np.random.Generator) -> Floats:
        """Counts of so many words. Pairs would fall apart: the config has no such regime for them."""
        flat = rows.reshape(len(rows), -1).astype(np.int64)
        left, wanted = flat.sum(axis=1), np.full(len(rows), count)
        out = np.zeros_like(flat)
        for word in range(flat.shape[1]):
            left = left - flat[:, word]
            out[:, word] = rng.hypergeometric(flat[:, word], left, wanted)
            wanted = wanted - out[:, word]
        return out.reshape(rows.shape).astype(np.float64)

    def measure(self, fit: Floats) -> dict[str, Floats]:
        """Of words: the chance that two agree, the number that is left, the probability of the rarest."""
        words = fit.sum(axis=1) if self._pairs else fit
        found = {
            "lost_diversity": np.asarray((words**2).sum(axis=1)),
            "vocabulary": (words > 0).sum(axis=1).astype(np.float64),
        }
        # words of pairs are about equally frequent: none is rare
        return found if self._pairs else {**found, "tail_mass": np.asarray(words[:, self._tail].sum(axis=1))}

    def expect(self, diet: Diet, generations: int) -> dict[str, Floats]:
        """Of words drawn by themselves, under ``replace``."""
        if self._pairs or self._temperature != 1 or diet.regime != "replace":
            return {}
        kept = (1 - 1 / self._rows) ** np.arange(1.0, generations + 2)
        return {
            "lost_diversity": 1 - kept * (1 - (self._law**2).sum()),
            "tail_mass": np.full(generations + 1, self._law[self._tail].sum()),
        }

    def show(self, fit: Floats) -> tuple[str, ...]:
        """The most frequent words, by their rank in the real law."""
        words = fit[0].sum(axis=0) if self._pairs else fit[0]
        first = [word for word in np.argsort(-words, kind="stable")[:_WORDS] if words[word] > 0]
        return (", ".join(f"word {word + 1} {words[word]:.1%}" for word in first),)


def run_exact(config: CollapseConfig) -> list[Course]:
    """Every course of an experiment with a Gaussian or counts, some chains at a time; all have one generation 0."""
    law: Gaussian | Counts
    if isinstance(config.model, GaussianModel):
        law, size = Gaussian(config.model), config.model.rows * config.model.dimension * (config.generations + 1)
    else:
        assert isinstance(config.model, CountsModel)
        law, size = Counts(config.model), 2 * config.model.vocabulary ** (2 if config.model.kind == "bigram" else 1)
    at_once, courses = max(1, _AT_ONCE // size), list[Course]()
    for diet in config.list_diets():
        starts = range(0, config.chains, at_once)
        parts = [list(_follow(law, config, diet, start, min(at_once, config.chains - start))) for start in starts]
        values = {
            name: np.array([np.concatenate([values[name] for values, _ in each]) for each in zip(*parts, strict=True)])
            for name in parts[0][0][0]
        }
        samples, expected = tuple(shown for _, shown in parts[0]), law.expect(diet, config.generations)
        courses.append(Course(regime=diet.name, values=values, expected=expected, samples=samples))
    return courses


def _follow(
    law: Gaussian | Counts, config: CollapseConfig, diet: Diet, start: int, chains: int
) -> Iterator[tuple[dict[str, Floats], tuple[str, ...]]]:
    """What some chains measure, generation by generation."""
    rows = config.model.rows
    pool = law.real(chains, rows, derive_rng(config.seed, "collapse", "real", start))
    rng = derive_rng(config.seed, "collapse", diet.name, start)
    fit = law.fit(pool)
    yield law.measure(fit), law.show(fit)
    for _ in range(config.generations):
        if diet.regime == "fresh":
            fresh = diet.fresh_rows(rows)
            real, written = law.real(chains, fresh, rng), law.draw(fit, rows - fresh, rng)
            fit = law.fit(real, diet.weight) + law.fit(written, 1 - diet.weight)
        elif diet.regime == "replace":
            fit = law.fit(law.draw(fit, rows, rng))
        elif diet.regime == "curated":
            fit = law.fit(take_nearest(law.draw(fit, rows * config.curated.candidates, rng), rows))
        else:
            pool = law.pool(pool, law.draw(fit, rows, rng))
            fit = law.fit(pool if diet.regime == "accumulate" else law.subsample(pool, rows, rng))
        yield law.measure(fit), law.show(fit)
