"""What came of training a model again and again on what it wrote itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cuvee.records.measurement import Estimate, Floats, Shown, html_list, html_table, text_table

# What each measure is called, and what it means.
MEASURES = {
    "mean_error": (
        "Error of the mean",
        "squared, a coordinate, times the rows of a generation; 1 is a perfect model's",
    ),
    "variance": ("Variance", "of the fitted law, a coordinate; the real one is 1, and 0 is a single point"),
    "lost_diversity": ("Chance that two words agree", "1 when a single word is left"),
    "vocabulary": ("Vocabulary", "words that are left; of a language model the share of the real rows' words"),
    "tail_mass": ("Probability of the rarest words", "those that have a tenth of the real law's probability"),
    "loss": (
        "Loss on held-out real rows",
        "nats a token (its exponential is the perplexity), mean over rows, of the checkpoint that writes",
    ),
    "error": ("Error on held-out real rows", "share of them with a wrong label"),
    "label_entropy": ("Entropy of labels", "bits, of those that the classifier gave to what was written"),
    "relabelled": ("Changed labels", "share of what was written that got another label than the LLM was asked for"),
    "last_loss": ("Loss of the last checkpoint", "nats a token, on held-out real rows"),
    "best_loss": ("Loss of the best checkpoint", "nats a token, the lowest of each training, on held-out real rows"),
    "train_loss": ("Training loss", "nats a token, on the rows of the generation, last tenth of the steps"),
    "tail_loss": ("Loss on the rarest tenth", "held-out rows that the untuned model finds least probable"),
    "calibration": (
        "Calibration error",
        "of the most probable token at each place, or label, of the held-out real rows",
    ),
    "vendi_q1": ("Semantic diversity", "Vendi score of order 1 of what was written: more is more diverse"),
    "distinct_2": ("Distinct pairs of words", "of all pairs of what was written: more is more diverse"),
    "skeleton_entropy": ("Entropy of skeletons", "bits, of the patterns of frequent words in what was written"),
    "self_repetition": ("Repeated 4-grams", "share that stands in another row too: n-gram concentration"),
    "mean_words": ("Words a row", "of what was written"),
    "mmd": ("Shift from the real rows", "squared MMD of what was written"),
    "empty": ("Empty rows", "share of what was written"),
}


def name_measure(measure: str) -> str:
    """What a measure is called within a sentence."""
    title = MEASURES[measure][0]
    return title[0].lower() + title[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One regime with one decoding, from generation 0, which is trained on real rows, to the last.

    Attributes:
        regime: ``replace``, ``accumulate``, ``accumulate_subsample``, ``curated``, or ``fresh`` with its share.
        decoding: how the model of each generation wrote; empty where there is one way only.
        values: measure -> its values, shape (generations + 1, chains).
        errors: measure -> their standard errors over the rows of a chain, same shape; only where these are known.
        expected: measure -> what theory gives for the mean over chains, shape (generations + 1,).
        samples: texts that the first chain's model wrote, by generation.
    """

    regime: str
    decoding: str = ""
    values: Mapping[str, Floats]
    errors: Mapping[str, Floats] = field(default_factory=dict)
    expected: Mapping[str, Floats] = field(default_factory=dict)
    samples: tuple[tuple[str, ...], ...] = ()

    @property
    def name(self) -> str:
        """Regime and decoding."""
        return f"{self.regime}, {self.decoding}" if self.decoding else self.regime


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyWarning:
    """When the measures of one course left their intervals of generation 0.

    Attributes:
        course: its name.
        first: measure -> the first generation that lies outside; None where none does.
        score: the measure that the others are to warn of.
        unit: what the intervals are over: ``chains``, or the ``rows`` of the one chain that there is.
    """

    course: str
    first: Mapping[str, int | None]
    score: str
    unit: str

    @property
    def earliest(self) -> tuple[str, ...]:
        """The measures that warned first."""
        found = [at for at in self.first.values() if at is not None]
        return tuple(name for name, at in self.first.items() if found and at == min(found))

    @property
    def lead(self) -> int | None:
        """Generations from the first warning to the score's own; None where either is missing."""
        found = [at for name, at in self.first.items() if at is not None and name != self.score]
        own = self.first.get(self.score)
        return None if own is None or not found else own - min(found)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CollapseResult(Shown):
    """A finished experiment: its courses, what warned when, and what to do.

    Attributes:
        name: of the experiment.
        model: ``gaussian``, ``unigram``, ``bigram``, ``causal`` or ``classifier``.
        generations: the last one; there are as many and generation 0.
        chains: independent repetitions, the unit of every interval.
        score: the measure that the experiment is about; it rises as models get worse.
        courses: one a regime and decoding.
        points: course -> measure -> its mean over chains with its interval, by generation.
        warnings: one a course.
        warned: the same in sentences.
        advice: sentences.
        untuned: measure -> its value for the model before any training, where it has one.
        version: of Cuvée.
    """

    name: str
    model: str
    generations: int
    chains: int
    score: str
    courses: tuple[Course, ...]
    points: Mapping[str, Mapping[str, tuple[Estimate, ...]]]
    warnings: tuple[EarlyWarning, ...]
    warned: tuple[str, ...]
    advice: tuple[str, ...]
    untuned: Mapping[str, float] = field(default_factory=dict)
    version: str = ""

    def __str__(self) -> str:
        return "\n".join([f"{self.name}: {self.model}", *self._said, *text_table(self.table)])

    def _repr_html_(self) -> str:
        heads, *rows = self.table
        return html_list(self._said) + html_table(f"{self.name}: {self.model}", heads, rows)

    @property
    def _said(self) -> tuple[str, ...]:
        return (*self.warned, *self.advice)

    @property
    def table(self) -> list[tuple[str, ...]]:
        """Heads, then first and last generation of every measure and course, with the value that theory expects."""
        last = f"generation {self.generations}"
        rows: list[tuple[str, ...]] = [("course", "measure", "generation 0", last, "theory")]
        for course in self.courses:
            for measure, points in self.points[course.name].items():
                expected = course.expected.get(measure)
                theory = "" if expected is None else f"{expected[-1]:.4g}"
                ends = (f"{point.value:.4g}" for point in (points[0], points[-1]))
                rows.append((course.name, MEASURES[measure][0], *ends, theory))
        return rows


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
