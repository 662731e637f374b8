"""Words that are typical of some texts among others. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import log

from cuvee.corpus import normalise_text

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
