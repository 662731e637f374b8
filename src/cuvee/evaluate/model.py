"""Evaluating a predictor of any task."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, InputError
from cuvee.evaluate import generation
from cuvee.evaluate.classification import judge_classifier
from cuvee.evaluate.generation import Diversity, Watch, Writing
from cuvee.evaluate.judged import Judged, score_items
from cuvee.evaluate.retrieval import judge_ranker
from cuvee.records import Classifier, Ranker, Scored, Scores, Writer

_NEEDS = {
    "classification": ("labels", "predict_proba"),
    "generation": ("write",),
    "retrieval": ("encode_queries", "encode_passages"),
}


def evaluate_model(
    predictor: Classifier | Writer | Ranker | Scored,
    corpus: Corpus,
    *,
    seed: int = 0,
    intervals: bool = True,
    passages: Sequence[str] | None = None,
    writing: Writing | None = None,
    diversity: Diversity | None = None,
    watch: Watch | None = None,
    score: str | None = None,
) -> Scores:
    """Scores of ``predictor`` on ``corpus``, with 95% intervals.

    Classification: accuracy, macro-F1, log loss, Brier score, calibration error; rows whose label the predictor does
    not know count as wrong. Generation: exact match, token F1, ROUGE-L of what it writes; perplexity and bits a byte
    of the real completions; and, with ``diversity``, the diversity of what it writes beside that of the real
    completions. Retrieval: nDCG@10, MRR@10, recall@1, @10 and @100.

    Args:
        predictor: of the corpus's task.
        corpus: held-out rows.
        seed: of the bootstrap, and of what is written by chance.
        intervals: False leaves them out, for speed.
        passages: retrieval: more passages to find the right ones among.
        writing: generation: how completions are written.
        diversity: generation: measures texts.
        watch: called as writing, reading and embedding go on.
        score: what trials are compared by, one of the task's ``ITEM_SCORES``, or of generation the user's own
            ``module:name``; None takes the first. With ``token_probability`` no completion is written, and the scores
            of written texts are left out.

    Raises:
        ConfigError: the predictor is for another task, or an argument has no use for this task.
        InputError: the corpus has no rows.
        ValueError: single items have no score of that name.
    """
    if diversity is not None and corpus.task != "generation":
        raise ConfigError(f"diversity is measured of what a model writes; task {corpus.task!r} writes nothing")
    decides = score if corpus.task == "generation" else None
    judged = judge_model(predictor, corpus, seed=seed, passages=passages, writing=writing, watch=watch, score=decides)
    if score == "token_probability" and score not in judged.graded:
        raise ConfigError(
            f"score token_probability needs log_likelihood(prompts, completions), which this predictor "
            f"({type(predictor).__name__}) lacks; choose another score, or add it"
        )
    scores = score_items(judged, intervals=intervals, seed=seed, score=None if isinstance(predictor, Scored) else score)
    if diversity is None or not isinstance(predictor, Writer):
        return scores
    found = generation.compare_diversity(
        predictor, corpus, diversity=diversity, writing=writing or Writing(), seed=seed, watch=watch
    )
    return dataclasses.replace(scores, values={**scores.values, **found})


def judge_model(
    predictor: Classifier | Writer | Ranker | Scored,
    corpus: Corpus,
    *,
    seed: int = 0,
    passages: Sequence[str] | None = None,
    writing: Writing | None = None,
    watch: Watch | None = None,
    score: str | None = None,
) -> Judged:
    """The items of ``corpus``, each judged: what ``compare_predictors`` and ``report_labels`` work on.

    Arguments and errors are those of ``evaluate_model``; ``score`` is of generation.
    """
    if len(corpus) == 0:
        raise InputError("there are no rows to evaluate on; give held-out rows, for example a validation part")
    for name, given, task in (
        ("passages", passages, "retrieval"),
        ("writing", writing, "generation"),
        (f"score {score!r}", score, "generation"),
    ):
        if given is not None and corpus.task != task:
            raise ConfigError(f"{name} is for task {task!r}; task {corpus.task!r} has no use for it")
    if isinstance(predictor, Scored):
        return generation.judge_scored(predictor, corpus)
    if corpus.task == "classification" and isinstance(predictor, Classifier):
        return judge_classifier(predictor, corpus)
    if corpus.task == "generation" and isinstance(predictor, Writer):
        how = writing or Writing()
        return generation.judge_writer(predictor, corpus, writing=how, seed=seed, watch=watch, score=score)
    if corpus.task == "retrieval" and isinstance(predictor, Ranker):
        return judge_ranker(predictor, corpus, passages=passages, watch=watch)
    needed = _NEEDS[corpus.task]
    lacking = " and ".join(name for name in needed if not hasattr(predictor, name))
    fits = next((task for task, names in _NEEDS.items() if all(hasattr(predictor, name) for name in names)), None)
    raise ConfigError(
        f"task {corpus.task!r} needs a predictor with {' and '.join(needed)}; "
        f"this one ({type(predictor).__name__}) lacks {lacking}" + (f": it is for task {fits!r}" if fits else "")
    )
