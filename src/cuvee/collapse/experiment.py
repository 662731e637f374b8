"""The chains of a model that is trained again and again on what it wrote: its generations, kept and joined.

Every generation starts from the same untuned model, so what is passed on is the data alone, as in the published
experiments (Shumailov et al. 2024; Kazdan et al. 2024, arXiv 2410.16713; Drayson et al. 2025, arXiv 2502.15654).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.collapse.generation import Floats, Generation, Place, Task, load_encoder_once
from cuvee.config.collapse import CollapseConfig, DecodingConfig, Diet, TrainedModel
from cuvee.corpus import Corpus, load_corpus
from cuvee.errors import InputError, TrainingError
from cuvee.execute import Lost, Progress, open_executor
from cuvee.fingerprint import derive_rng, derive_seed, hash_value
from cuvee.mix import Agreement, Dedupe, Degenerate, Filter, Selector, apply_filters
from cuvee.records import Course
from cuvee.store import RunFolder, StoredPool
from cuvee.train import TrainSettings, check_fit

SAMPLES = 4
_KEYS = {"rows", "max_tokens", "evaluations", "checkpoint", "encoder", "describe", "generator"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CollapsePlan:
    """What an experiment takes, counted on from what was timed here.

    Attributes:
        trainings: models that are trained.
        seconds: of all of it, one training after the other, without what an LLM takes to write.
        model_bytes: of the models that stay on the disk.
    """

    trainings: int
    seconds: float
    model_bytes: int


class Experiment:
    """All chains of a model that is trained. What a run folder has of them is not done again.

    Args:
        config: of the experiment, whose model is trained.
        folder: where generations are kept, each in one file that is written when it is finished.

    Raises:
        InputError: fewer rows than the chains need. ConfigError: settings that do not fit the trainer.
    """

    score: str

    def __init__(self, config: CollapseConfig, folder: RunFolder) -> None:
        assert isinstance(config.model, TrainedModel)
        self.config, self.model, self.folder = config, config.model, folder
        data, task = self.model.data, self.model.task
        self.real, self.held_out = (
            load_corpus(path, text=data.text, label=data.label, context=data.context, task=task)
            for path in (data.real, data.validation or "")
        )
        self.diets, self._ways = tuple(config.list_diets()), self.model.decodings
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
        courses = len(self.diets) * len(self._ways)
        return self.config.chains * (1 + courses * self.config.generations)

    def plan(self) -> CollapsePlan:
        """What the experiment takes; nothing is kept."""
        seconds, size = self.time_one()
        chains, ways, kept = self.config.chains, len(self._ways), self.model.keep_models
        models = {"none": 0, "last": chains * len(self.diets) * ways, "all": self.trainings + chains * (ways - 1)}[kept]
        return CollapsePlan(trainings=self.trainings, seconds=seconds * self.trainings, model_bytes=models * size)

    def time_one(self) -> tuple[float, int]:
        """Seconds of a training and what goes with it, and the bytes of its model."""
        raise NotImplementedError

    def work(self) -> Callable[[Task], list[Generation]]:
        """What trains, lets write and measures, for an executor."""
        raise NotImplementedError

    def prepare(self, task: Task, made: Mapping[Place, Generation]) -> Task:  # noqa: ARG002
        """The task with all that its work takes; called only where the run folder has no such generation."""
        return task

    def untuned(self) -> dict[str, float]:
        """The measures of the model before any training, where it has them."""
        return {}

    def run(self, progress: Progress) -> tuple[list[Course], dict[str, float]]:
        """Every course, and the measures of the untuned model."""
        untuned, work, execute = self.untuned(), self.work(), self.config.execute
        made: dict[Place, Generation] = {}
        done = 0
        with open_executor(execute.kind, execute.terms(), address=execute.cluster()) as executor:
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
        return [self._join(diet, each, made) for diet in self.diets for each in self._ways], untuned

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
            for diet in self.diets:
                for decoding in self._ways:
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
        last = [
            Place(chain=chain, number=self.config.generations, diet=diet, decoding=decoding)
            for chain in range(self.config.chains)
        ]
        chains = [[made[place.at(number)] for number in range(place.number + 1)] for place in last]

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
        count = min(self.model.rows, len(written))
        if (short := count - len(kept)) >= 0:
            rest = np.setdiff1d(np.arange(len(written)), kept)[:short]
            kept = np.sort(np.concatenate([kept, rest]))
        else:
            target = (self.real.texts if labelled else self.real.targets) if config.select == "lowest_shift" else None
            selector = Selector(shown.take(kept), encode(shown.take(kept).texts), count, seed=seed)
            found = selector.best(config.select, None if target is None else encode(target))
            kept = kept[found.rows]
        return first_rows(written.take(kept), count)

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
