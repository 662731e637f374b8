"""The chain of a causal language model: each generation is tuned on completions that the one before wrote."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cuvee.collapse.experiment import Experiment
from cuvee.collapse.generation import Floats, Generation, Place, Task, Work, load_encoder_once, measure_texts
from cuvee.config.collapse import CausalModel
from cuvee.corpus import Corpus
from cuvee.encoders import load_encoder
from cuvee.evaluate import SCORES
from cuvee.fingerprint import derive_seed, hash_value
from cuvee.records import Level, Sampling
from cuvee.store import StoredPool
from cuvee.train.causal import CausalWriter, fill_causal_settings, train_causal
from cuvee.train.model import TunedChecker, make_ready

# Fraction of the held-out rows, those that the untuned model finds least probable.
SCORE = "loss"
TAIL = 0.1
_TIMED = 8  # rows


class CausalExperiment(Experiment):
    """All chains of a causal language model."""

    model: CausalModel
    score = SCORE

    def work(self) -> GenerationWork:
        """Trains, lets write and measures."""
        config, models = self.config, self.folder.path / "models"
        return GenerationWork(
            config=config, model=self.model, settings=self.settings, held_out=self.held_out, models=models,
            tail=self._tail(),
        )  # fmt: skip

    def untuned(self) -> dict[str, float]:
        """The loss before any training."""
        log_p = self._log_p
        return {SCORE: -float(log_p.mean()), "tail_loss": -float(log_p[self._tail()].mean())}

    @cached_property
    def _log_p(self) -> Floats:
        """Mean log probability of each held-out row's tokens under the model before any training."""
        key, level = hash_value([self._key, "untuned"]), Level(dial="start", name="untuned", rank=0)
        found = self.folder.load_pool(level, key)
        if found is None:
            note = json.dumps(row_means(self._open_untuned(), self.held_out).tolist())
            found = StoredPool(level=level, corpus=self.held_out, note=note, key=key)
            self.folder.save_pool(found)
        return np.array(json.loads(found.note))

    def _open_untuned(self) -> CausalWriter:
        return CausalWriter.from_pretrained(fill_causal_settings(self.settings))

    def _tail(self) -> NDArray[np.int64]:
        """The rarest held-out rows."""
        order = np.argsort(self._log_p, kind="stable")
        return order[: max(2, round(TAIL * len(order)))]

    def time_one(self) -> tuple[float, int]:
        """Train one step, write and score a few rows, and count on from there."""
        model, config = self.model, self.config
        untuned = self._open_untuned()
        rows = self.real.take(np.arange(min(_TIMED, len(self.real))))
        step = make_ready(rows, replace(self.settings, steps=1), encode=load_encoder("hashing").encode)

        def clock(work: Callable[[], object]) -> float:
            start = time.perf_counter()
            work()
            return time.perf_counter() - start

        def train() -> object:
            return train_causal(
                step.corpus, step.loss, step.settings, encoder=None, validation=None, progress=None, folder=None
            )  # fmt: skip

        sampling = Sampling(max_tokens=model.max_tokens)
        writing = clock(lambda: untuned.continue_prompts(rows.prompts, sampling, seed=0)) * model.rows / len(rows)
        scoring = clock(lambda: row_means(untuned, rows)) * len(self.held_out) / len(rows)
        evaluations = min(model.evaluations, model.steps) + 2  # loss and calibration at the end
        more = (config.curated.candidates - 1) / len(self.diets) if "curated" in config.regimes else 0
        one = clock(train) * model.steps + writing * (1 + more) + scoring * evaluations
        size = sum(parameter.nbytes for parameter in untuned.model.parameters())
        return one, size


# --- one generation, wherever the executor puts it ---------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationWork(Work[CausalModel]):
    """Of a causal model; ``tail`` has the places of the rarest held-out rows."""

    tail: NDArray[np.int64]

    def __call__(self, task: Task) -> list[Generation]:
        """One generation for each place."""
        writer = self._train(task.rows, task.places[0])
        return [self._write(writer, place, task) for place in task.places]

    def _train(self, rows: Corpus, place: Place) -> CausalWriter:
        # so patient that all steps are done
        every = max(1, self.model.steps // self.model.evaluations)
        settings = replace(self.settings, seed=self.seed_of(place), patience=self.model.steps, evaluate_every=every)
        ready = make_ready(rows, settings, encode=lambda texts: load_encoder_once(self.model.encoder).encode(texts))
        return train_causal(
            ready.corpus, ready.loss, ready.settings, encoder=None, validation=self.held_out, progress=None,
            folder=None, keep_last=self.model.checkpoint == "last",
        )  # fmt: skip

    def _write(self, writer: CausalWriter, place: Place, task: Task) -> Generation:
        """Let a trained model write, and measure both."""
        decoding, prompts = place.decoding, task.prompts
        sampling = Sampling(
            temperature=decoding.temperature, top_p=decoding.top_p, top_k=decoding.top_k,
            max_tokens=self.model.max_tokens,
        )  # fmt: skip
        seed = derive_seed(self.config.seed, "collapse", "writing", place.chain, place.number)
        texts = writer.continue_prompts(prompts.prompts, sampling, seed=seed, beams=decoding.beams)
        written = prompts.with_columns(
            target=texts, origin=["synthetic"] * len(texts), id=[f"{name}/{place.level.name}" for name in prompts.ids]
        )
        if self.config.curated.agreement is not None and len(prompts) > len(task.real):
            checked = TunedChecker(self.settings)(
                task.real, written, weights=np.ones(len(task.real)), passes=None, seed=seed
            )  # fmt: skip
            written = written.with_columns(weight=np.exp(np.nan_to_num(checked.log_p, nan=-np.inf)))
        values, errors = self._measure(writer, texts[: self.model.rows], task.real)
        self.keep(writer, place)
        return Generation(written=written, values=values, errors=errors)

    def _measure(
        self, writer: CausalWriter, texts: Sequence[str], real: Corpus
    ) -> tuple[dict[str, float], dict[str, float]]:
        course, log_p = writer.course, row_means(writer, self.held_out)
        assert course is not None
        tenth = max(1, len(course.losses) // 10)
        tail = log_p[self.tail]
        values = {
            SCORE: -float(log_p.mean()),
            "last_loss": -course.scores[-1],
            "best_loss": -max(course.scores),
            "train_loss": float(np.mean(course.losses[-tenth:])),
            "tail_loss": -float(tail.mean()),
        }
        errors = {SCORE: _error(log_p), "tail_loss": _error(tail)}
        values["calibration"], errors["calibration"] = _calibrate(writer, self.held_out)
        found, their_errors = measure_texts(texts, real.targets, self.model.encoder, self.config.seed)
        return values | found, errors | their_errors


def row_means(writer: CausalWriter, rows: Corpus) -> Floats:
    """Mean log probability of each completion's tokens."""
    sums = writer.log_likelihood(rows.prompts, rows.targets)
    means: Floats = sums[:, 0] / sums[:, 1]
    return means


def _calibrate(writer: CausalWriter, rows: Corpus) -> tuple[float, float]:
    """Calibration error of the most probable token over all tokens of the rows, and its jackknife error over rows."""
    row, p, hit = writer.top_tokens(rows.prompts, rows.targets).T
    n = len(rows)
    weights = np.vstack([np.ones(len(row)), row != np.arange(n)[:, None]])  # all rows, then all but each
    whole, *others = SCORES["ece"]({"confidence": p, "accuracy": hit}, weights)
    return float(whole), float(np.sqrt((n - 1) / n * np.square(others - np.mean(others)).sum()))


def _error(values: Floats) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))
