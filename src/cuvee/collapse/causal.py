"""The chain of a causal language model: each generation is tuned on completions that the one before wrote."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cuvee.collapse.experiment import Experiment
from cuvee.collapse.generation import SCORE, Floats, GenerationWork, row_means
from cuvee.config.collapse import CausalModel
from cuvee.encoders import load_encoder
from cuvee.fingerprint import hash_value
from cuvee.records import Level, Sampling
from cuvee.store import StoredPool
from cuvee.train.model import make_ready

if TYPE_CHECKING:
    from cuvee.train.causal import CausalWriter

TAIL = 0.1
"""Fraction of the held-out rows, those that the untuned model finds least probable."""
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
        from cuvee.train.causal import CausalWriter, fill_causal_settings

        return CausalWriter.from_pretrained(fill_causal_settings(self.settings))

    def _tail(self) -> NDArray[np.int64]:
        """The rarest held-out rows."""
        order = np.argsort(self._log_p, kind="stable")
        return order[: max(2, round(TAIL * len(order)))]

    def time_one(self) -> tuple[float, int]:
        """Train one step, write and score a few rows, and count on from there."""
        from cuvee.train.causal import train_causal

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
