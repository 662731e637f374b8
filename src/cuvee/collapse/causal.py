"""The chain of a causal language model: each generation is tuned on completions that the one before wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cuvee.collapse.experiment import Experiment, Generation, Place, Task, Work, load_encoder_once
from cuvee.config.collapse import CausalModel
from cuvee.corpus import Corpus
from cuvee.evaluate import SCORES
from cuvee.fingerprint import derive_seed, hash_value
from cuvee.measure import measure_texts
from cuvee.records import Floats, Level, Sampling
from cuvee.store import StoredPool
from cuvee.train.causal import CausalWriter, fill_causal_settings, train_causal
from cuvee.train.model import TunedChecker, make_ready

SCORE = "loss"
TAIL = 0.1  # fraction of the held-out rows, those that the untuned model finds least probable
_TIMED = 8  # rows


class GenerationWork(Work):
    """Of a causal model."""

    model: CausalModel

    def __call__(self, task: Task) -> list[Generation]:
        """One generation for each place."""
        writer = self._train(task.rows, task.places[0])
        return [self._write(writer, place, task) for place in task.places]

    def _train(self, rows: Corpus, place: Place) -> CausalWriter:
        # so patient that all steps are done
        steps = self.settings.steps or self.model.steps
        every = max(1, steps // self.model.evaluations)
        settings = replace(self.settings, seed=self.seed_of(place), patience=steps, evaluate_every=every)
        ready = make_ready(rows, settings, encode=lambda texts: load_encoder_once(self.model.encoder).encode(texts))
        return train_causal(replace(ready, validation=self.held_out), keep_last=self.model.checkpoint == "last")

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
            )
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
        found, their_errors = measure_texts(
            texts, real.targets, load_encoder_once(self.model.encoder), seed=self.config.seed
        )
        return values | found, errors | their_errors


class CausalExperiment(Experiment):
    """All chains of a causal language model."""

    model: CausalModel
    score = SCORE
    works = GenerationWork

    @property
    def untuned(self) -> dict[str, float]:  # type: ignore[override]
        """The loss before any training."""
        log_p = self._log_p
        return {SCORE: -float(log_p.mean()), "tail_loss": -float(log_p[self.tail].mean())}

    @cached_property
    def _log_p(self) -> Floats:
        """Mean log probability of each held-out row's tokens under the model before any training."""
        key, level = hash_value([self._key, "untuned"]), Level(dial="start", name="untuned", rank=0)
        found = self.folder.load_pool(level, key)
        if found is None:
            writer = CausalWriter.from_pretrained(fill_causal_settings(self.settings))
            note = json.dumps(row_means(writer, self.held_out).tolist())
            found = StoredPool(level=level, corpus=self.held_out, note=note, key=key)
            self.folder.save_pool(found)
        return np.array(json.loads(found.note))

    @cached_property
    def tail(self) -> NDArray[np.int64]:  # type: ignore[override]
        """Those that the untuned model finds least probable."""
        order = np.argsort(self._log_p, kind="stable")
        return order[: max(2, round(TAIL * len(order)))]

    @property
    def timed(self) -> float:  # type: ignore[override]
        """So much that a step lies between two evaluations."""
        return min(1.0, max(_TIMED / self.model.rows, self.model.evaluations / self.model.steps))


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
