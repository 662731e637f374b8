"""Scores of a model that writes: what it writes against the references, and how likely it finds the real text."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import regex

from cuvee.corpus import Corpus, split_tokens
from cuvee.errors import ConfigError
from cuvee.evaluate.judged import ITEM_SCORES, Columns, Judged, Score, code_groups, mean_of
from cuvee.fingerprint import derive_seed
from cuvee.inputs import first_line
from cuvee.records import Codes, Estimate, Floats, Reader, Scored, Writer
from cuvee.registry import Kind, resolve_name

Diversity = Callable[[Sequence[str]], Mapping[str, float]]  # measures texts: numbers by their names
OwnScore = Callable[[str, str], float]  # of a real completion and a written one
Watch = Callable[[str, int, int], None]  # called with (what is being done, units done, all units)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_RUN = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CHUNK = 64  # prompts between two words of progress
_MOST_NATS = 700.0  # exp of more is no float


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How completions are written for evaluation.

    Attributes:
        max_tokens: of a completion.
        temperature: 0 takes the most likely token each time.
    """

    max_tokens: int = 64
    temperature: float = 0.0

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens!r}; it must be at least 1")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature is {self.temperature!r}; it must be a finite number of at least 0")


def _perplexity(columns: Columns, weights: Floats) -> Floats:
    """One over the geometric mean probability of a token, over all tokens: long completions count more."""
    nats = -(weights @ columns["log_likelihood"]) / np.maximum(weights @ columns["tokens"], 1.0)
    return np.asarray(np.exp(np.minimum(nats, _MOST_NATS)))


def _bits_per_byte(columns: Columns, weights: Floats) -> Floats:
    """Of the real completions: it compares models of any tokenizer."""
    out: Floats = -(weights @ columns["log_likelihood"]) / np.maximum(weights @ columns["bytes"], 1.0) / math.log(2)
    return out


_SCORES: Mapping[str, Score] = {
    "exact_match": mean_of("exact_match"),
    "token_f1": mean_of("token_f1"),
    "rouge_l": mean_of("rouge_l"),
    "perplexity": _perplexity,
    "bits_per_byte": _bits_per_byte,
}
_OF_TEXTS = ("exact_match", "token_f1", "rouge_l")  # that need no probability


def judge_scored(scored: Scored, corpus: Corpus) -> Judged:
    """The items of ``corpus`` (of generation: its distinct prompts) with the scores that came with the predictor."""
    prompts, rows = list(corpus.texts), [[row] for row in range(len(corpus))]
    named = any(group is not None for group in corpus.table["group"].to_pylist())
    groups = code_groups(corpus.groups if named else None, len(corpus))
    if corpus.task == "generation":
        prompts, rows = distinct_prompts(corpus)
        groups = _group_prompts(corpus, [at[0] for at in rows])
    scores = np.asarray(scored.score_inputs(prompts), dtype=np.float64)
    return Judged(
        keys=tuple(prompts),
        groups=groups,
        correct=scores >= 1.0,
        columns={"score": scores},
        scores={"score": mean_of("score")},
        graded=("score",),
    )


def load_score(name: str) -> OwnScore:
    """The user's own score ``module:name``: of a real completion and a written one, from 0 to 1.

    Raises:
        ConfigError: there is none, its module is not trusted, or it is no function of (target, output).
    """
    return resolve_name(name, {}, Kind(name="score", takes=("target", "output")))


def _grade(name: str, pairs: Sequence[tuple[str, Sequence[str]]]) -> Floats:
    """What the user's own score gives each text with the reference that it is highest with."""
    score, found = load_score(name), list[float]()
    for text, references in pairs:
        try:
            found.append(max(float(score(reference, text)) for reference in references))
        except Exception as exc:  # of the user's code
            raise ConfigError(f"score {name!r} failed: {type(exc).__name__}: {first_line(exc)}") from exc
        if not 0 <= found[-1] <= 1:
            raise ConfigError(f"score {name!r} gave {found[-1]!r} to {text[:60]!r}; it must be from 0 to 1")
    return np.array(found)


def judge_writer(
    writer: Writer, corpus: Corpus, *, writing: Writing, seed: int, watch: Watch | None = None, score: str | None = None
) -> Judged:
    """Let ``writer`` complete each distinct prompt of ``corpus`` once, and judge it against the real completions.

    Rows of the same context and text are alternative references: the best of them counts. Prompts of one context, or
    of one named group, belong together. ``token_probability`` is the geometric mean probability of a token of the real
    completions, 1 over their perplexity: it needs no writing, and moves where the written text does not change yet.
    It and the other scores of probabilities are left out where ``writer`` is no ``Reader``. ``score`` decides: the
    user's own is ``module:name``; with ``token_probability`` nothing is written, and no text is right.
    """
    prompts, rows = distinct_prompts(corpus)
    references = [[corpus.targets[row] for row in at] for at in rows]
    written = [] if score == "token_probability" else write_texts(
        writer, prompts, max_tokens=writing.max_tokens, temperature=writing.temperature, seed=seed, watch=watch
    )  # fmt: skip
    pairs = list(zip(written, references, strict=bool(written)))
    exact = np.array([exact_match(text, known) for text, known in pairs], dtype=np.bool_)
    texts = {
        "exact_match": exact.astype(np.float64),
        "token_f1": np.array([token_f1(text, known) for text, known in pairs]),
        "rouge_l": np.array([rouge_l(text, known) for text, known in pairs]),
    }
    likely = _judge_likelihood(writer, prompts, references, watch) if isinstance(writer, Reader) else {}
    graded = {score: _grade(score, pairs)} if score is not None and ":" in score else {}
    columns: dict[str, Floats] = {**(texts if written else {}), **likely, **graded}
    return Judged(
        keys=tuple("\x00".join([prompt, *texts]) for prompt, texts in zip(prompts, references, strict=True)),
        groups=_group_prompts(corpus, [at[0] for at in rows]),
        correct=exact if written else np.zeros(len(prompts), dtype=np.bool_),
        columns=columns,
        scores={name: made for name, made in _SCORES.items() if name in columns or (likely and name not in _OF_TEXTS)}
        | {name: mean_of(name) for name in graded},
        graded=(*(name for name in ITEM_SCORES["generation"] if name in columns), *graded),
        written=tuple(written),
    )


def _judge_likelihood(
    reader: Reader, prompts: Sequence[str], references: Sequence[Sequence[str]], watch: Watch | None
) -> dict[str, Floats]:
    """The columns that are made of the probabilities of the real completions."""
    spans = [len(texts) for texts in references]
    flat = [text for texts in references for text in texts]
    likely = _read_likelihood(reader, [p for p, k in zip(prompts, spans, strict=True) for _ in range(k)], flat, watch)
    starts = np.cumsum([0, *spans[:-1]])
    log_likelihood, tokens = np.add.reduceat(likely[:, 0], starts), np.add.reduceat(likely[:, 1], starts)
    size = np.array([len(t.encode("utf-8", "surrogatepass")) for t in flat], dtype=float)
    return {
        "token_probability": np.exp(np.minimum(log_likelihood / np.maximum(tokens, 1.0), 0.0)),
        "log_likelihood": log_likelihood,
        "tokens": tokens,
        "bytes": np.add.reduceat(size, starts),
    }


def compare_diversity(
    writer: Writer, corpus: Corpus, *, diversity: Diversity, writing: Writing, seed: int, watch: Watch | None = None
) -> dict[str, Estimate]:
    """Diversity of what ``writer`` writes beside that of the real completions, at equal rows.

    One text for each distinct prompt is drawn at temperature 1, from the model's own distribution (its most likely
    texts would be less diverse), and set beside the first real completion of that prompt: a model whose distribution
    collapses loses diversity here before its other scores move. Numbers are named ``diversity.NAME`` and
    ``diversity.NAME.real``; they have no interval, because a bootstrap with replacement biases diversity.
    """
    prompts, rows = distinct_prompts(corpus)
    drawn = write_texts(
        writer,
        prompts,
        max_tokens=writing.max_tokens,
        temperature=1.0,
        seed=derive_seed(seed, "evaluate", "diversity"),
        watch=watch,
    )
    sides = {"": diversity(drawn), ".real": diversity([corpus.targets[at[0]] for at in rows])}
    names = [name for name in sides[""] if name in sides[".real"]]
    values = {}
    for name in names:
        for side, numbers in sides.items():
            settings = {} if side else {"temperature": 1.0, "max_tokens": writing.max_tokens}
            values[f"diversity.{name}{side}"] = Estimate(value=float(numbers[name]), n=len(prompts), settings=settings)
    return values


def write_texts(
    writer: Writer,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
    watch: Watch | None = None,
) -> list[str]:
    """One completion for each prompt, 64 prompts at a time; each 64 have a random stream of their own."""
    out: list[str] = []
    for start in range(0, len(prompts), _CHUNK):
        part = prompts[start : start + _CHUNK]
        stream = derive_seed(seed, "evaluate", "write", start)
        out += writer.write(part, max_tokens=max_tokens, temperature=temperature, seed=stream)
        if watch is not None:
            watch("write", len(out), len(prompts))
    return out


def _read_likelihood(writer: Reader, prompts: Sequence[str], texts: Sequence[str], watch: Watch | None) -> Floats:
    parts = []
    for start in range(0, len(texts), _CHUNK):
        stop = min(start + _CHUNK, len(texts))
        found = np.asarray(writer.log_likelihood(prompts[start:stop], texts[start:stop]), dtype=np.float64)
        if found.shape != (stop - start, 2) or not np.isfinite(found).all():
            raise ValueError(f"log_likelihood gave shape {found.shape!r} or a number that is not finite")
        parts.append(found)
        if watch is not None:
            watch("read", stop, len(texts))
    return np.concatenate(parts)


def distinct_prompts(corpus: Corpus) -> tuple[list[str], list[list[int]]]:
    """Prompts in the order of their first row, and the rows of each."""
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(corpus.prompts):
        rows.setdefault(prompt, []).append(row)
    return list(rows), list(rows.values())


def _group_prompts(corpus: Corpus, first: Sequence[int]) -> Codes:
    """Prompts of one named group belong together, else those of one context."""
    named = corpus.table["group"].to_pylist()
    names = []
    for row in first:
        context = corpus.contexts[row]
        alone = f"row:{row}" if context is None else f"context:{context}"
        names.append(alone if named[row] is None else f"group:{named[row]}")
    return code_groups(names, len(first))


def normalise_answer(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, single spaces.

    The normalisation of SQuAD's evaluation (Rajpurkar et al. 2016, arXiv 1606.05250), in its order: an article is
    found after punctuation is gone.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def exact_match(written: str, references: Sequence[str]) -> bool:
    """Whether ``written`` is one of the references, after ``normalise_answer``."""
    return normalise_answer(written) in {normalise_answer(reference) for reference in references}


def token_f1(written: str, references: Sequence[str]) -> float:
    """F1 of the bag of words with the reference that it is highest with, after ``normalise_answer`` (SQuAD).

    Where one side has no word, it is 1 if the other has none either, else 0.
    """
    words = normalise_answer(written).split()
    return max(_bag_f1(words, normalise_answer(reference).split()) for reference in references)


def rouge_l(written: str, references: Sequence[str]) -> float:
    """F1 of ROUGE-L (Lin 2004) with the reference that it is highest with.

    Twice the longest common subsequence of words over the words of both. Words are the runs of letters, marks and
    digits in those of ``split_tokens``: on ASCII text the tokens of the rouge-score package without stemming. A text
    without a word scores 0.
    """
    words = _find_runs(written)
    return max(_subsequence_f1(words, _find_runs(reference)) for reference in references)


def _find_runs(text: str) -> list[str]:
    return [run for token in split_tokens(text) for run in _RUN.findall(token)]


def _bag_f1(words: Sequence[str], reference: Sequence[str]) -> float:
    if not words or not reference:
        return float(list(words) == list(reference))
    common = sum((Counter(words) & Counter(reference)).values())
    return 2.0 * common / (len(words) + len(reference))


def _subsequence_f1(words: Sequence[str], reference: Sequence[str]) -> float:
    from rapidfuzz.distance import LCSseq

    if not words or not reference:
        return 0.0
    return 2.0 * LCSseq.similarity(words, reference) / (len(words) + len(reference))
