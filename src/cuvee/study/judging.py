"""How a study judges what its trials trained, on held-out real rows of any task."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cuvee.config.schema import EvaluateConfig
from cuvee.corpus import Corpus, load_corpus
from cuvee.encoders import Encoder
from cuvee.evaluate import Diversity, Writing, evaluate_model, score_proba
from cuvee.measure import measure_corpus
from cuvee.records import Scores
from cuvee.train import Predictor
from cuvee.train.settings import Trained

DIVERSITY = ("vendi_q1", "distinct_2", "compression_ratio", "self_bleu")
"""What is measured of the texts that a model writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """How trials are judged.

    Attributes:
        score: what they are compared by; None takes the task's first.
        max_tokens: of a completion that is written for evaluation.
        diversity: whether the diversity of what a tuned model writes is measured.
        passages: retrieval: more passages to find the right ones among.
    """

    score: str | None = None
    max_tokens: int = 64
    diversity: bool = False
    passages: tuple[str, ...] = ()

    def judge(self, predictor: Trained, held_out: Corpus, *, encoder: Encoder, seed: int) -> Scores:
        """Scores on ``held_out``.

        Raises:
            ConfigError: the predictor is for another task.
        """
        if held_out.task == "classification" and isinstance(predictor, Predictor):
            return score_proba(predictor.predict_proba(held_out.texts), predictor.labels, held_out.targets)
        writes = held_out.task == "generation"
        return evaluate_model(
            predictor,
            held_out,
            seed=seed,
            intervals=False,  # those of a trial are never shown; its cell's are
            passages=self.passages if held_out.task == "retrieval" and self.passages else None,
            writing=Writing(max_tokens=self.max_tokens) if writes else None,
            diversity=measure_texts(encoder, seed) if writes and self.diversity else None,
            score=self.score,
        )


def make_judging(config: EvaluateConfig) -> Judging:
    """How a config says that trials are judged; its passages are read.

    Raises:
        InputError: the file of passages cannot be read.
    """
    passages = () if config.passages is None else load_passages(config.passages)
    return Judging(score=config.score, max_tokens=config.max_tokens, diversity=config.diversity, passages=passages)


def measure_texts(encoder: Encoder, seed: int) -> Diversity:
    """Measures the diversity of what a model writes."""

    def measure(texts: Sequence[str]) -> dict[str, float]:
        # an empty completion has no vector, and is one way to write like any other
        corpus = Corpus.from_rows([{"text": t if t.strip() else "-", "target": ""} for t in texts])
        found = {}
        for name in DIVERSITY:
            with suppress(ValueError):  # not defined on these texts: pairs of words, where each has one
                found[name] = measure_corpus(corpus, encoder=encoder, metrics=[name], seed=seed).values[name].value
        return found

    return measure


def load_passages(path: str | Path, column: str | None = None) -> tuple[str, ...]:
    """The distinct passages of a file, in their order; ``column`` None takes a column of a usual name."""
    return tuple(dict.fromkeys(load_corpus(path, text=column, labelled=False, task="retrieval").texts))
