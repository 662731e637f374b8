"""Cuvée: how diverse should LLM-generated data be, and how much of it to mix with real data.

Every public name is loaded when it is first used, so that ``import cuvee`` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from cuvee._version import __version__

if TYPE_CHECKING:
    from cuvee.collapse import run_collapse
    from cuvee.corpus import Corpus, LockedTest, Split, load_corpus, split_corpus, write_corpus
    from cuvee.encoders import Encoder, load_encoder
    from cuvee.errors import CuveeError
    from cuvee.evaluate import evaluate_model
    from cuvee.generate.calls import Endpoint, Sampling
    from cuvee.generate.dials import ParaphraseDial, SamplingDial, TopicsDial
    from cuvee.generate.embedded import EmbeddedLLM
    from cuvee.generate.ledger import Ledger
    from cuvee.generate.pools import generate_corpus
    from cuvee.measure import compare_corpora, measure_corpus, measure_vectors, score_examples
    from cuvee.mix import Blend, mix_corpora
    from cuvee.mix.estimator import RowSelector
    from cuvee.recommend import recommend_mixture
    from cuvee.records import (
        Advice,
        CollapseResult,
        Comparison,
        Estimate,
        ExampleScores,
        Finding,
        Measurement,
        Scores,
        Trial,
        TrialFailure,
    )
    from cuvee.registry import trust_modules
    from cuvee.report.study_page import plot_advice, plot_measurements
    from cuvee.study import StudyResult, run_study, train_winner
    from cuvee.train import load_predictor, train_model

__all__ = [
    "Advice", "Blend", "CollapseResult", "Comparison", "Corpus", "CuveeError", "EmbeddedLLM", "Encoder", "Endpoint",
    "Estimate", "ExampleScores", "Finding", "Ledger", "LockedTest", "Measurement", "ParaphraseDial", "RowSelector",
    "Sampling", "SamplingDial", "Scores", "Split", "StudyResult", "TopicsDial", "Trial", "TrialFailure",
    "__version__", "compare_corpora", "evaluate_model", "generate_corpus", "load_corpus", "load_encoder",
    "load_predictor", "measure_corpus", "measure_vectors", "mix_corpora", "plot_advice", "plot_measurements",
    "recommend_mixture", "run_collapse", "run_study", "score_examples", "split_corpus", "train_model",
    "train_winner", "trust_modules", "write_corpus",
]  # fmt: skip

_ROOMS = {
    "collapse": "run_collapse",
    "corpus": "Corpus LockedTest Split load_corpus split_corpus write_corpus",
    "encoders": "Encoder load_encoder",
    "errors": "CuveeError",
    "evaluate": "evaluate_model",
    "generate.calls": "Endpoint",
    "generate.dials": "ParaphraseDial SamplingDial TopicsDial",
    "generate.embedded": "EmbeddedLLM",
    "generate.ledger": "Ledger",
    "generate.pools": "generate_corpus",
    "measure": "compare_corpora measure_corpus measure_vectors score_examples",
    "mix": "Blend mix_corpora",
    "mix.estimator": "RowSelector",
    "recommend": "recommend_mixture",
    "records": "Advice CollapseResult Comparison Estimate ExampleScores Finding Measurement Sampling Scores Trial "
    "TrialFailure",
    "registry": "trust_modules",
    "report.study_page": "plot_advice plot_measurements",
    "study": "StudyResult run_study train_winner",
    "train": "load_predictor train_model",
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """A public name, loaded from its room and kept."""
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names, and the rooms that are loaded."""
    return sorted({*globals(), *__all__})
