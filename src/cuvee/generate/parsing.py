"""From the LLM's answer to a row, or to the reason why not. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from cuvee.corpus import normalise_text
from cuvee.generate.calls import Answer
from cuvee.generate.dials.words import find_words

EMPTY = "empty"
TOO_SHORT = "too short"
TRUNCATED = "truncated"
BROKEN = "broken characters"
CHATTER = "chatter"
COPY_OF_PROMPT = "copy of the prompt"
COPY_OF_TRAINING = "copy of a training row"
COPY_OF_SOURCE = "copy of its source"
DUPLICATE = "duplicate"
NOT_NEAREST = "another row is nearer than its source"
NO_SOURCE = "its source has no row"
DRAFT = "a draft"
FORBIDDEN = "uses a word to avoid"

_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", flags=re.DOTALL)
_NUMBERING = re.compile(r"^\s*(?:\(?\d{1,3}[.):]|[-*•–])(?:\s+|$)")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "`": "`", "«": "»"}
_ECHO = re.compile(
    r"^(?:text|example|answer|rewritten|original|paraphrase|draft|edited|headline|question|title)\s*:\s+", re.IGNORECASE
)
_CHATTER = re.compile(
    r"^(?:sure\b|certainly\b|of course\b|here(?:'s| is| are)\b.{0,80}:|as an ai\b|i'?m sorry,? but\b"
    r"|i can(?:no|')t (?:help|assist|provide|write)\b|note:)|<\|\w+\|>|\[/?INST\]",
    flags=re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A cleaned text, made of ``raw``; ``reason`` says why it cannot be a row, or is None."""

    raw: str
    text: str
    reason: str | None


def parse_answer(
    answer: Answer, *, label: str, shown: Collection[str], avoided: Collection[str] = (), least_words: int = 2,
    keep_truncated: bool = False,
) -> Parsed:  # fmt: skip
    """Clean an answer and look for what makes it unusable by itself.

    Args:
        answer: what came back.
        label: of the wanted row; "label: text" loses its label.
        shown: texts in the prompt, which may not come back.
        avoided: words that the answer may not hold, in lower case.
        least_words: fewer words are too short.
        keep_truncated: take an answer that ran into max_tokens, without its last, broken word.
    """
    text = clean_text(answer.text, label=label)
    if answer.finish_reason == "length" and keep_truncated:
        text, answer = text.rpartition(" ")[0], replace(answer, finish_reason="stop")
    reason = _objection(text, answer, shown, least_words)
    if reason is None and avoided and not set(avoided).isdisjoint(find_words(text)):
        reason = FORBIDDEN
    return Parsed(raw=answer.text, text=text, reason=reason)


def clean_text(text: str, *, label: str) -> str:
    """The first line that is no chatter, without numbering, quotes, markup and echoes of the label."""
    lines = [line.strip() for line in _THOUGHT.sub("", text).splitlines() if line.strip()]
    if len(lines) > 1 and (_CHATTER.search(lines[0]) or lines[0].endswith(":")):
        lines = lines[1:]
    line = lines[0] if lines else ""
    names = "|".join(re.escape(name) for name in {label, label.replace("_", " ")})
    label_echo = re.compile(rf"^[\[(]?(?:{names})[\])]?\s*:\s+", flags=re.IGNORECASE)
    before = None
    while line != before:
        before = line
        line = _NUMBERING.sub("", line)
        line = _ECHO.sub("", label_echo.sub("", line))
        line = _unquote(line.replace("**", "").strip())
    return " ".join(line.split())


def _unquote(line: str) -> str:
    inner = line[1:-1]
    closing = _QUOTES.get(line[:1])
    if len(line) > 1 and line[-1] == closing and line[0] not in inner and closing not in inner:
        return inner.strip()
    return line


def _objection(text: str, answer: Answer, shown: Collection[str], least_words: int) -> str | None:
    normal = normalise_text(text)
    if not normal:
        return EMPTY
    if answer.finish_reason == "length":
        return TRUNCATED
    if _CHATTER.search(text):
        return CHATTER
    if "\ufffd" in text or any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in text):
        return BROKEN
    if len(normal.split()) < least_words:
        return TOO_SHORT
    if normal in {normalise_text(t) for t in shown}:
        return COPY_OF_PROMPT
    return None
