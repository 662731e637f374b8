"""The chain of a causal language model: each generation is tuned on completions that the one before wrote.

Every generation starts from the same untuned model, so what is passed on is the data alone, as in the published
experiments (Shumailov et al. 2024; Kazdan et al. 2024, arXiv 2410.16713; Drayson et al. 2025, arXiv 2502.15654).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cuvee.collapse.generation import (
    SCORE,
    Floats,
    Generation,
    GenerationWork,
    Place,
    Task,
    load_encoder_once,
    row_means,
)
from cuvee.collapse.regimes import Diet, list_diets
from cuvee.config.collapse import CausalModel, CollapseConfig, DecodingConfig
from cuvee.corpus import Corpus, load_corpus
from cuvee.encoders import load_encoder
from cuvee.errors import InputError, TrainingError
from cuvee.execute import Lost, Progress, open_executor
from cuvee.fingerprint import derive_rng, derive_seed, hash_value
from cuvee.mix import Dedupe, Degenerate, apply_filters, select_rows
from cuvee.records import Course, Level, Sampling
from cuvee.store import RunFolder, StoredPool
from cuvee.train import TrainSettings, check_fit
from cuvee.train.model import make_ready

TAIL = 0.1
"""Fraction of the held-out rows, those that the untuned model finds least probable."""
SAMPLES = 4
_TIMED = 8  # rows


class CausalExperiment:
    """All chains of a causal language model. What a run folder has of them is not done again.

    Args:
        config: of the experiment, whose model is causal.
        folder: where generations are kept, each in one file that is written when it is finished.

    Raises:
        InputError: fewer rows than the chains need. ConfigError: settings that do not fit the trainer.
    """

    def __init__(self, config: CollapseConfig, folder: RunFolder) -> None:
        assert isinstance(config.model, CausalModel)
        self.config, self.model, self.folder = config, config.model, folder
        data = self.model.data
        self.real, self.held_out = (
            load_corpus(path, text=data.text, label=data.label, context=data.context, task="generation")
            for path in (data.real, data.validation or "")
        )
        self.diets, self._ways = tuple(list_diets(config)), self.model.decodings
        fresh = max(diet.fresh_rows(self.model.rows) for diet in self.diets)
        wanted = self.model.rows + config.generations * fresh
        if wanted > len(self.real):
            raise InputError(f"{data.real}: has {len(self.real)} rows, and a chain needs {wanted}; lower model.rows")
        if len(self.held_out) > self.model.held_out:
            chosen = derive_rng(config.seed, "collapse", "held out").permutation(len(self.held_out))
            self.held_out = self.held_out.take(np.sort(chosen[: self.model.held_out]))
        own = {"loss": self.model.loss, "steps": self.model.steps, **self.model.settings}
        self.settings = TrainSettings(trainer="causal", **own)  # type: ignore[arg-type]
        check_fit(self.settings, "generation")
        self._start: Floats | None = None
        self._key = hash_value([
            config.seed, self.real.fingerprint, self.held_out.fingerprint, asdict(self.settings),
            self.model.model_dump(include={"rows", "max_tokens", "evaluations", "checkpoint", "encoder"}),
        ])  # fmt: skip

    @property
    def trainings(self) -> int:
        """How many models are trained in all: generation 0 once a chain."""
        courses = len(self.diets) * len(self._ways)
        return self.config.chains * (1 + courses * self.config.generations)

    def run(self, progress: Progress) -> tuple[list[Course], dict[str, float]]:
        """Every course, and the measures of the untuned model."""
        log_p, execute = self._untuned(), self.config.execute
        work = GenerationWork(
            self.config, self.settings, self.held_out, tail=self._tail(), models=self.folder.path / "models"
        )
        made: dict[Place, Generation] = {}
        done = 0
        with open_executor(execute.kind, execute.terms(), address=execute.cluster()) as executor:
            for number in range(self.config.generations + 1):
                tasks = list(self.list_tasks(number, made))
                waiting = [task for task in tasks if not self._find(task, made)]
                done += len(tasks) - len(waiting)
                for task, outcome in executor.run_all(work, waiting):
                    if isinstance(outcome, Lost):
                        raise TrainingError(f"generation {number}: {outcome.reason}")
                    for place, key, generation in zip(task.places, task.keys, outcome, strict=True):
                        self._save(place, key, generation)
                        made[place] = generation
                    done += 1
                    progress(done, self.trainings)
        courses = [_join(diet, each, self._chains_of(diet, each, made)) for diet in self.diets for each in self._ways]
        return courses, {SCORE: -float(log_p.mean()), "tail_loss": -float(log_p[self._tail()].mean())}

    def list_tasks(self, number: int, made: Mapping[Place, Generation]) -> Iterator[Task]:
        """The trainings of a generation: of the first, one a chain, which writes in every decoding."""
        for chain in range(self.config.chains):
            real = self._rows_of(chain)
            more = self._repeat(real)
            if number == 0:
                places = tuple(Place(chain=chain, number=0, diet=None, decoding=each) for each in self._ways)
                prompts = more if "curated" in self.config.regimes else real
                yield self._ask(places, real, prompts, "")
                continue
            for diet in self.diets:
                for decoding in self._ways:
                    place = Place(chain=chain, number=number, diet=diet, decoding=decoding)
                    rows = self.compose(place, [made[place.at(earlier)].written for earlier in range(number)])
                    prompts = more if diet.regime == "curated" else real
                    yield self._ask((place,), rows, prompts, rows.fingerprint)

    def _ask(self, places: tuple[Place, ...], rows: Corpus, prompts: Corpus, known: str) -> Task:
        more = [len(prompts)] if len(prompts) > self.model.rows else []
        keys = (
            hash_value([self._key, asdict(p.diet) if p.diet else "", p.suffix, p.number, known, *more]) for p in places
        )
        return Task(places=places, keys=tuple(keys), rows=rows, prompts=prompts)

    def _chains_of(
        self, diet: Diet, decoding: DecodingConfig, made: Mapping[Place, Generation]
    ) -> list[list[Generation]]:
        last = [
            Place(chain=chain, number=self.config.generations, diet=diet, decoding=decoding)
            for chain in range(self.config.chains)
        ]
        return [[made[place.at(number)] for number in range(place.number + 1)] for place in last]

    # --- one generation ---
    def compose(self, place: Place, written: Sequence[Corpus]) -> Corpus:
        """The training rows of a generation after the first."""
        diet, count = place.diet, self.model.rows
        assert diet is not None
        if diet.regime == "curated":
            return self._curate(written[-1], derive_seed(self.config.seed, "collapse", "curated", place.chain))
        real, written = self._rows_of(place.chain), [each.take(np.arange(count)) for each in written]
        if diet.regime == "replace":
            return written[-1]
        if diet.regime == "fresh":
            fresh = diet.fresh_rows(count)
            first = count + (place.number - 1) * fresh
            chosen, rest = self.real.take(self._order(place.chain)[first : first + fresh]), count - fresh
            old = written[-1].take(np.arange(rest))
            return chosen.with_columns(weight=np.full(fresh, diet.weight * count / fresh)).joined(
                old.with_columns(weight=np.full(rest, (1 - diet.weight) * count / rest))
            )
        whole = real.joined(*written)
        if diet.regime == "accumulate":
            return whole
        rng = derive_rng(self.config.seed, "collapse", "subsample", place.chain, place.number)
        return whole.take(np.sort(rng.permutation(len(whole))[:count]))

    def _repeat(self, real: Corpus) -> Corpus:
        """The rows once for each candidate that is written."""
        copies = self.config.curated.candidates
        ids = [*real.ids, *(f"{name}/{copy}" for copy in range(1, copies) for name in real.ids)]
        return real.take(np.tile(np.arange(len(real)), copies)).with_columns(id=ids)

    def _curate(self, written: Corpus, seed: int) -> Corpus:
        """The chosen completions: neither repeated nor broken ones, unless too few others are left."""
        shown = written.with_columns(text=written.targets)
        kept = apply_filters(shown, [Degenerate(), Dedupe()]).rows
        if (short := self.model.rows - len(kept)) >= 0:
            rest = np.setdiff1d(np.arange(len(written)), kept)[:short]
            return written.take(np.sort(np.concatenate([kept, rest])))
        encode, method = load_encoder_once(self.model.encoder).encode, self.config.curated.select
        real = encode(self.real.targets) if method == "lowest_shift" else None
        found = select_rows(
            shown.take(kept), encode(shown.take(kept).texts), rows=self.model.rows, method=method, real=real, seed=seed
        )
        return written.take(kept[found.rows])

    def _order(self, chain: int) -> NDArray[np.int64]:
        return derive_rng(self.config.seed, "collapse", "rows", chain).permutation(len(self.real))

    def _rows_of(self, chain: int) -> Corpus:
        return self.real.take(self._order(chain)[: self.model.rows])

    def _save(self, place: Place, key: str, made: Generation) -> None:
        note = json.dumps({"values": made.values, "errors": made.errors})
        self.folder.save_pool(StoredPool(level=place.level, corpus=made.written, note=note, key=key), place.suffix)

    def _find(self, task: Task, made: dict[Place, Generation]) -> bool:
        """Whether the run folder has all that a training gives, which is then put into ``made``."""
        for place, key in zip(task.places, task.keys, strict=True):
            found = self.folder.load_pool(place.level, key, place.suffix)
            if found is None:
                return False
            told = json.loads(found.note)
            made[place] = Generation(written=found.corpus, values=told["values"], errors=told["errors"])
        return True

    def _untuned(self) -> Floats:
        """Mean log probability of each held-out row's tokens under the model before any training."""
        if self._start is None:
            key, level = hash_value([self._key, "untuned"]), Level(dial="start", name="untuned", rank=0)
            found = self.folder.load_pool(level, key)
            if found is None:
                from cuvee.train.causal import CausalWriter, fill_causal_settings

                writer = CausalWriter.from_pretrained(fill_causal_settings(self.settings))
                note = json.dumps(row_means(writer, self.held_out).tolist())
                found = StoredPool(level=level, corpus=self.held_out, note=note, key=key)
                self.folder.save_pool(found)
            self._start = np.array(json.loads(found.note))
        return self._start

    def _tail(self) -> NDArray[np.int64]:
        """The rarest held-out rows."""
        order = np.argsort(self._untuned(), kind="stable")
        return order[: max(2, round(TAIL * len(order)))]


@dataclass(frozen=True, slots=True, kw_only=True)
class CollapsePlan:
    """What an experiment takes, counted on from a step and a few rows that were timed here.

    Attributes:
        trainings: models that are trained.
        seconds: of all of it, one training after the other.
        model_bytes: of the models that stay on the disk.
    """

    trainings: int
    seconds: float
    model_bytes: int


def plan_causal(experiment: CausalExperiment) -> CollapsePlan:
    """Train one step, write and score a few rows, and count on from there; nothing is kept."""
    from cuvee.train.causal import CausalWriter, fill_causal_settings, train_causal

    model, config, trainings = experiment.model, experiment.config, experiment.trainings
    untuned = CausalWriter.from_pretrained(fill_causal_settings(experiment.settings))
    rows = experiment.real.take(np.arange(min(_TIMED, len(experiment.real))))
    step = make_ready(rows, replace(experiment.settings, steps=1), encode=load_encoder("hashing").encode)

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
    scoring = clock(lambda: row_means(untuned, rows)) * len(experiment.held_out) / len(rows)
    evaluations = min(model.evaluations, model.steps) + 2  # loss and calibration at the end
    more = (config.curated.candidates - 1) / len(experiment.diets) if "curated" in config.regimes else 0
    one = clock(train) * model.steps + writing * (1 + more) + scoring * evaluations
    last = config.chains * (trainings // config.chains - 1) // config.generations
    kept = {"none": 0, "last": last, "all": trainings + config.chains * (len(model.decodings) - 1)}[model.keep_models]
    size = sum(parameter.nbytes for parameter in untuned.model.parameters())
    return CollapsePlan(trainings=trainings, seconds=one * trainings, model_bytes=kept * size)


def _join(diet: Diet, decoding: DecodingConfig, chains: Sequence[Sequence[Generation]]) -> Course:
    """The generations of all chains as one course; a measure that one of them lacks is NaN there."""

    def gather(parts: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, Floats]:
        names = dict.fromkeys(name for chain in parts for each in chain for name in each)
        return {name: np.array([[each.get(name, np.nan) for each in chain] for chain in parts]).T for name in names}

    return Course(
        regime=diet.name,
        decoding=decoding.name,
        values=gather([[each.values for each in chain] for chain in chains]),
        errors=gather([[each.errors for each in chain] for chain in chains]),
        samples=tuple(tuple(each.written.targets[:SAMPLES]) for each in chains[0]),
    )
