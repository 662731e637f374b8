"""The chain of a classifier: it labels what an LLM writes for the labels that the one before gave, and so on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from scipy.stats import entropy

from cuvee.collapse.experiment import Experiment, Generation, Place, Task, Work, first_rows, load_encoder_once
from cuvee.config.collapse import ClassifierModel, CollapseConfig
from cuvee.config.opening import find_sampling, open_model
from cuvee.corpus import Corpus, load_corpus
from cuvee.errors import InputError
from cuvee.evaluate import SCORES, judge_proba
from cuvee.execute import Stages
from cuvee.fingerprint import derive_rng, derive_seed, hash_value
from cuvee.generate.dials.slots import Part, PartsDial, Slot
from cuvee.generate.filling import AcceptanceRules
from cuvee.generate.ledger import Ledger, tell_spending
from cuvee.generate.pools import GenerationSpec, generate_pools
from cuvee.measure import measure_texts
from cuvee.store import RunFolder
from cuvee.train import Predictor, train_model

SCORE = "error"


class GivenLabels(PartsDial):
    """Rows for labels as often as these were given."""

    name = "collapse"

    def __init__(self, counts: Mapping[str, int]) -> None:
        super().__init__(["written"])
        self._counts = counts

    def slots(self, level: str, labels: Sequence[str], block: int, rows_per_label: int) -> tuple[Slot, ...]:
        """So many of each label."""
        every = super().slots(level, labels, block, rows_per_label)
        return tuple(slot for slot in every if slot.number < self._counts[slot.label])

    def parts(self, level: str, label: str) -> Sequence[Part]:  # noqa: ARG002
        """One."""
        return [((), {})]


class ClassifierWork(Work):
    """Of a classifier, which labels."""

    model: ClassifierModel

    def __call__(self, task: Task) -> list[Generation]:
        """One generation, in the one place that there is."""
        ((place,), labels, encoder) = task.places, task.rows.labels, load_encoder_once(self.model.encoder)
        held, asked = self.held_out, task.prompts
        if len(labels) < 2:  # nothing is left to learn: it gives the one label to everything
            proba, given = np.ones((len(held), 1)), labels * len(asked)
        else:
            settings = replace(self.settings, seed=self.seed_of(place))
            predictor = cast("Predictor", train_model(task.rows, settings=settings, encoder=encoder))
            proba, labels = predictor.predict_proba(held.texts), list(predictor.labels)
            given = predictor.predict(asked.texts)
            self.keep(predictor, place)
        columns = judge_proba(proba, labels, held.targets).columns
        wrong, other = 1 - columns["accuracy"], np.array(given) != np.array(asked.targets)
        values, errors = measure_texts(asked.texts[: len(task.real)], task.real.texts, encoder, seed=self.config.seed)
        for name, rates in ((SCORE, wrong), ("relabelled", other)):
            values[name], errors[name] = float(rates.mean()), float(rates.std() / np.sqrt(len(rates)))
        values["calibration"] = float(SCORES["ece"](columns, np.ones((1, len(held))))[0])
        values["label_entropy"] = float(entropy(list(Counter(given).values()), base=2))
        return [Generation(written=asked.with_columns(target=given), values=values, errors=errors)]


class ClassifierExperiment(Experiment):
    """All chains of a classifier. What it labels is written by an LLM, or drawn from a file of what one wrote.

    Raises:
        InputError: the file has no row of a real label.
    """

    model: ClassifierModel
    score = SCORE
    works = ClassifierWork

    def __init__(self, config: CollapseConfig, folder: RunFolder, stages: Stages | None = None) -> None:
        super().__init__(config, folder, stages)
        self._pool, path, data = None, self.model.pool, self.model.data
        if path is not None:
            self._pool = load_corpus(path, text=data.text, label=data.label, origin="synthetic", task="classification")
            for label in sorted(set(self.real.labels) - set(self._pool.labels)):
                raise InputError(f"{path}: has no row of the label {label!r}, as real rows have; rename its labels")
            self._key = hash_value([self._key, self._pool.fingerprint])

    def prepare(self, task: Task, made: Mapping[Place, Generation]) -> Task:
        """The task with the texts that are to be labelled, in random order, under the labels that were asked for."""
        place, wanted = task.places[0], len(task.prompts)
        before = task.prompts if place.number == 0 else first_rows(made[place.at(place.number - 1)].written, wanted)
        rng = derive_rng(self.config.seed, "collapse", "texts", place.chain, place.number)
        counts = Counter(before.targets)
        if self._pool is None:
            written = self._write(task.real if place.number == 0 else before, counts, place)
        else:
            labels = np.array(self._pool.targets)
            drawn = [rng.permutation(np.flatnonzero(labels == label))[:count] for label, count in counts.items()]
            written = self._pool.take(np.concatenate(drawn))
        mixed = written.take(rng.permutation(len(written)))
        return replace(task, prompts=mixed.with_columns(id=[f"{name}/{place.level.name}" for name in mixed.ids]))

    def _write(self, shown: Corpus, counts: Counter[str], place: Place) -> Corpus:
        """What the LLM writes, shown rows of the generation before."""
        generator = self.model.generator
        assert generator is not None
        if not hasattr(self, "_llm"):
            opened = open_model(generator, self.model.task, where="model.generator.")
            self._llm = self.held.enter_context(opened), self.held.enter_context(Ledger(self.folder.ledger_path))
            self._progress = self.held.enter_context(self.stages.stage("generate", "rows"))
            self._progress.show(tell_spending(self._llm[1]))
        spec = GenerationSpec(
            rows_per_label=max(counts.values()), blocks=(place.number,), sampling=find_sampling(generator),
            describe=self.model.describe, seed=derive_seed(self.config.seed, "collapse", place.level.dial, place.chain),
            rows_per_request=generator.rows_per_request,
            rules=AcceptanceRules(keep_truncated=generator.truncated == "keep"),
        )  # fmt: skip
        (pool,) = generate_pools(shown, spec, GivenLabels(counts), *self._llm, progress=self._progress)
        self._progress.next_part()
        return pool.corpus

    def show(self, written: Corpus) -> tuple[str, ...]:
        """Labels and texts."""
        return tuple(f"{label}: {text}" for label, text in zip(written.targets, written.texts, strict=True))
