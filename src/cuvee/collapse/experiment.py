"""The chains of a model that is trained again and again on what it wrote: its generations, kept and joined.

Every generation starts from the same untuned model, so what is passed on is the data alone, as in the published
experiments (Shumailov et al. 2024; Kazdan et al. 2024, arXiv 2410.16713; Drayson et al. 2025, arXiv 2502.15654).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from cuvee.config.collapse import CollapseConfig, DecodingConfig, Diet, TrainedModel
from cuvee.corpus import Corpus, load_corpus
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import InputError, TrainingError
from cuvee.execute import Lost, Stages, open_executor
from cuvee.fingerprint import derive_rng, derive_seed, hash_value
from cuvee.mix import Agreement, Dedupe, Degenerate, Filter, Selection, Selector, apply_filters, fill_rows
from cuvee.records import CollapsePlan, Course, Floats, Level
from cuvee.store import RunFolder, StoredPool
from cuvee.train import Trained, TrainSettings, check_fit

SAMPLES = 4
_KEYS = {"rows", "max_tokens", "evaluations", "checkpoint", "encoder", "describe", "generator"}


# --- one generation, wherever the executor puts it ---------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One generation: what its model wrote, and what was measured."""

    written: Corpus
    values: Mapping[str, float]
    errors: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in the experiment a generation stands."""

    chain: int
    number: int
    diet: Diet | None
    decoding: DecodingConfig

    @property
    def level(self) -> Level:
        """By which the run folder knows it."""
        name = "start" if self.diet is None else self.diet.name
        return Level(dial=name, name=f"generation {self.number}", rank=self.number)

    @property
    def suffix(self) -> str:
        """What else names its file."""
        return f", {self.decoding.name}, chain {self.chain}"

    def at(self, number: int) -> Place:
        """An earlier generation of the course; all share generation 0."""
        return replace(self, number=number, diet=self.diet if number else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One training, and where what it gives belongs: a place for each decoding that the model writes in.

    Attributes:
        places: which differ in their decodings alone.
        keys: of the places, each a hash of what determines the generation.
        real: the real rows of the chain.
        rows: what the model is trained on.
        prompts: the real rows, which it continues, all of them again for each further candidate; or texts to label.
    """

    places: tuple[Place, ...]
    keys: tuple[str, ...]
    real: Corpus
    rows: Corpus
    prompts: Corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What trains, lets write and measures; an executor carries it to where it is done.

    Attributes:
        config: of the experiment.
        model: its model.
        settings: of every training.
        held_out: real rows.
        tail: the places of the rarest of these, of a language model.
        models: folder of those that are kept.
    """

    config: CollapseConfig
    model: TrainedModel
    settings: TrainSettings
    held_out: Corpus
    tail: NDArray[np.int64]
    models: Path

    def __call__(self, task: Task) -> list[Generation]:
        """One generation for each place."""
        raise NotImplementedError

    def seed_of(self, place: Place) -> int:
        """The seed of the training, which all courses of a chain share."""
        return derive_seed(self.config.seed, "collapse", "training", place.chain, place.number)

    def keep(self, trained: Trained, place: Place) -> None:
        """Save a model where it stays on the disk."""
        last = self.model.keep_models == "last" and place.number == self.config.generations
        if last or self.model.keep_models == "all":
            trained.save(self.models / f"{place.level.key}{place.suffix}")


@lru_cache(maxsize=1)
def load_encoder_once(name: str) -> Encoder:
    """Once in each process."""
    return load_encoder(name)


# --- all of them ------------------------------------------------------------------------------------
class Experiment:
    """All chains of a model that is trained. What a run folder has of them is not done again.

    Args:
        config: of the experiment, whose model is trained.
        folder: where generations are kept, each in one file that is written when it is finished.
        stages: of the run, told how it goes on.

    Raises:
        InputError: fewer rows than the chains need. ConfigError: settings that do not fit the trainer.
    """

    score: str
    works: Callable[..., Work]  # trains, lets write and measures
    timed = 1.0  # the part of a training that a plan times
    untuned: Mapping[str, float] = MappingProxyType({})  # the measures of the model before any training
    tail = np.array([], dtype=np.int64)  # the places of the rarest held-out rows, of a language model

    def __init__(self, config: CollapseConfig, folder: RunFolder, stages: Stages | None = None) -> None:
        assert isinstance(config.model, TrainedModel)
        self.config, self.model, self.folder, self.stages = config, config.model, folder, stages or Stages()
        self.held = ExitStack()  # what is open while it runs
        data, task = self.model.data, self.model.task
        self.real, self.held_out = (
            load_corpus(path, text=data.text, label=data.label, context=data.context, task=task)
            for path in (data.real, data.validation or "")
        )
        self.diets, self._ways = tuple(config.list_diets()), self.model.decodings
        self._courses = [(diet, decoding) for diet in self.diets for decoding in self._ways]
        fresh = max(diet.fresh_rows(self.model.rows) for diet in self.diets)
        wanted = self.model.rows + config.generations * fresh
        if wanted > len(self.real):
            raise InputError(f"{data.real}: has {len(self.real)} rows, and a chain needs {wanted}; lower model.rows")
        if len(self.held_out) > self.model.held_out:
            chosen = derive_rng(config.seed, "collapse", "held out").permutation(len(self.held_out))
            self.held_out = self.held_out.take(np.sort(chosen[: self.model.held_out]))
        own = {"loss": self.model.loss, "steps": self.model.steps, **self.model.settings}
        self.settings = TrainSettings(trainer=self.model.trainer, **own)  # type: ignore[arg-type]
        check_fit(self.settings, task)
        agreement = config.curated.agreement
        self._checked = [] if agreement is None or task == "classification" else ["checked"]
        self._key = hash_value([
            config.seed, self.real.fingerprint, self.held_out.fingerprint, asdict(self.settings),
            self.model.model_dump(include=_KEYS),
        ])  # fmt: skip

    @property
    def trainings(self) -> int:
        """How many models are trained in all: generation 0 once a chain."""
        return self.config.chains * (1 + len(self._courses) * self.config.generations)

    def plan(self) -> CollapsePlan:
        """What the experiment takes, counted on from a part of its first training, whose model is kept."""
        task, part, steps = next(self.list_tasks(0, {})), self.timed, self.settings.steps

        def few(rows: Corpus) -> Corpus:
            return rows.take(np.arange(max(2, math.ceil(part * len(rows)))))

        work = replace(
            self.work(), model=self.model.model_copy(update={"keep_models": "all"}), held_out=few(self.held_out),
            tail=np.arange(2), settings=replace(self.settings, steps=steps and math.ceil(part * steps)),
        )  # fmt: skip
        parts = {name: few(getattr(task, name)) for name in ("real", "rows", "prompts")}
        start = time.perf_counter()
        work(replace(task, places=task.places[:1], keys=task.keys[:1], **parts))
        seconds = (time.perf_counter() - start) / part
        size = sum(file.stat().st_size for file in work.models.rglob("*") if file.is_file())
        chains, every = self.config.chains, self.trainings + self.config.chains * (len(self._ways) - 1)
        count = {"none": 0, "last": chains * len(self._courses), "all": every}
        kept = count[self.model.keep_models]
        return CollapsePlan(trainings=self.trainings, seconds=seconds * self.trainings, model_bytes=kept * size)

    def work(self) -> Work:
        """What an executor puts somewhere."""
        return self.works(
            config=self.config, model=self.model, settings=self.settings, held_out=self.held_out, tail=self.tail,
            models=self.folder.path / "models",
        )  # fmt: skip

    def prepare(self, task: Task, made: Mapping[Place, Generation]) -> Task:  # noqa: ARG002
        """The task with all that its work takes; called only where the run folder has no such generation."""
        return task

    def run(self) -> list[Course]:
        """Every course."""
        work, execute = self.work(), self.config.execute
        made, done = dict[Place, Generation](), 0
        with (
            self.held,
            self.stages.stage("collapse", "generations") as progress,
            open_executor(execute.kind, execute.terms(), address=execute.cluster()) as executor,
        ):
            for number in range(self.config.generations + 1):
                tasks = list(self.list_tasks(number, made))
                waiting = [self.prepare(task, made) for task in tasks if not self._find(task, made)]
                done += len(tasks) - len(waiting)
                for task, outcome in executor.run_all(work, waiting):
                    if isinstance(outcome, Lost):
                        raise TrainingError(f"generation {number}: {outcome.reason}")
                    for place, key, generation in zip(task.places, task.keys, outcome, strict=True):
                        self._save(place, key, generation)
                        made[place] = generation
                    done += 1
                    progress(done, self.trainings)
        return [self._join(diet, decoding, made) for diet, decoding in self._courses]

    def list_tasks(self, number: int, made: Mapping[Place, Generation]) -> Iterator[Task]:
        """The trainings of a generation: of the first, one a chain, which writes in every decoding."""
        for chain in range(self.config.chains):
            real = self._rows_of(chain)
            more = self._repeat(real)
            if number == 0:
                places = tuple(Place(chain=chain, number=0, diet=None, decoding=each) for each in self._ways)
                prompts = more if "curated" in self.config.regimes else real
                yield self._ask(places, real, real, prompts, "")
                continue
            for diet, decoding in self._courses:
                place = Place(chain=chain, number=number, diet=diet, decoding=decoding)
                rows = self.compose(place, [made[place.at(earlier)].written for earlier in range(number)])
                prompts = more if diet.regime == "curated" else real
                yield self._ask((place,), real, rows, prompts, rows.fingerprint)

    def _ask(self, places: tuple[Place, ...], real: Corpus, rows: Corpus, prompts: Corpus, known: str) -> Task:
        more = [len(prompts), *self._checked] if len(prompts) > self.model.rows else []
        keys = (
            hash_value([self._key, asdict(p.diet) if p.diet else "", p.suffix, p.number, known, *more]) for p in places
        )
        return Task(places=places, keys=tuple(keys), real=real, rows=rows, prompts=prompts)

    def _join(self, diet: Diet, decoding: DecodingConfig, made: Mapping[Place, Generation]) -> Course:
        """The generations of all chains as one course; a measure that one of them lacks is NaN there."""
        chains = list[list[Generation]]()
        for chain in range(self.config.chains):
            place = Place(chain=chain, number=0, diet=diet, decoding=decoding)
            chains.append([made[place.at(number)] for number in range(self.config.generations + 1)])

        def gather(parts: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, Floats]:
            names = dict.fromkeys(name for chain in parts for each in chain for name in each)
            return {name: np.array([[each.get(name, np.nan) for each in chain] for chain in parts]).T for name in names}

        return Course(
            regime=diet.name,
            decoding=decoding.name if len(self._ways) > 1 else "",
            values=gather([[each.values for each in chain] for chain in chains]),
            errors=gather([[each.errors for each in chain] for chain in chains]),
            samples=tuple(self.show(first_rows(each.written, SAMPLES)) for each in chains[0]),
        )

    def show(self, written: Corpus) -> tuple[str, ...]:
        """A few rows for a reader."""
        return tuple(written.targets)

    # --- one generation ---
    def compose(self, place: Place, written: Sequence[Corpus]) -> Corpus:
        """The training rows of a generation after the first."""
        diet, count = place.diet, self.model.rows
        assert diet is not None
        if diet.regime == "curated":
            return self._curate(written[-1], place)
        real, written = self._rows_of(place.chain), [first_rows(each, count) for each in written]
        if diet.regime == "replace":
            return written[-1]
        if diet.regime == "fresh":
            fresh = diet.fresh_rows(count)
            first = count + (place.number - 1) * fresh
            chosen = self.real.take(self._order(place.chain)[first : first + fresh])
            old = first_rows(written[-1], count - fresh)
            return chosen.with_columns(weight=np.full(fresh, diet.weight * count / fresh)).joined(
                old.with_columns(weight=np.full(len(old), (1 - diet.weight) * count / len(old)))
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

    def _curate(self, written: Corpus, place: Place) -> Corpus:
        """The chosen rows: neither repeated, broken nor improbable ones, unless too few others are left."""
        config, seed = self.config.curated, derive_seed(self.config.seed, "collapse", "curated", place.chain)
        encode, real = load_encoder_once(self.model.encoder).encode, self._rows_of(place.chain)
        labelled = self.model.task == "classification"
        shown = written if labelled else written.with_columns(text=written.targets)
        filters: list[Filter] = [Degenerate(), Dedupe()]
        if labelled and config.agreement is not None:
            filters.append(Agreement(train=real, top=config.agreement, seed=self.config.seed))
        kept = apply_filters(shown, filters, encode=encode).rows
        if not labelled and config.agreement is not None:  # a checker wrote how probable they are
            likely = np.argsort(-written.weights[kept], kind="stable")
            kept = np.sort(kept[likely[: round(config.agreement * len(kept))]])
        target = (self.real.texts if labelled else self.real.targets) if config.select == "lowest_shift" else None
        vectors, count = None if target is None else encode(target), min(self.model.rows, len(written))

        def choose(passed: Corpus) -> Selection:
            return Selector(passed, encode(passed.texts), count, seed=seed).best(config.select, vectors)

        return first_rows(written.take(fill_rows(shown, kept, count, choose)), count)

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


def first_rows(rows: Corpus, count: int) -> Corpus:
    """So many rows, or all, each of weight 1."""
    taken = rows.take(np.arange(min(count, len(rows))))
    return taken.with_columns(weight=np.ones(len(taken)))
