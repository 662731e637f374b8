"""Blends, cells, draws and what a trial gave."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cuvee.records.measurement import Estimate, Shown, Vectors, value_lines, value_table

Regime = Literal["augment", "replace"]
MixKind = Literal["blend", "real-only", "real-duplicated", "synthetic-only"]
Kind = MixKind | Literal["untuned"]
Scope = Literal["this pool", "the recipe"]
Stage = Literal["generate", "measure", "mix", "train", "evaluate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCounts:
    """The real or the synthetic rows of a blend, counted.

    Attributes:
        rows: repeats counted.
        words: of all rows, as ``cuvee.defects.split_tokens`` counts them (lower-case words; each character of a
            script without spaces is one): of the text, and for generation and retrieval of the target too.
        unique_rows: different ids.
        unique_texts: different texts, after ``cuvee.corpus.normalise_text``, each with its context.
        most_repeats: of one id.
    """

    rows: int
    words: int
    unique_rows: int
    unique_texts: int
    most_repeats: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """What a blend really holds. ``share`` is synthetic rows over all rows, as realised.

    Attributes:
        unique_rows: different ids; a synthetic copy of a real row has its id.
        most_repeats: of one id.
        label_counts: label -> (real rows, synthetic rows); empty for tasks without labels.
        unique_texts: different texts, each with its context; None where it was not counted.
        real, synthetic: each part for itself; None where it was not counted.
    """

    share: float
    real_rows: int
    synthetic_rows: int
    unique_rows: int
    most_repeats: int
    label_counts: Mapping[str, tuple[int, int]]
    unique_texts: int | None = None
    real: PartCounts | None = None
    synthetic: PartCounts | None = None

    def __str__(self) -> str:
        texts = "" if self.unique_texts is None else f" with {self.unique_texts} texts"
        words = "" if self.words is None else f"; {self.words} words"
        return (
            f"{self.rows} rows: {self.real_rows} real, {self.synthetic_rows} synthetic (share {self.share:.3f}); "
            f"{self.unique_rows} distinct{texts}, no row more than {self.most_repeats} times{words}"
        )

    @property
    def rows(self) -> int:
        """All rows, repeats counted."""
        return self.real_rows + self.synthetic_rows

    @property
    def words(self) -> int | None:
        """Words of all rows; None where they were not counted."""
        return None if self.real is None or self.synthetic is None else self.real.words + self.synthetic.words


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One square of the grid. Baselines without a pool have ``dial`` and ``level`` None.

    ``share`` is the share asked for; ``rows_per_label`` counts the real training rows of each label.
    ``real-duplicated`` carries the share whose total rows it matches. ``untuned`` is the model before any training.

    Attributes:
        scope: what its draws vary, and so what it speaks of. *this pool*: random subsamples of all rows at hand; *the
            recipe*: independent generations, or disjoint blocks of a file.
        whole: it takes every row of its pool, so no subsample differs from another; ``share`` is what comes of that.
    """

    kind: Kind
    dial: str | None = None
    level: str | None = None
    share: float = 0.0
    rows_per_label: int
    trainer: str = "probe"
    loss: str = "ce"
    scope: Scope = "the recipe"
    whole: bool = False

    @property
    def amount(self) -> float:
        """Synthetic rows for each real one; infinite at share 1."""
        return self.share / (1.0 - self.share) if self.share < 1 else math.inf

    @property
    def name(self) -> str:
        """A blend in words: ``topics=16 at share 0.75``, ``paraphrase=gpt at 30x (share 0.968)``, or ``all of it``."""
        if self.whole:
            return f"{self.dial}={self.level}, all of it ({self.amount:.3g}x, share {self.share:.3g})"
        if self.scope == "this pool":
            return f"{self.dial}={self.level} at {self.amount:.3g}x (share {self.share:.3g})"
        return f"{self.dial}={self.level} at share {self.share:g}"

    @property
    def key(self) -> str:
        """A readable name, unique within a study."""
        pool = f"{self.dial}={self.level} " if self.dial is not None else ""
        share = "" if self.kind in ("real-only", "synthetic-only", "untuned") else f"share={self.share:g} "
        share += "all " if self.whole else ""
        scope = ", this pool" if self.scope == "this pool" else ""
        return f"{self.kind} {pool}{share}rows={self.rows_per_label} {self.trainer}/{self.loss}{scope}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """The random streams of a trial, each counted from 0.

    In the scope *this pool* ``sampling`` numbers the subsamples, and ``generation`` is 0. ``real`` numbers the choices
    of real rows, of which 0 is the study's own.
    """

    generation: int
    sampling: int
    training: int
    real: int = 0


_SCORE_NAMES = {
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
    "exact_match": "exact match",
    "token_probability": "token probability",
    "ndcg@10": "nDCG@10",
    "mrr@10": "MRR@10",
}


def name_score(score: str) -> str:
    """What a score is called in a sentence: ``nDCG@10``."""
    return _SCORE_NAMES.get(score, score)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Scores(Shown):
    """How a predictor did on ``n`` held-out real items.

    An item is a row (classification), a distinct prompt (generation) or a distinct query (retrieval), in the order of
    its first row.

    Attributes:
        n: items.
        values: under the names of their scores (accuracy, exact_match, ndcg@10, ...).
        correct: shape (n,), bool: the label is right, the completion matches exactly, a right passage stands first.
        graded: shape (n,), from 0 to 1, what each item scores under ``score``; None where that is ``correct`` itself.
        score: what trials are compared by: accuracy, token_f1, ndcg@10, ...
        groups: which items belong together (to a document, an author), shape (n,), codes from 0; None where each stands
            alone.
        written: what a model wrote for each item; a run folder keeps all of it where a judge decides, else ten.
    """

    n: int
    values: Mapping[str, Estimate]
    correct: NDArray[np.bool_] = field(compare=False, repr=False)
    graded: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    score: str = "accuracy"
    groups: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)
    written: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def per_item(self) -> NDArray[np.float64]:
        """What each item scores, shape (n,): what paired comparisons of trials are made of."""
        return self.correct.astype(np.float64) if self.graded is None else self.graded

    def __str__(self) -> str:
        return "\n".join([f"Scores on {self.n} items", *value_lines(self.values)])

    def _repr_html_(self) -> str:
        return value_table(f"Scores on {self.n} items", self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One cell at one draw: trained for ``steps`` optimiser steps and evaluated."""

    cell: Cell
    draw: Draw
    composition: Composition
    steps: int
    part: Literal["validation", "test"]
    scores: Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFailure:
    """A trial that did not finish: counted and shown, never dropped."""

    cell: Cell
    draw: Draw
    stage: Stage
    reason: str


Outcome = Trial | TrialFailure
LONGEST = 300  # letters of a reason that are shown beside a count; the report has all of them


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTrials:
    """Failed trials among all that were run.

    Attributes:
        failed: trials that failed.
        trials: that were run, those among them.
        reason: why most of them failed, as the first of these said it.
        stage: where that was.
        times: how many failed there for this reason, whatever the numbers in it.
    """

    failed: int
    trials: int
    reason: str
    stage: Stage
    times: int

    def __str__(self) -> str:
        count = f"{self.failed} of {self.trials} trial{'' if self.trials == 1 else 's'} failed"
        if self.failed == 1:
            return f"{count}: {self.said} ({self.stage})"
        return f"{count}; most often: {self.said} ({self.stage}, {self.times} times)"

    @property
    def said(self) -> str:
        """The reason as one line that is not too long."""
        line = " ".join(self.reason.split())
        return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def count_failed(failures: Sequence[TrialFailure], *, trials: int) -> FailedTrials | None:
    """Count failures; None where there are none.

    Reasons that differ in their numbers only are one: ``took 1.3 GB`` and ``took 0.9 GB``. Of several that are equally
    frequent it is the first.

    Args:
        failures: of failed trials.
        trials: how many were run, these among them.
    """
    if not failures:
        return None
    kinds = [(each.stage, re.sub(r"\d+", "0", each.reason)) for each in failures]
    kind, times = Counter(kinds).most_common(1)[0]
    first = failures[kinds.index(kind)]
    return FailedTrials(failed=len(failures), trials=trials, reason=first.reason, stage=first.stage, times=times)


# --- what trained models can do: what training makes, and evaluation asks ---
@runtime_checkable
class Classifier(Protocol):
    """A predictor of labels."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels it knows, in the order of its probabilities."""

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability of each label, shape (len(texts), k); rows sum to 1."""


@runtime_checkable
class Writer(Protocol):
    """A predictor of completions."""

    def write(self, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int) -> list[str]:
        """A completion of each prompt, of at most ``max_tokens`` tokens; temperature 0 takes the likeliest token."""


@runtime_checkable
class Reader(Protocol):
    """A predictor that knows how probable a completion is, which not every writer does."""

    def log_likelihood(self, prompts: Sequence[str], completions: Sequence[str]) -> NDArray[np.float64]:
        """Of each completion: the sum of its tokens' log probabilities (nats) and their number, shape (n, 2)."""


@runtime_checkable
class Scored(Protocol):
    """A predictor that says how good it is on each input, and not what it predicts."""

    def score_inputs(self, inputs: Sequence[str]) -> NDArray[np.float64]:
        """A score of each text or prompt from 0 to 1, shape (n,)."""


@runtime_checkable
class Ranker(Protocol):
    """A predictor of passages: a passage's score for a query is the dot product of their vectors."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), d)."""

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), d)."""
