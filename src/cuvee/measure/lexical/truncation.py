"""Cut texts to a number of words, so that corpora are compared at matched length."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right

from cuvee.defects import split_tokens

_ASCII_TOKEN = re.compile(r"[A-Za-z0-9]+")


def truncate_words(text: str, words: int) -> str:
    """The text up to the end of its first ``words`` tokens, as ``split_tokens`` counts them.

    Characters and punctuation between the kept tokens stay as they are. A text of at most ``words`` tokens comes
    back whole, closing punctuation included. A single character that reads as two words (a fraction sign, 1/2) is
    never cut: it goes where both fit, or stays where nothing else would.

    Args:
        text: any text.
        words: tokens to keep, at least 1.

    Raises:
        ValueError: ``words`` below 1.
    """
    if words < 1:
        raise ValueError(f"words is {words!r}; give a whole number of at least 1")
    if text.isascii():
        return _truncate_ascii(text, words)
    if len(split_tokens(text)) <= words:
        return text
    # tokens are those of the normalised text, whose characters do not map one to one on the original ones; but
    # a longer prefix never has fewer tokens, so the places where their number rises can be searched for
    prefixes = range(len(text) + 1)
    longest = bisect_right(prefixes, words, key=lambda end: len(split_tokens(text[:end]))) - 1
    kept = split_tokens(text[:longest])
    if not kept:
        longest += 1
        kept = split_tokens(text[:longest])
    shortest = bisect_left(prefixes[: longest + 1], len(kept), key=lambda end: len(split_tokens(text[:end])))
    return text[: _end_of_tokens(text, kept, shortest, longest)]


def _truncate_ascii(text: str, words: int) -> str:
    end = len(text)
    for count, match in enumerate(_ASCII_TOKEN.finditer(text), start=1):
        if count == words:
            end = match.end()
        elif count > words:
            return text[:end]
    return text


def _end_of_tokens(text: str, tokens: list[str], shortest: int, longest: int) -> int:
    """The first end from ``shortest`` on at which the prefix has ``tokens``; ``longest`` has them."""
    return next(end for end in range(shortest, longest + 1) if split_tokens(text[:end]) == tokens)
