"""Cuvée: how diverse should LLM-generated data be, and how much of it to mix with real data."""

from cuvee._version import __version__
from cuvee.corpus import Corpus, LockedTest, Split, load_corpus, split_corpus, write_corpus
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import CuveeError
from cuvee.evaluate import evaluate_model
from cuvee.generate import (
    EmbeddedLLM,
    Endpoint,
    Ledger,
    ParaphraseDial,
    Sampling,
    SamplingDial,
    TopicsDial,
    generate_corpus,
)
from cuvee.measure import compare_corpora, compare_measurements, measure_corpus, measure_vectors, score_examples
from cuvee.mix import Blend, mix_corpora
from cuvee.recommend import recommend_mixture
from cuvee.records import Advice, Comparison, Estimate, ExampleScores, Measurement, Scores, Trial, TrialFailure
from cuvee.registry import trust_modules
from cuvee.study import StudyResult, run_study
from cuvee.train import load_predictor, train_model

__all__ = [
    "Advice",
    "Blend",
    "Comparison",
    "Corpus",
    "CuveeError",
    "EmbeddedLLM",
    "Encoder",
    "Endpoint",
    "Estimate",
    "ExampleScores",
    "Ledger",
    "LockedTest",
    "Measurement",
    "ParaphraseDial",
    "Sampling",
    "SamplingDial",
    "Scores",
    "Split",
    "StudyResult",
    "TopicsDial",
    "Trial",
    "TrialFailure",
    "__version__",
    "compare_corpora",
    "compare_measurements",
    "evaluate_model",
    "generate_corpus",
    "load_corpus",
    "load_encoder",
    "load_predictor",
    "measure_corpus",
    "measure_vectors",
    "mix_corpora",
    "recommend_mixture",
    "run_study",
    "score_examples",
    "split_corpus",
    "train_model",
    "trust_modules",
    "write_corpus",
]
