"""The chain of a causal language model: each generation is tuned on completions that the one before wrote.

Every generation starts from the same untuned model, so what is passed on is the data alone, as in the published
experiments (Shumailov et al. 2024; Kazdan et al. 2024, arXiv 2410.16713; Drayson et al. 2025, arXiv 2502.15654).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cuvee.collapse.regimes import Diet, list_diets
from cuvee.config.collapse import CausalModel, CollapseConfig, DecodingConfig
from cuvee.corpus import Corpus, load_corpus
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import InputError
from cuvee.execute import Progress
from cuvee.fingerprint import derive_rng, derive_seed, hash_value
from cuvee.measure import METRICS, Subject
from cuvee.records import Course, Level, Sampling
from cuvee.store import RunFolder, StoredPool
from cuvee.train import TrainSettings, check_fit
from cuvee.train.model import make_ready

if TYPE_CHECKING:
    from cuvee.train.causal import CausalWriter

MEASURED = ("vendi_q1", "distinct_2", "self_repetition", "mean_words", "mmd")
TAIL = 0.1
"""Fraction of the held-out rows, those that the untuned model finds least probable."""
SCORE = "loss"
SAMPLES = 4
_Z = 1.96
_TIMED = 8  # rows
Floats = NDArray[np.float64]


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
        self.diets = tuple(list_diets(config))
        fresh = max(diet.fresh_rows(self.model.rows) for diet in self.diets)
        wanted = self.model.rows + config.generations * fresh
        if wanted > len(self.real):
            raise InputError(f"{data.real}: has {len(self.real)} rows, and a chain needs {wanted}; lower model.rows")
        if len(self.held_out) > self.model.held_out:
            chosen = derive_rng(config.seed, "collapse", "held out").permutation(len(self.held_out))
            self.held_out = self.held_out.take(np.sort(chosen[: self.model.held_out]))
        self.settings = TrainSettings(
            trainer="causal",
            loss=self.model.loss,
            steps=self.model.steps,
            **self.model.settings,  # type: ignore[arg-type]
        )
        check_fit(self.settings, "generation")
        self._encoder: Encoder | None = None
        self._start: NDArray[np.float64] | None = None
        self._key = hash_value([
            config.seed, self.real.fingerprint, self.held_out.fingerprint, asdict(self.settings),
            self.model.model_dump(include={"rows", "max_tokens", "evaluations", "checkpoint", "encoder"}),
        ])  # fmt: skip

    @property
    def trainings(self) -> int:
        """How many models are trained in all: generation 0 once a chain."""
        courses = len(self.diets) * len(self.model.decodings)
        return self.config.chains * (1 + courses * self.config.generations)

    def run(self, progress: Progress) -> tuple[list[Course], dict[str, float]]:
        """Every course, and the measures of the untuned model."""
        found: dict[tuple[Diet, DecodingConfig], list[list[Generation]]] = {}
        done = 0
        for chain in range(self.config.chains):
            starts = self._start_chain(chain)
            done += 1
            progress(done, self.trainings)
            for diet in self.diets:
                for decoding, start in starts.items():
                    course = [start]
                    for number in range(1, self.config.generations + 1):
                        place = Place(chain=chain, number=number, diet=diet, decoding=decoding)
                        course.append(self._continue(place, [each.written for each in course]))
                        done += 1
                        progress(done, self.trainings)
                    found.setdefault((diet, decoding), []).append(course)
        courses = [_join(diet, decoding, chains) for (diet, decoding), chains in found.items()]
        log_p = self._untuned()
        return courses, {SCORE: -float(log_p.mean()), "tail_loss": -float(log_p[self._tail()].mean())}

    # --- one generation ---
    def _start_chain(self, chain: int) -> dict[DecodingConfig, Generation]:
        """Generation 0, trained once; it writes in every decoding."""
        places = [Place(chain=chain, number=0, diet=None, decoding=each) for each in self.model.decodings]
        keys = [self._key_of(place, "") for place in places]
        known = [self._read(place, key) for place, key in zip(places, keys, strict=True)]
        if None in known:
            writer = self._train(self._rows_of(chain), places[0])
            known = [self._finish(writer, place, key) for place, key in zip(places, keys, strict=True)]
        return {p.decoding: each for p, each in zip(places, known, strict=True) if each is not None}

    def _continue(self, place: Place, written: Sequence[Corpus]) -> Generation:
        """The generation that follows those that wrote so far."""
        rows = self.compose(place, written)
        key = self._key_of(place, rows.fingerprint)
        known = self._read(place, key)
        return known or self._finish(self._train(rows, place), place, key)

    def compose(self, place: Place, written: Sequence[Corpus]) -> Corpus:
        """The training rows of a generation after the first."""
        diet, count = place.diet, self.model.rows
        assert diet is not None
        real = self._rows_of(place.chain)
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

    def _order(self, chain: int) -> NDArray[np.int64]:
        return derive_rng(self.config.seed, "collapse", "rows", chain).permutation(len(self.real))

    def _rows_of(self, chain: int) -> Corpus:
        return self.real.take(self._order(chain)[: self.model.rows])

    def _train(self, rows: Corpus, place: Place) -> CausalWriter:
        from cuvee.train.causal import train_causal

        seed = derive_seed(self.config.seed, "collapse", "training", place.chain, place.number)
        # so patient that all steps are done
        every = max(1, self.model.steps // self.model.evaluations)
        settings = replace(self.settings, seed=seed, patience=self.model.steps, evaluate_every=every)
        ready = make_ready(rows, settings, encode=self._encode)
        return train_causal(
            ready.corpus, ready.loss, ready.settings, encoder=None, validation=self.held_out, progress=None,
            folder=None, keep_last=self.model.checkpoint == "last",
        )  # fmt: skip

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self._encoder is None:
            self._encoder = load_encoder(self.model.encoder)
        return self._encoder.encode(texts)

    def _finish(self, writer: CausalWriter, place: Place, key: str) -> Generation:
        """Let a trained model write, measure it, and keep all of it in one file."""
        real, decoding = self._rows_of(place.chain), place.decoding
        sampling = Sampling(
            temperature=decoding.temperature, top_p=decoding.top_p, top_k=decoding.top_k,
            max_tokens=self.model.max_tokens,
        )  # fmt: skip
        seed = derive_seed(self.config.seed, "collapse", "writing", place.chain, place.number)
        texts = writer.continue_prompts(real.prompts, sampling, seed=seed, beams=decoding.beams)
        written = real.with_columns(
            target=texts,
            origin=["synthetic"] * len(texts),
            id=[f"{name}/{place.level.name}" for name in real.ids],
        )
        values, errors = self._measure(writer, texts, real)
        made = Generation(written=written, values=values, errors=errors)
        kept = self.model.keep_models
        if kept == "all" or (kept == "last" and place.number == self.config.generations):
            writer.save(self.folder.path / "models" / f"{place.level.key}{place.suffix}")
        note = json.dumps({"values": values, "errors": errors})
        self.folder.save_pool(StoredPool(level=place.level, corpus=written, note=note, key=key), place.suffix)
        return made

    def _read(self, place: Place, key: str) -> Generation | None:
        found = self.folder.load_pool(place.level, key, place.suffix)
        if found is None:
            return None
        told = json.loads(found.note)
        return Generation(written=found.corpus, values=told["values"], errors=told["errors"])

    def _key_of(self, place: Place, rows: str) -> str:
        return hash_value([self._key, asdict(place.diet) if place.diet else "", place.suffix, place.number, rows])

    # --- measuring ---
    def _measure(
        self, writer: CausalWriter, texts: Sequence[str], real: Corpus
    ) -> tuple[dict[str, float], dict[str, float]]:
        course, log_p = writer.course, _row_means(writer, self.held_out)
        assert course is not None
        tenth = max(1, len(course.losses) // 10)
        tail = log_p[self._tail()]
        values = {
            SCORE: -float(log_p.mean()),
            "last_loss": -course.scores[-1],
            "best_loss": -max(course.scores),
            "train_loss": float(np.mean(course.losses[-tenth:])),
            "tail_loss": -float(tail.mean()),
        }
        errors = {SCORE: _error(log_p), "tail_loss": _error(tail)}
        seen, known = _words(texts), _words(real.targets)
        values["vocabulary"] = len(seen & known) / max(1, len(known))
        told = [text for text in texts if text.strip()]
        values["empty"] = 1 - len(told) / len(texts)
        if len(told) < 2:
            return values, errors
        shown = Corpus.from_rows([{"text": text, "target": ""} for text in told], task="generation")
        against = real.with_columns(text=real.targets)
        self._encode([])
        subject = Subject(corpus=shown, against=against, encoder=self._encoder, seed=self.config.seed)
        for name in MEASURED:
            estimate = METRICS[name].compute(subject)
            if estimate is None:  # not defined, as of texts that are too short
                continue
            values[name] = estimate.value
            if estimate.low is not None and estimate.high is not None:
                errors[name] = (estimate.high - estimate.low) / (2 * _Z)
        return values, errors

    def _untuned(self) -> Floats:
        """Mean log probability of each held-out row's tokens under the model before any training."""
        if self._start is None:
            key, level = hash_value([self._key, "untuned"]), Level(dial="start", name="untuned", rank=0)
            found = self.folder.load_pool(level, key)
            if found is None:
                from cuvee.train.causal import CausalWriter, fill_causal_settings

                writer = CausalWriter.from_pretrained(fill_causal_settings(self.settings))
                note = json.dumps(_row_means(writer, self.held_out).tolist())
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
        seconds: of all of it.
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
    scoring = clock(lambda: _row_means(untuned, rows)) * len(experiment.held_out) / len(rows)
    evaluations = min(model.evaluations, model.steps) + 1
    one = clock(train) * model.steps + writing + scoring * evaluations
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


def _row_means(writer: CausalWriter, rows: Corpus) -> Floats:
    """Mean log probability of each completion's tokens."""
    sums = writer.log_likelihood(rows.prompts, rows.targets)
    means: Floats = sums[:, 0] / sums[:, 1]
    return means


def _error(values: Floats) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _words(texts: Sequence[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"\w+", text.casefold())}
