"""The words of a text."""

from __future__ import annotations

import re
from sys import intern

from cuvee.corpus import normalise_text

# Han, kana, Hangul, Thai: written without spaces or too short a word to count as one token
_TOKEN = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|[^\W_]+")


def split_tokens(text: str) -> list[str]:
    """Lower-case words without punctuation; each character of an unspaced script is a token of its own."""
    return split_normalised(normalise_text(text))


def split_normalised(text: str) -> list[str]:
    """The tokens of what ``normalise_text`` gave. Equal words are one string, so that many texts take little room."""
    return list(map(intern, text.split() if text.isascii() else _TOKEN.findall(text)))
