"""Cuvée: how diverse should LLM-generated data be, and how much of it to mix with real data.

Every public name is loaded when it is first used, so that ``import cuvee`` costs next to nothing.
"""

from importlib import import_module

from cuvee._version import __version__

# The same names stand in __init__.pyi, for type checkers.
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
    "study.opening": "run_study train_winner",
    "study.outputs": "StudyResult",
    "train": "load_predictor train_model",
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names.split()}
__all__ = sorted(["__version__", *_ROOM_OF])


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
