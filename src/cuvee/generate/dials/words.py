"""Words that are typical of some texts among others. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import log

from cuvee.corpus import Corpus, normalise_text
from cuvee.errors import ConfigError
from cuvee.fingerprint import derive_rng
from cuvee.generate.strata import ANY

_WORD = re.compile(r"[^\W\d_]{3,}")
FUNCTION_WORDS = frozenset(
    "a about after again all also am an and any are as at be because been before being but by can could did do does "
    "for from get gets had has have he her here him his how i if in into is it its just may me more most my new no not "
    "now of off on one or our out over own says she should so some than that the their them then there these they this "
    "those to too under up us very was way we were what when where which while who why will with would you your".split()
)
"""English words that are typical of nothing. Other languages go without: there they weigh little as they stand
in the texts of every label, or are left out by :func:`common_words` where there is one label."""
STOP_SHARE = 0.3
"""Of the texts of an only label: a word that stands in more of them is typical of nothing."""
LEAST_STOPPED = 6
"""Texts that a word must stand in to be left out so: in a few texts, 30% of them says nothing."""


def find_words(text: str) -> list[str]:
    """Words of three letters and more, in lower case, but no function words."""
    return [word for word in _WORD.findall(normalise_text(text)) if word not in FUNCTION_WORDS]


def weigh_words(texts: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """Label -> word -> how characteristic it is of the label's texts.

    The class-based tf-idf of BERTopic (arXiv 2203.05794), W = tf(w, c) log(1 + A / f(w)), where tf is the share of
    the class's words, f(w) the frequency over all classes and A the mean number of words of a class; a word counts
    once a text. With one label there is nothing to contrast: the weight then rises with the frequency alone.
    """
    counts = {label: Counter(w for t in given for w in set(find_words(t))) for label, given in texts.items()}
    total: Counter[str] = Counter()
    for counted in counts.values():
        total.update(counted)
    mean = sum(total.values()) / max(len(counts), 1)
    return {
        label: {word: n / counted.total() * log(1 + mean / total[word]) for word, n in counted.items()}
        for label, counted in counts.items()
    }


def characteristic_words(
    texts: Mapping[str, Sequence[str]], label: str, count: int, *, exclude: Collection[str] = ()
) -> tuple[str, ...]:
    """The ``count`` words most characteristic of ``label``, or as many as there are; ties in alphabetical order."""
    weights = weigh_words(texts).get(label, {})
    ranked = sorted((word for word in weights if word not in exclude), key=lambda w: (-weights[w], w))
    return tuple(ranked[:count])


def common_words(texts: Sequence[str]) -> frozenset[str]:
    """Words in so many of the texts that they are typical of nothing: more than 30%, and at least six."""
    counted = Counter(word for text in texts for word in set(find_words(text)))
    most = max(LEAST_STOPPED - 1, STOP_SHARE * len(texts))
    return frozenset(word for word, n in counted.items() if n > most)


# --- topics for the dial *topics*: found in the real data, or asked for from the LLM. Pure ---
def topics_from_words(
    texts: Corpus | Mapping[str, Sequence[str]], per_label: int, seed: int
) -> dict[str, tuple[str, ...]]:
    """Label -> words of its real rows that can serve as topics, in the order in which levels should take them.

    Words are weighed by how characteristic they are of their label (class-based tf-idf); where there is one label
    only, by their frequency, without words that stand in 30% of the texts. The first is the weightiest; each
    further one is weighed by the share of its rows that hold none of those taken so far, so that the topics spread over
    the label instead of naming one theme many times. A word of another label's list is taken where it is typical of
    both.

    Args:
        texts: label -> its real training texts, or the real training rows of a classification task.
        per_label: topics a label.
        seed: of the order of words that weigh the same.

    Raises:
        ConfigError: a label has fewer words that could be topics.
        ValueError: ``per_label`` is below 1.
    """
    if per_label < 1:
        raise ValueError(f"per_label {per_label!r}; must be 1 or more")
    by_label = texts_by_label(texts) if isinstance(texts, Corpus) else texts
    weights = weigh_words(by_label)
    if len(by_label) == 1:  # nothing to contrast with: frequent words would be those of any text
        ((label, own),) = by_label.items()
        common = common_words(own)
        weights = {label: {word: weight for word, weight in weights[label].items() if word not in common}}
    found = {}
    for label, own in by_label.items():
        words = _spread_words(label, own, weights[label], per_label, seed)
        if len(words) < per_label:
            raise ConfigError(
                f"dial 'topics': the real rows of label {label!r} hold {len(words)} words that could be topics, "
                f"{per_label} are wanted; give topics by hand, ask the LLM for them, or lower the largest level"
            )
        written = _spellings(own)
        found[label] = tuple(written.get(word, word) for word in words)
    return found


def texts_by_label(train: Corpus) -> dict[str, tuple[str, ...]]:
    """Label -> its texts; all texts under the one label ``any`` where the task has no labels."""
    if train.task != "classification":
        return {ANY: tuple(train.texts)}
    found: dict[str, list[str]] = {label: [] for label in train.labels}
    for text, label in zip(train.texts, train.targets, strict=True):
        found[label].append(text)
    return {label: tuple(own) for label, own in found.items()}


def _spread_words(label: str, texts: Sequence[str], weights: Mapping[str, float], count: int, seed: int) -> list[str]:
    rows: dict[str, set[int]] = {}
    for row, text in enumerate(texts):
        for word in find_words(text):
            rows.setdefault(word, set()).add(row)
    own = set(find_words(label))
    # a word of one row alone is hardly a topic: such words come last
    often = {word: len(found) > 1 for word, found in rows.items()}
    names = sorted(word for word in rows if word not in own and word in weights)
    tie = dict(zip(names, derive_rng(seed, "topic-words", label).permutation(len(names)).tolist(), strict=True))
    taken: list[str] = []
    covered: set[int] = set()
    while len(taken) < min(count, len(names)):
        left = (word for word in names if word not in taken)
        taken.append(max(left, key=lambda w: (often[w], _uncovered(rows[w], covered) * weights[w], weights[w], tie[w])))
        covered |= rows[taken[-1]]
    return taken


def _uncovered(rows: set[int], covered: set[int]) -> float:
    return len(rows - covered) / len(rows)


def _spellings(texts: Sequence[str]) -> dict[str, str]:
    """Word in lower case -> how it is most often written."""
    written: dict[str, Counter[str]] = {}
    for text in texts:
        for word in re.findall(r"[^\W\d_]{3,}", text):
            for plain in find_words(word):
                written.setdefault(plain, Counter())[word] += 1
    return {plain: counted.most_common(1)[0][0] for plain, counted in written.items()}
