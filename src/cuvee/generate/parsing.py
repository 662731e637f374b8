"""Kinds of writing: what is written for what, and how an answer becomes a row, or the reason why not. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from cuvee import defects
from cuvee.corpus import Corpus, Task, normalise_text, split_tokens
from cuvee.corpus.forms import join_turns, render_turns, split_turns
from cuvee.errors import ConfigError
from cuvee.fingerprint import hash_texts
from cuvee.generate.calls import Answer
from cuvee.generate.dials.contents import find_words
from cuvee.generate.dials.slots import ANY
from cuvee.generate.replies import End, find_objects, how_ended, strip_thoughts, unwrap

# What the LLM writes: a text for a label, a query for a passage, a question with its answer over a context, an
# instruction with its response, the beginning of a story with its continuation; of chats, a conversation with its last
# reply, that reply alone, or what the user says next with the reply to it.
Kind = Literal["label", "query", "question", "instruction", "story", "conversation", "reply", "turn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How one kind is written.

    ``text`` and ``target`` name the two sides of a row, ``source`` what a row is written about, if anything. A
    ``pair`` has both sides written by the LLM; else it writes the text, and the target is given (of a reply, the
    conversation: the row has them the other way round). ``lines`` says that the text too may have several lines, as
    targets of pairs may.
    """

    kind: Kind
    text: str
    target: str
    source: str | None = None
    pair: bool = False
    lines: bool = False

    @property
    def task(self) -> Task:
        """What rows of this kind are for."""
        return "classification" if self.kind == "label" else "retrieval" if self.kind == "query" else "generation"

    @property
    def is_single(self) -> bool:
        """Whether one request asks for one row, which no draft precedes."""
        return self.pair or self.kind == "reply"

    def compose(self, text: str, target: str, context: str | None) -> tuple[str, str, str | None]:
        """Text, target and context of the row of what was written about ``context``, or to ``target``."""
        if self.kind == "reply":
            return target, text, None
        if self.kind == "turn":
            return join_turns(context or "", ("user", text)), target, None
        return text, target, context


WRITINGS: Mapping[Kind, Writing] = {
    "label": Writing(kind="label", text="text", target="label"),
    "query": Writing(kind="query", text="query", target="passage", source="passage"),
    "question": Writing(kind="question", text="question", target="answer", source="context", pair=True),
    "instruction": Writing(kind="instruction", text="instruction", target="response", pair=True, lines=True),
    "story": Writing(kind="story", text="beginning", target="continuation", pair=True, lines=True),
    "conversation": Writing(kind="conversation", text="conversation", target="reply", pair=True, lines=True),
    "reply": Writing(kind="reply", text="reply", target="conversation", source="conversation", lines=True),
    "turn": Writing(kind="turn", text="user", target="reply", source="conversation", pair=True, lines=True),
}
KINDS: tuple[Kind, ...] = tuple(WRITINGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """What a dial deals rows to, and what it calls a label.

    ``name`` is short and stable, ``known`` the places of the training rows of its kind, ``source`` the passage or
    context that is written about, and ``own`` the places of the rows about it.
    """

    name: str
    known: Sequence[int]
    source: str | None = None
    own: Sequence[int] = ()

    @property
    def rows(self) -> Sequence[int]:
        """The training rows that may be shown as examples: those about other sources, or all where there are none."""
        own = set(self.own)
        return ([row for row in self.known if row not in own] or self.known) if own else self.known


def choose_kind(train: Corpus, kind: Kind | None, sources: Sequence[str] | None = None) -> Kind:
    """The kind asked for, or the one that fits the training rows.

    Raises:
        ConfigError: it is none, or is not for rows of this task.
    """
    if kind is None:
        if train.task == "classification":
            return "label"
        if train.task == "retrieval":
            return "query"
        if sources or any(context is not None for context in train.contexts):
            return "question"
        return "conversation" if 2 * sum(len(split_turns(t)) > 1 for t in train.texts) > len(train) else "instruction"
    fitting = [name for name, writing in WRITINGS.items() if writing.task == train.task]
    if kind not in fitting:
        raise ConfigError(f"kind {kind!r} is not for training rows of task {train.task!r}; valid: {', '.join(fitting)}")
    return kind


def find_strata(train: Corpus, kind: Kind, sources: Sequence[str] | None = None) -> Mapping[str, Stratum]:
    """The strata of a kind by name, sorted by name.

    ``label``: one a label, with its rows. ``query`` and ``question``: one a passage or context, with the rows of all
    others, so that no example gives away what can be asked about it (all rows where there is no other). ``reply`` and
    ``turn``: the same of conversations, without and with their last reply. Else one, with all rows.

    Args:
        train: real training rows.
        kind: of writing.
        sources: passages or contexts to write about; None is the distinct ones of the training rows.

    Raises:
        ConfigError: nothing to write about, a blank source, or sources for a kind that has none.
    """
    writing = WRITINGS[kind]
    if sources is not None and writing.source is None:
        takers = ", ".join(name for name in KINDS if WRITINGS[name].source)
        raise ConfigError(f"sources are given, and kind {kind!r} writes about none; kinds that do: {takers}")
    if kind == "label":
        return {
            label: Stratum(name=label, known=[i for i, target in enumerate(train.targets) if target == label])
            for label in train.labels
        }
    if writing.source is None:
        return {ANY: Stratum(name=ANY, known=range(len(train)))}
    known: Sequence[str | None] = train.targets if kind == "query" else train.contexts
    if kind in ("reply", "turn"):
        ends = [[("assistant", target)] if kind == "turn" else [] for target in train.targets]
        known = [join_turns(prompt, *end) for prompt, end in zip(train.prompts, ends, strict=True)]
    return _source_strata(known, writing.source, _distinct(known if sources is None else sources, writing.source))


def _distinct(sources: Sequence[str | None], called: str) -> list[str]:
    if isinstance(sources, str):
        raise ConfigError(f"sources {sources[:40]!r}; give a list of texts")
    for source in sources:
        if source is not None and not source.strip():
            raise ConfigError(f"a {called} to write about is blank; drop it")
    found = list(dict.fromkeys(source for source in sources if source is not None))
    if not found:
        raise ConfigError(f"there is no {called} to write about; give sources, or training rows with one")
    return found


def _source_strata(known: Sequence[str | None], called: str, sources: Sequence[str]) -> dict[str, Stratum]:
    rows: dict[str, list[int]] = {}
    for i, source in enumerate(known):
        if source is not None:
            rows.setdefault(source, []).append(i)
    usable = sorted(i for found in rows.values() for i in found)
    if not usable:
        raise ConfigError(f"no training row has a {called}; name its column")
    strata = [
        Stratum(name=f"{called} {hash_texts([source])[:16]}", known=usable, source=source, own=rows.get(source, ()))
        for source in sources
    ]
    return {stratum.name: stratum for stratum in sorted(strata, key=lambda s: s.name)}


EMPTY = "empty"
TOO_SHORT = "too short"
TRUNCATED = "truncated"
THINKING = "still thinking"
FILTERED = "withheld by the endpoint's filter"
REFUSED = "refused"
TOOL_CALL = "a tool call"
UNFINISHED = "not finished"
BROKEN = "broken characters"
CHATTER = "chatter"
COPY_OF_PROMPT = "copy of the prompt"
COPY_OF_TRAINING = "copy of a training row"
COPY_OF_SOURCE = "copy of its source"
DUPLICATE = "duplicate"
WRONG_LABEL = "wrong label"
MALFORMED = "malformed"
NOT_NEAREST = "another row is nearer than its source"
NO_SOURCE = "its source has no row"
DRAFT = "a draft"
MISSING = "missing in an answer of several"
FORBIDDEN = "uses a word to avoid"
# Reason of rejection -> what a user can do where answers are rejected for it again and again.
REMEDIES = {
    TRUNCATED: "raise max_tokens",
    THINKING: "raise max_tokens: the model was still thinking when they were used up; or turn thinking off",
    FILTERED: "change the topic or the endpoint: its filter withholds such answers",
    REFUSED: "change the topic or the model: it declines to write such texts",
    TOOL_CALL: "use a model or an endpoint that answers in words",
    UNFINISHED: "check the endpoint: it breaks answers off",
    DUPLICATE: "raise the temperature, give more seed examples, or ask for fewer rows",
    COPY_OF_TRAINING: "raise the temperature",
    COPY_OF_PROMPT: "raise the temperature",
    EMPTY: "check the model and api: chat or completions",
    MISSING: "ask for fewer rows a request (rows_per_request)",
    CHATTER: "use api: completions, or a larger model",
    MALFORMED: "use a larger model, or api: chat with one that answers in JSON",
    defects.UNGROUNDED: "lower the temperature, use a larger model, or lower grounded",
    defects.TOO_LONG: "say in the prompt how long an answer is, or use a larger model",
    WRONG_LABEL: "check the labels of the training rows, or check no labels",
}
_NO_ANSWER: Mapping[End, str] = {"filtered": FILTERED, "refused": REFUSED, "tool": TOOL_CALL, "failed": UNFINISHED}

ECHO_WORDS = 6  # words in a row of a prompt's wording that no answer has by chance
_NUMBERING = re.compile(r"^\s*(?:\(?\d{1,3}[.):]|[-*•–])(?:\s+|$)")
_HEAD = re.compile(r"^[ \t]*\(?\**(\d{1,3})[.):]\**(?:[ \t]+|$)", flags=re.MULTILINE)
_NUMBERED_LINES = re.compile(r"\n\s*(?:\(?\d{1,3}[.):]|[-*•–])\s")
_WRAPPED = re.compile(r"""\A\s*(?:\{|\[\s*[{"])|```""")
_CALL = re.compile(r"\s*(?:<tool_call>|\[TOOL_CALLS\]|<\|python_tag\|>|<function[=>])")
_TURN = re.compile(r"\n+(?=\[(?:system|user|assistant|tool)\] )")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "`": "`", "«": "»"}
_ECHO = re.compile(
    r"^(?:text|example|answer|rewritten|original|paraphrase|draft|edited|headline|question|title)\s*:\s+", re.IGNORECASE
)
_HEADED = re.compile(r"\A\s*\**(?:label|category|class)\**\s*:[^\n]*\n\s*(?=\**text\**\s*:)", re.IGNORECASE)
_DECLINES = r"as an ai\b|i(?:['’]?m| am) sorry,? but\b|i can(?:no|['’])t (?:help|assist|provide|write)\b"
_CHATTER = re.compile(rf"^(?:sure\b|certainly\b|of course\b|here(?:'s| is| are)\b.{{0,80}}:|{_DECLINES}|note:)", re.I)
_REFUSAL = re.compile(rf"^(?:{_DECLINES})", flags=re.IGNORECASE)
# What chat templates put between turns, and the heads that stand for their roles.
_DEBRIS = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|<｜[^｜\n]{1,40}｜>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|</?s>|<(?:bos|eos|pad|unk)>"
    r"|^(?:#+\s*)?\**(?:assistant|user)\**\s*(?::|$)|^#+\s*(?:response|instruction|input|output)\s*:",
    flags=re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A cleaned text; ``reason`` says why it cannot be a row, or is None.

    ``target`` is the other side of a pair, None where the LLM writes the text alone.
    """

    text: str
    reason: str | None
    target: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What is asked of an answer by itself.

    Neither the texts and targets ``shown`` in the prompt may come back, nor stretches of its ``wording``, normalised;
    words to be ``avoided``, in lower case, may not stand in the text; fewer than ``least_words`` words are too short.
    ``keep_truncated`` takes an answer that ran into max_tokens, without its last, broken word. ``lines`` keeps the
    lines and paragraphs of a text; else the text is the first line that says something.
    """

    shown: Collection[str] = ()
    shown_targets: Collection[str] = ()
    avoided: Collection[str] = ()
    wording: Collection[str] = ()
    least_words: int = 2
    keep_truncated: bool = False
    lines: bool = False


def parse_answer(answer: Answer, demands: Demands, *, label: str = "", pair: Writing | None = None) -> Parsed:
    """Clean an answer and look for what makes it unusable by itself.

    A pair that ran into max_tokens is whole if it is JSON that was closed before. Its target may have several
    paragraphs, and any words that the real ones may have: only refusals, remains of chat templates and
    repeated prompts are refused.

    Args:
        answer: what came back.
        demands: what it must be.
        label: of the wanted row; "label: text" loses its label.
        pair: what the sides of the wanted pair are; None where the LLM writes the text alone.
    """
    end, keep, target = how_ended(answer.finish_reason), demands.keep_truncated, None
    cut, plain = end == "cut", strip_thoughts(answer.text)
    if end in _NO_ANSWER or (cut and not plain.strip()):
        return Parsed(text="", reason=_NO_ANSWER.get(end, THINKING))
    if _CALL.match(plain):
        return Parsed(text="", reason=TOOL_CALL)
    if pair is not None and not pair.pair:  # a reply is all of the answer, in any words
        text = _unquote(block(plain.partition(SEPARATOR)[0]))
        text, cut = (text.rpartition(" ")[0].rstrip(), False) if cut and keep else (text, cut)
        return Parsed(text=text, reason=TRUNCATED if cut else _target_objection(text, demands))
    if pair is None:
        wrapped = _is_odd(plain, _WRAPPED, demands.shown)
        inner = unwrap(plain, ("text", label.casefold())) if wrapped else plain
        if inner is None:
            return Parsed(text="", reason=TRUNCATED if cut else MALFORMED)
        text = clean_text(inner, label=label, lines=demands.lines)
        if cut and keep:
            text, cut = text.rpartition(" ")[0], False
    else:
        found = find_pair(plain, pair)
        if found is None:
            return Parsed(text="", reason=_why_no_pair(plain, cut))
        cut = cut and not found.whole
        text, target = _clean_pair(found, pair)
        if cut and keep:
            target, cut = target.rpartition(" ")[0].rstrip(), False
    reason = _objection(text, cut, demands)
    if reason is None and target is not None:
        reason = _target_objection(target, demands)
    if reason is None and demands.avoided and not set(demands.avoided).isdisjoint(find_words(text)):
        reason = FORBIDDEN
    return Parsed(text=text, reason=reason, target=target)


def pick_row(answer: Answer, place: int) -> Answer | None:
    """The row at one place (from 0) of an answer of several, as if it had been answered alone; None if it has fewer.

    Rows are the items of a JSON list or of a numbered list, else lines. What precedes the first number is a row where
    the list goes on (a completion), and else left out. Only the last row of an answer that broke off is cut.
    """
    rows = _split_rows(strip_thoughts(answer.text))
    if place >= len(rows):
        return None
    whole = place < len(rows) - 1 and how_ended(answer.finish_reason) == "cut"
    return replace(answer, text=rows[place], finish_reason="stop" if whole else answer.finish_reason)


def _split_rows(text: str) -> list[str]:
    plain = unwrap(text, ()) or text
    start = plain.find("[")
    if start >= 0 and re.fullmatch(r'\s*(```\w*\s*)?(\{\s*"\w+"\s*:\s*)?', plain[:start]):
        try:
            found, _ = json.JSONDecoder(strict=False).raw_decode(plain, start)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list):
            return [item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in found]
    heads: list[re.Match[str]] = []
    for head in _HEAD.finditer(plain):
        if not heads or int(head[1]) == int(heads[-1][1]) + 1:
            heads.append(head)
    if not heads:
        lines = [line for line in plain.splitlines() if line.strip()]
        return lines[1:] if len(lines) > 1 and (_CHATTER.search(lines[0]) or lines[0].rstrip().endswith(":")) else lines
    ends = [head.start() for head in heads[1:]] + [len(plain)]
    rows = [plain[head.end() : end] for head, end in zip(heads, ends, strict=True)]
    before = plain[: heads[0].start()]
    return [before, *rows] if before.strip() and int(heads[0][1]) > 1 else rows


def _why_no_pair(plain: str, cut: bool) -> str:
    if cut:
        return TRUNCATED
    if not normalise_text(plain):
        return EMPTY
    return CHATTER if _REFUSAL.search(plain) or _DEBRIS.search(plain) else MALFORMED


def _clean_pair(pair: Pair, writing: Writing) -> tuple[str, str]:
    target = block(pair.target)
    if not pair.whole:
        target = _unquote(target)
    if writing.kind == "conversation":
        return render_turns(split_turns(_TURN.sub("\n\n", block(pair.text)))), target
    if writing.lines:
        return _unquote(block(pair.text)), target
    return clean_text(one_line(pair.text), label=writing.text), target


def _target_objection(target: str, demands: Demands) -> str | None:
    if not target.strip(" \n\t.…-_\"'“”"):
        return EMPTY
    if any(_is_odd(target, pattern, demands.shown_targets) for pattern in (_DEBRIS, _REFUSAL)):
        return CHATTER
    if _has_broken_characters(target):
        return BROKEN
    return COPY_OF_PROMPT if _echoes(target, demands.wording) else None


def clean_text(text: str, *, label: str, lines: bool = False) -> str:
    """The first line that is no chatter, without numbering, quotes, markup and echoes of the label.

    With ``lines``, all lines from there on, with the paragraphs that they make.
    """
    text = _HEADED.sub("", text)
    found = [line for line in text.splitlines() if line.strip()]
    first = found[0].strip() if found else ""
    leading = len(found) > 1 and (_CHATTER.search(first) or (first.endswith(":") and not lines))
    if leading and not _DEBRIS.search(first):  # an answer in another role than the asked one is of no use
        text = text.split(found[0], 1)[1]
        found = found[1:]
    left = block(text) if lines else found[0].strip() if found else ""
    names = "|".join(re.escape(name) for name in {label, label.replace("_", " ")})
    label_echo = re.compile(rf"^[\[(]?(?:{names})[\])]?\s*:\s+", flags=re.IGNORECASE)
    before = None
    while left != before:
        before = left
        left = left if lines and _NUMBERED_LINES.search(left) else _NUMBERING.sub("", left)
        left = _ECHO.sub("", label_echo.sub("", left))
        left = _unquote(left.replace("**", "").strip())
    return block(left) if lines else " ".join(left.split())


def _unquote(line: str) -> str:
    inner = line[1:-1]
    closing = _QUOTES.get(line[:1])
    if len(line) > 1 and line[-1] == closing and line[0] not in inner and closing not in inner:
        return inner.strip()
    return line


def _objection(text: str, cut: bool, demands: Demands) -> str | None:
    normal, words = normalise_text(text), len(split_tokens(text))
    if not words:
        return EMPTY
    if cut:
        return TRUNCATED
    if _CHATTER.search(text) or _is_odd(text, _DEBRIS, demands.shown):
        return CHATTER
    if _has_broken_characters(text):
        return BROKEN
    if words < demands.least_words:
        return TOO_SHORT
    if normal in {normalise_text(t) for t in demands.shown} or _echoes(text, demands.wording):
        return COPY_OF_PROMPT
    return None


def _is_odd(text: str, pattern: re.Pattern[str], shown: Collection[str]) -> bool:
    """Whether a text matches a pattern that none of the shown real texts matches."""
    return pattern.search(text) is not None and not any(pattern.search(real) for real in shown)


def _has_broken_characters(text: str) -> bool:
    return "\ufffd" in text or any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in text)


def _echoes(text: str, wording: Collection[str]) -> bool:
    """Whether a text begins in the prompt's own words, or holds a whole stretch of them."""
    if not wording:
        return False
    words = split_tokens(text)
    head, whole = " ".join(words[:ECHO_WORDS]), f" {' '.join(words)} "
    return len(words) >= ECHO_WORDS and any(f" {head} " in f" {run} " or f" {run} " in whole for run in wording)


# --- both sides of a row in one answer: as JSON, or under labelled heads. Pure ---
# The line after each pair of a completion prompt: unlike a blank line or a heading, no answer holds it.
SEPARATOR = "====="

# What small models call the sides too.
_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "question": ("q",),
    "answer": ("a",),
    "instruction": ("prompt", "task"),
    "response": ("output", "answer"),
    "beginning": ("start", "opening"),
    "continuation": ("story", "ending"),
    "conversation": ("chat", "dialogue"),
    "reply": ("response", "answer", "assistant"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both sides as they were answered. ``whole`` says that the answer's form shows that nothing is cut off."""

    text: str
    target: str
    whole: bool


def pair_schema(writing: Writing) -> str:
    """The JSON schema of an answer that is a pair."""
    sides = (writing.text, writing.target)
    schema: dict[str, object] = {
        "title": writing.kind,
        "type": "object",
        "properties": {side: {"type": "string"} for side in sides},
        "required": list(sides),
        "additionalProperties": False,
    }
    return json.dumps(schema, separators=(",", ":"))


def find_pair(answer: str, writing: Writing) -> Pair | None:
    """The first pair in an answer: a JSON object, else labelled heads; None if it holds none.

    A completion goes on where its prompt ends, so what stands before the target's head is the text.
    """
    for found in find_objects(answer):
        one, two = found.get(writing.text), found.get(writing.target)
        if isinstance(one, str) and isinstance(two, str):
            return Pair(text=one, target=two, whole=True)
    return _find_heads(answer, writing)


def _find_heads(text: str, writing: Writing) -> Pair | None:
    head, answer_head, end = _heads(writing)
    split = answer_head.search(text)
    if split is None:
        return None
    before, after = text[: split.start()], text[split.end() :]
    named = list(head.finditer(before))
    if named:
        before = before[named[0].end() :]
    stop = end.search(after)
    return Pair(text=block(before), target=block(after[: stop.start()] if stop else after), whole=False)


@lru_cache(maxsize=8)
def _heads(writing: Writing) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Patterns of the text's head, the target's head, and what ends a pair."""
    closing = [name for name in (writing.source, writing.text) if name is not None]
    return (
        _head([writing.text, *_OTHER_NAMES.get(writing.text, ())]),
        _head([writing.target, *_OTHER_NAMES.get(writing.target, ())]),
        re.compile(rf"^\s*={{{len(SEPARATOR)},}}\s*$|{_head(closing).pattern}", flags=re.IGNORECASE | re.MULTILINE),
    )


def _head(names: list[str]) -> re.Pattern[str]:
    """One of the names at the start of a line with a colon, perhaps numbered or marked up."""
    wanted = "|".join(names)
    return re.compile(
        rf"^[ \t]*(?:\d{{1,3}}[.)][ \t]*|[-*#>]+[ \t]*)?\**(?:{wanted})(?:[ \t]*\d{{1,3}})?\**[ \t]*:\**[ \t]*",
        flags=re.IGNORECASE | re.MULTILINE,
    )


# --- texts as prompts and rows have them ---
_GAPS = re.compile(r"\n{3,}")


def readable(name: str) -> str:
    """A name with spaces for underscores."""
    return " ".join(name.replace("_", " ").split())


def one_line(text: str) -> str:
    """A text without line breaks."""
    return " ".join(text.split())


def block(text: str) -> str:
    """A text with its paragraphs, without the space around them."""
    return _GAPS.sub("\n\n", "\n".join(line.rstrip() for line in text.strip().splitlines()))
