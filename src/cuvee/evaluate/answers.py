"""How well a written text answers: exact match, token F1 and ROUGE-L against one or more references. Pure."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from cuvee.corpus import split_tokens

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


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

    Twice the longest common subsequence of words over the words of both. Words are those of ``split_tokens``: on
    ASCII text the tokens of the rouge-score package without stemming, which drops the letters of other alphabets.
    A text without a word scores 0.
    """
    words = split_tokens(written)
    return max(_subsequence_f1(words, split_tokens(reference)) for reference in references)


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
