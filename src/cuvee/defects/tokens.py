"""The words of a text, and rows that say the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from sys import intern

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import normalise_text

# Han, kana, Hangul, Thai: written without spaces or too short a word to count as one token
_TOKEN = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|[^\W_]+")


def split_tokens(text: str) -> list[str]:
    """Lower-case words without punctuation; each character of an unspaced script is a token of its own."""
    return split_normalised(normalise_text(text))


def split_normalised(text: str) -> list[str]:
    """The tokens of what ``normalise_text`` gave. Equal words are one string, so that many texts take little room."""
    return list(map(intern, text.split() if text.isascii() else _TOKEN.findall(text)))


def duplicate_mask(texts: Sequence[str]) -> NDArray[np.bool_]:
    """True for each text that repeats an earlier one (by ``normalise_text``), shape (n,)."""
    seen: set[str] = set()
    out = np.zeros(len(texts), dtype=bool)
    for row, text in enumerate(texts):
        key = normalise_text(text)
        out[row] = key in seen
        seen.add(key)
    return out
