"""Degenerate text: empty, broken, refused, an error message, cut off, in another language than the real rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from cuvee.defects.habits import Habits
from cuvee.defects.tokens import split_tokens

DegenerateReason = Literal[
    "empty", "broken characters", "chat template", "error message", "refusal", "chatter", "too short", "repetition",
    "prompt echo", "wrong language", "truncated",
]  # fmt: skip

ECHO = 8  # words in a row that are no coincidence
_WHOLE_PROMPT = 4  # words from which on a short prompt is looked for as a whole

_RUN = re.compile(r"(\w)\1{11,}|(\S)\2{23,}")
_TEMPLATE = re.compile(
    r"<\|[^|>\n]{1,40}\|>|\[/?INST\]|<</?SYS>>|</s>\s*$|<(?:start|end)_of_turn>|</?think>"
    r"|^\s*#{2,} ?(?:Instruction|Response|Input|Output)s?\b|^\s*(?:Assistant|System|User) ?:",
    flags=re.IGNORECASE | re.MULTILINE,
)
_REFUSAL = re.compile(
    r"\bas an? (?:ai|artificial intelligence)\b[^.]{0,40}\b(?:model|assistant|system|i)\b"
    r"|^\W*(?:i['’]?m|i am) (?:very |so |really )?sorry\b.{0,30}\b(?:can['’]?t|cannot|can not|unable to|not able to)\b"
    r".{0,20}\b(?:assist|help|fulfil|fulfill|comply|provide|generate|create|write|complete)\b(?! but\b)"
    r"|^\W*i(?: can['’]?t| cannot| can not|(?:['’]m| am) (?:unable|not able) to) "
    r"(?:assist|fulfil|fulfill|comply|provide|generate|help)(?: you)?(?: with)? "
    r"(?:that|this|your request|the request|such|explicit|any content)\b",
    flags=re.IGNORECASE,
)
_CHATTER = re.compile(
    r"^\W*(?:(?:sure|certainly|of course|absolutely|okay|ok)\b[\s!,.:]+)?"
    r"(?:here(?:['’]s| is| are) (?:an?|the|some|your|\d+|two|three|four|five|ten|more|another)\b"
    r"[^.?!]{0,60}\b(?:paraphrase|rephras|rewrit|example|headline|sentence|version|variation|quer|response)\w*)",
    flags=re.IGNORECASE,
)
_BROKEN = re.compile(r"[\ufffd\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f]")
# case matters: people write "error" and "exception" in sentences, programs write "ERROR:" and "ValueError: "
_ERROR = re.compile(
    r"^\W*(?:ERROR|FATAL|EXCEPTION)\s*[:\]-]"
    r"|^\s*(?:(?:API|HTTP|Internal|Request|Server|Runtime|Unexpected|Generation) )?Error(?: code)?(?: \d{3})? ?:"
    r"|\bTraceback \(most recent call last\)"
    r"|^\s*(?:[A-Za-z_]\w*\.)*[A-Z]\w+(?:Error|Exception): "
    r'|^\s*File "[^"\n]+", line \d+'
    r"|\b[Rr]ate[ _-]?[Ll]imit(?:s|ed)? (?:exceeded|reached|error)\b"
    r'|^\s*\{\s*"(?:error|detail)"\s*:'
    r"|\b(?:insufficient_quota|context_length_exceeded|invalid_api_key|rate_limit_exceeded|invalid_request_error)\b"
    r"|^\W*(?:(?:HTTP|[Ee]rror|[Ss]tatus)[ /a-z.\d]{0,12}:? ?)?[45]\d\d:? (?:Too Many Requests|Internal Server Error"
    r"|Bad Gateway|Service Unavailable|Gateway Time-?out|Bad Request|Unauthorized|Forbidden|Not Found)\b"
    r"|^\W*(?:Too Many Requests|Internal Server Error|Bad Gateway|Service Unavailable|Gateway Time-?out"
    r"|Connection (?:refused|reset by peer|timed out)|Request timed out|Read timed out)\W*$"
    r"|^\s*(?:null|NaN|undefined|\[object Object\])\s*$",
    flags=re.MULTILINE,
)
_PATTERNS: tuple[tuple[DegenerateReason, re.Pattern[str]], ...] = (
    ("broken characters", _BROKEN),
    ("chat template", _TEMPLATE),
    ("error message", _ERROR),
    ("refusal", _REFUSAL),
    ("chatter", _CHATTER),
)


def degenerate_reasons(
    texts: Sequence[str],
    *,
    min_letters: int = 3,
    reference: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
) -> list[str | None]:
    """Why each text is no usable example, None where it is; the first reason that applies.

    By themselves: ``empty``, ``broken characters``, ``chat template``, ``error message`` (of a program, in the
    place of a text), ``refusal``, ``chatter``, ``too short`` (fewer than ``min_letters`` letters and digits, and
    a single token), ``repetition``. With ``prompts``: ``prompt echo`` (8 words in a row of a prompt, or the
    whole of a prompt of 4 to 7 words). With ``reference``: ``wrong language`` and ``truncated``, both by what the
    reference itself does (see ``Habits``): a corpus of notes without full stops has no truncated rows.

    Args:
        texts: the rows to judge.
        min_letters: below, a single token is too short.
        reference: real texts of the same kind.
        prompts: the instructions that the LLM was given, without the examples shown in them (a copied example
            is a duplicate, not an echo).
    """
    habits = None if reference is None else Habits.of(reference)
    echoes = _Echoes(prompts or ())
    return [_degenerate_reason(text, min_letters, habits, echoes) for text in texts]


def _degenerate_reason(text: str, min_letters: int, habits: Habits | None, echoes: _Echoes) -> DegenerateReason | None:
    tokens = split_tokens(text)
    if not text.strip() or not tokens:
        return "empty"
    for reason, pattern in _PATTERNS:
        if pattern.search(text):
            return reason
    if len(tokens) < 2 and len(tokens[0]) < min_letters:
        return "too short"
    if _RUN.search(text) or _loops(tokens):
        return "repetition"
    if echoes.are_in(tokens):
        return "prompt echo"
    if habits is None:
        return None
    if habits.is_foreign(text, tokens):
        return "wrong language"
    return "truncated" if habits.is_cut_off(text, tokens) else None


def _loops(tokens: Sequence[str]) -> bool:
    """A word eight times or a phrase of 2 to 8 words four times in a row, a quarter of the text; or few words."""
    if len(tokens) >= 30 and len(set(tokens)) < 0.2 * min(len(tokens), 100):
        return True
    for period in range(1, min(8, len(tokens) // 4) + 1):
        needed = max(7 if period == 1 else 3 * period, len(tokens) // 4 - period)
        run = 0
        for here, before in zip(tokens[period:], tokens, strict=False):
            run = run + 1 if here == before else 0
            if run >= needed:
                return True
    return False


class _Echoes:
    """The word 8-grams of prompts, and short prompts whole."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self._grams: dict[int, set[tuple[str, ...]]] = {}
        for prompt in prompts:
            words = split_tokens(prompt)
            size = min(ECHO, len(words))
            if size >= _WHOLE_PROMPT:
                self._grams.setdefault(size, set()).update(_windows(words, size))

    def are_in(self, tokens: Sequence[str]) -> bool:
        return any(gram in grams for size, grams in self._grams.items() for gram in _windows(tokens, size))


def _windows(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
