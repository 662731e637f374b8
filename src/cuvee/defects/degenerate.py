"""Degenerate text: empty, broken, refused, an error message, cut off, in another language than the real rows."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import import_module
from typing import Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus, split_tokens

DegenerateReason = Literal[
    "empty", "broken characters", "chat template", "error message", "refusal", "chatter", "too short", "repetition",
    "prompt echo", "markup", "placeholder", "wrong language", "truncated",
]  # fmt: skip

OPENINGS = 5  # rows that open alike before that is a habit of the pool, and 1% of them
_OPENING_WORDS = range(3, 13)
_SEPARATOR = re.compile(r":|\s[-–—]\s")
_FEWEST_REAL = 20  # real rows that can show that people do not open so
ECHO = 8  # words in a row that are no coincidence
_WHOLE_PROMPT = 4  # words from which on a short prompt is looked for as a whole

_RUN = re.compile(r"(\w)\1{11,}|(\S)\2{23,}|(\w{2,4})\3{19,}")
_MENTIONS = re.compile(r"(?:@\w+\s+){2,}")
_TEMPLATE = re.compile(
    r"<\|[^|>\n]{1,40}\|>|\[/?INST\]|<</?SYS>>|</s>\s*$|<(?:start|end)_of_turn>|</?think>"
    r"|^\s*#{2,} ?(?:Instruction|Response|Input|Output)s?\b|^\s*(?:Assistant|System|User) ?:"
    r"|^\W*(?:system\W+)?(?:cutting knowledge date|knowledge cutoff(?: date)?|today date|reasoning effort)\s*:"
    r"|^\W*you are (?:chatgpt\b|an? (?:\w+ ){0,3}(?:assistant|language model|chatbot)\b)"
    r"|^\s*(?:human|user|q) ?:.*\n\s*(?:ai|bot|model|assistant|a) ?:",
    flags=re.IGNORECASE | re.MULTILINE,
)
_REFUSAL = re.compile(
    r"\bas an? (?:ai|artificial intelligence)\b[^.]{0,40}\b(?:model|assistant|system|i)\b"
    r"|^\W*(?:i['’]?m|i am) (?:very |so |really )?sorry\b.{0,30}\b(?:can['’]?t|cannot|can not|unable to|not able to)\b"
    r".{0,20}\b(?:assist|help|fulfil|fulfill|comply|provide|generate|create|write|complete)\b(?! but\b)"
    r"|^\W*i(?: can['’]?t| cannot| can not|(?:['’]m| am) (?:unable|not able) to) "
    r"(?:assist|fulfil|fulfill|comply|provide|generate|help)(?: you)?(?: with)? "
    r"(?:that|this|your request|the request|such|explicit|any content)\b"
    # an apology or none, then a writer who cannot write
    r"|^\W*(?:(?:i(?:['’]m| am) )?(?:so |very )?sorry|my apologies|i apologi[sz]e|unfortunately|regrettably)?\W*"
    r"(?:but )?i(?: can['’]?t| can ?not| won['’]?t(?: be able to)?| must decline to| decline to"
    r"|(?:['’]m| am) (?:unable|not able) to) "
    r"(?:assist|fulfil|fulfill|comply|provide|generate|create|write|produce|answer|discuss)\b"
    r"[^.?!]{0,20}\b(?:(?:content|texts|material|examples|(?:this|that|your) (?:request|question|topic|task|prompt))\b"
    r"|(?:this|that|it) for you\b)"
    r"|\b(?:against|violates?) my (?:guidelines|programming|policies)\b"
    r"|\bappropriate for me to (?:write|generate|create)",
    flags=re.IGNORECASE,
)
_CHATTER = re.compile(
    r"^\W*(?:(?:sure|certainly|of course|absolutely|okay|ok)\b[\s!,.:]+)?"
    r"(?:here(?:['’]s| is| are) (?:an?|the|some|several|new|your|\d+|two|three|four|five|ten|more|another)\b(?:"
    r"[^.?!]{0,60}\b(?:paraphrase|rephras|rewrit|example|headline|sentence|version|variation|quer|response)\w*"
    r"|[^.?!\n]{0,60}\b(?:text|tweet|post|review|comment|message|caption|sample)s?\b[^.?!\n]{0,60}:))"
    # nothing but an announcement, its colon last; or an offer to the one who asked; or thoughts about that one
    r"|^\W*(?:(?:sure|certainly|of course|absolutely|okay|ok)\b\W+)?"
    r"(?:here|below|(?:the )?following)\b[^\n]{0,120}:\s*$"
    r"|^\W*(?:sure|certainly|of course|absolutely)\W+i(?: have|['’]ve) "
    r"(?:written|created|generated|prepared|rewritten)\b"
    r"|\blet me know if you(?:['’]d| would)? (?:like|need|want)(?: me to)? [^.?!]{0,30}"
    r"\b(?:more|further|another|additional|changes|variations?|adjustments?)\b[^.?!]{0,20}[.!]?\s*$"
    r"|\bi hope (?:these|this|the) (?:examples?|texts?|paraphrases?|versions?|questions) (?:help|meet|are)"
    r"|^[^.?!]{0,60}\bthe user (?:is asking|wants|asks|asked|has asked|requests|requested|needs)\b",
    flags=re.IGNORECASE,
)
# what no text holds, and UTF-8 that was read as Windows-1252 or Latin-1: two to four signs in the place of one
_BROKEN = re.compile(
    r"[\ufffd\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f]"
    r"|[\u00c2-\u00c5][\x80-\x9f\u00a1-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ](?!\s)"
    r"|â(?:€[\x80-\xbf™œ“”˜¦¢–]|[\x80-\x84][\x80-\xbf])|ð[\x9fŸ]"
)
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
    r"|^\s*(?:null|NULL|NaN|nan|N/A|undefined|\[object Object\])\s*$"
    r"|^\s*<(?:!DOCTYPE )?html\b",
    flags=re.MULTILINE,
)
_PATTERNS: tuple[tuple[DegenerateReason, re.Pattern[str]], ...] = (
    ("broken characters", _BROKEN),
    ("chat template", _TEMPLATE),
    ("error message", _ERROR),
    ("refusal", _REFUSAL),
    ("chatter", _CHATTER),
)

# of the shell of a text: faults where so many real texts, or more, have none of it; people write the later ones too
_FEW, _MANY = 20, 200
_TRAITS: tuple[tuple[DegenerateReason, int, re.Pattern[str]], ...] = (
    ("placeholder", _FEW, re.compile(r"\{\{? ?[A-Za-z][\w ]{1,30}\}?\}|<[A-Za-z]+(?:[ _][a-z]+)+>")),
    ("placeholder", _FEW, re.compile(r"^\W*(?:todo|tbd|lorem ipsum|same as above)\b", flags=re.IGNORECASE)),
    ("placeholder", _FEW, re.compile(r"^\W*[A-Za-z]+ #?\d{1,3}\s*:?\s*$|^\W*\[[A-Za-z][^\]\n]{2,30}\]\W*$")),
    ("markup", _FEW, re.compile(r"</[A-Za-z][A-Za-z0-9-]*>|"
                                r"<(?:a|b|body|br|div|em|h[1-6]|hr|i|img|li|ol|p|span|strong|td|tr|ul)"
                                r"\b[^<>\n]*>", flags=re.IGNORECASE)),
    ("markup", _FEW, re.compile(r"```|\\n(?![a-z])")),
    ("markup", _FEW, re.compile(r"""^\s*[\[{]\s*["'].*["']\s*[\]}]\s*$""", flags=re.DOTALL)),
    ("markup", _FEW, re.compile(r"^\s*\|.*\|\s*$", flags=re.MULTILINE)),
    ("markup", _FEW, re.compile(r"^\W*(?:text|label|question|answer|category|topic|example|output|message|title|input"
                                r"|sentence|query)s?(?: \d{1,3})?\W{0,2}:", flags=re.IGNORECASE | re.MULTILINE)),
    ("placeholder", _MANY, re.compile(r"\[[A-Za-z][^\]\n]{2,30}\]")),
    ("markup", _MANY, re.compile(r"&(?:[a-z]{2,6}|#\d{2,4});")),
    ("markup", _MANY, re.compile(r"\*\*[^*\n]+\*\*|^#{1,6} ", flags=re.MULTILINE)),
    ("markup", _MANY, re.compile(r"^\s*(?:\(?\d{1,2}[.)]|[-*•])\s+\S")),
)  # fmt: skip

# what real texts do: the yardstick for cut-off and foreign text
TOLERATED = 0.002  # a rule that calls more of the reference cut off takes its style for a fault: not used
RARE = 0.0005  # of the reference may have a trait of the shell that is a fault elsewhere
MOST = 0.5  # of the reference must end its sentences before a missing end means anything
ALL = 0.995  # from here on every missing end means a cut
LANGUAGE_WORDS = 6
LANGUAGE_PROBABILITY = 0.01  # of the language of the reference, below which a text is in another one
FAMILIAR = 0.6  # of the words known from the reference: then it is its language, whatever the identifier says
_SAMPLE = 500
_USES = (20, 40, 80, 160, 320, 640)  # of a word that never ends a row, before it counts as one that cannot
# what no sentence ends with; for references too small to teach it
_NEVER_LAST = {
    "de": frozenset("der den dem des ein eine einen einem einer und oder mein meine dein deine".split()),
    "en": frozenset(
        "the a an and or nor my your our their whose because than of but although into during which every".split()
    ),
    "es": frozenset("el los las un una unos y o de del mi tu su".split()),
    "fr": frozenset("le les des du un une et ou de mon ma mes ton ta tes son".split()),
}
_SIGNS = re.compile(r"([^\w])\1{50,}")
_READ, _END = 4_000, 500  # characters in which an end is looked for: what comes before could be marks alone
# a full stop of any script, then closing quotes, brackets, emoji and the like
_ENDED = re.compile(r"[.!?…。！？؟।։:;\u2600-\u27bf\U0001f300-\U0001faff][^\w,]*$")
_OPEN = re.compile(r"(?:,|[(\[{]|\s[-–—])\s*$|\s\(\w[^()]*$")


def degenerate_reasons(
    texts: Sequence[str],
    *,
    min_letters: int = 3,
    reference: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
) -> list[str | None]:
    """Why each text is no usable example, None where it is; the first reason that applies.

    By themselves: ``empty``, ``broken characters``, ``chat template``, ``error message`` (of a program, in the
    place of a text), ``refusal``, ``chatter`` (an LLM announces its texts), ``too short`` (fewer than ``min_letters``
    letters and digits, and a single token), ``repetition``. With ``prompts``: ``prompt echo`` (8 words in a row of a
    prompt, or the whole of a prompt of 4 to 7 words). With ``reference``: ``wrong language`` and ``truncated``, both by
    what the reference itself does (see ``Habits``): a corpus of notes without full stops has no truncated rows;
    ``markup`` and ``placeholder`` (tags, JSON, Markdown, list numbers, ``[Name]``) where real rows have none; and
    ``chatter`` also where five rows and 1% of all share an opening of 3 to 12 words and a colon or dash, and no real
    row does. Of a text of over 8,000 characters the patterns read the first and the last 4,000.

    Args:
        texts: the rows to judge.
        min_letters: below, a single token is too short.
        reference: real texts of the same kind.
        prompts: the instructions that the LLM was given, without the examples shown in them (a copied example
            is a duplicate, not an echo).
    """
    habits = None if reference is None else _find_habits(tuple(reference))
    echoes = _Echoes(prompts or ())
    reasons: list[str | None] = [_degenerate_reason(text, min_letters, habits, echoes) for text in texts]
    for row in _announcing_rows(texts, reference or ()):
        reasons[row] = reasons[row] or "chatter"
    return reasons


def degenerate_rows(
    corpus: Corpus, *, reference: Sequence[str] | None = None, prompts: Sequence[str] | None = None
) -> list[str | None]:
    """The same of the rows of a corpus; of the task generation ``completion: REASON`` too, without reference."""
    found = degenerate_reasons(corpus.texts, reference=reference, prompts=prompts)
    if corpus.task != "generation":
        return found
    of_targets = degenerate_reasons(corpus.targets, min_letters=1)
    return [text or (target and f"completion: {target}") for text, target in zip(found, of_targets, strict=True)]


# --- pairs: an answer beside what it answers ------------------------------------------------------------
GROUNDED = 0.5  # share of an answer's content words from which on it counts as grounded
LONGEST, SPARE = 2.0, 10  # times the longest real answer; words that a short one may be exceeded by
_CONTENT, _STEM = 4, 5  # letters of a word that says something; letters by which words are the same
COPY, TOO_LONG = "answer repeats what it answers", "answer too long"
UNGROUNDED = "answer not grounded in what it is about"


def content_words(text: str) -> set[str]:
    """The words that carry what a text says, by their first five letters.

    Words of four letters and more, numbers, and words of other scripts than ASCII; all words where there are none such.
    """
    words = split_tokens(text)
    told = {word[:_STEM] for word in words if len(word) >= _CONTENT or word.isdigit() or not word.isascii()}
    return told or set(words)


def grounded_share(answer: str, source: str) -> float:
    """The share of an answer's content words that stand in the source, 0 to 1; 0 of an answer without words."""
    wanted = content_words(answer)
    return len(wanted & {word[:_STEM] for word in split_tokens(source)}) / max(1, len(wanted))


def grounded_shares(corpus: Corpus) -> NDArray[np.float64]:
    """The share of each row's target in its context, or in its text where it has none, shape (n,)."""
    sources = (context or text for context, text in zip(corpus.contexts, corpus.texts, strict=True))
    return np.array([grounded_share(answer, source) for answer, source in zip(corpus.targets, sources, strict=True)])


def longest_answer(targets: Sequence[str]) -> int:
    """The most words that an answer may have: twice as many as the longest real one, and at least ten more."""
    longest = max((len(split_tokens(target)) for target in targets), default=0)
    return int(max(LONGEST * longest, longest + SPARE))


def pair_reason(text: str, target: str, context: str | None, longest: float) -> str | None:
    """``COPY`` of an answer that is its text or its whole context; ``TOO_LONG`` of more than ``longest`` words."""
    words = split_tokens(target)
    if words in (split_tokens(text), split_tokens(context or "")):
        return COPY
    return TOO_LONG if len(words) > longest else None


def _announcing_rows(texts: Sequence[str], reference: Sequence[str]) -> list[int]:
    """Rows that open with words and a colon as many others do and no real row does."""
    if len(reference) < _FEWEST_REAL:
        return []
    openings = [_opening(text) for text in texts]
    counts = Counter(opening for opening in openings if opening)
    real = {_opening(text) for text in reference}
    least = max(OPENINGS, 0.01 * len(texts))
    return [row for row, found in enumerate(openings) if found and counts[found] >= least and found not in real]


def _opening(text: str) -> tuple[str, ...] | None:
    """The first three words of what stands before a colon or dash, where that is a clause of 3 to 12 words."""
    before, colon, _ = _SEPARATOR.sub(":", text.strip(), count=1).partition(":")
    words = split_tokens(before) if colon and len(before) < 200 and "\n" not in before else []
    return tuple(words[:3]) if len(words) in _OPENING_WORDS else None


def _excerpt(text: str) -> str:
    """What the patterns read of a text, as the time of some is quadratic: its first and its last 4,000 characters.

    Of a longer run of one sign or blank 50 are left.
    """
    if len(text) > _END:
        text = _SIGNS.sub(lambda found: found[1] * 50, text)
    return text if len(text) <= 2 * _READ else f"{text[:_READ]}\n{text[-_READ:]}"


def _degenerate_reason(text: str, min_letters: int, habits: Habits | None, echoes: _Echoes) -> DegenerateReason | None:
    tokens = split_tokens(text)
    if not text.strip() or not tokens:
        return "empty"
    shown = _excerpt(text)
    for reason, pattern in _PATTERNS:
        if pattern.search(text if pattern is _BROKEN else shown):
            return reason
    if len(tokens) < 2 and len(tokens[0]) < min_letters:
        return "too short"
    if _RUN.search(text) or _loops(split_tokens(_MENTIONS.sub("", text)) if "@" in text else tokens):
        return "repetition"
    if echoes.are_in(tokens):
        return "prompt echo"
    if habits is None:
        return None
    for reason, trait in habits.unseen:
        if trait.search(shown):
            return reason
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


# --- what real texts do: how they end, and their language -----------------------------------------
class _Identifier(Protocol):
    def classify(self, text: str) -> tuple[str, float]: ...

    def rank(self, text: str) -> list[tuple[str, float]]: ...


class Habits:
    """How the rows of a reference end, their words and their language.

    ``language`` is an ISO 639 code, None where no language has most of the rows: then nothing is foreign.
    ``ends`` is False where under half of the reference ends with a full stop or the like: then nothing is cut
    off. Else a row without an end is cut off where the reference always has one (``ends_all``), where it stops at
    a ``hanging`` word, at a comma, dash or open bracket (``opens``), or in the middle of a word (``stems``).
    ``unseen`` are the traits of ``_TRAITS`` that under 0.05% of the reference have.
    Each rule is first tried on the reference, every row by what the *other* rows do, and not used where it
    calls more than 0.2% of them cut off.
    """

    def __init__(self, reference: Sequence[str]) -> None:
        tokens = [split_tokens(text) for text in reference]
        counts = Counter(word for words in tokens for word in words)
        rows = sum(bool(words) for words in tokens)
        unended = [(t, w) for t, w in zip(reference, tokens, strict=True) if w and not _ENDED.search(t[-_END:])]
        last = Counter(words[-1] for _, words in unended)
        self.words, self.known = tuple(sorted(counts)), frozenset(counts)
        self.language = _main_language(reference, tokens)
        self.ends = rows > 0 and len(unended) <= (1.0 - MOST) * rows
        self.ends_all = len(unended) + 1 <= (1.0 - ALL) * rows
        self.opens = sum(_OPEN.search(text[-_END:]) is not None for text, _ in unended) <= RARE * rows
        stemmed = sum(counts[word] == 1 and _begins_another(word, self.words) for word in last)
        self.stems = stemmed + 3 <= TOLERATED * rows
        self.hanging = _hanging_words(counts, last, rows, _NEVER_LAST.get(self.language or "", frozenset()))
        shown = [_excerpt(text) for text in reference]
        self.unseen = [
            (reason, trait)
            for reason, fewest, trait in _TRAITS
            if len(shown) >= fewest and sum(trait.search(text) is not None for text in shown) <= RARE * len(shown)
        ]

    def is_cut_off(self, text: str, tokens: Sequence[str]) -> bool:
        """Whether a text stops in the middle of a sentence or word where the reference would not."""
        if not self.ends or not tokens or _ENDED.search(text[-_END:]):
            return False
        word = tokens[-1]
        if self.ends_all or word in self.hanging or (self.opens and _OPEN.search(text[-_END:])):
            return True
        return self.stems and word not in self.known and _begins_another(word, self.words)

    def is_foreign(self, text: str, tokens: Sequence[str]) -> bool:
        """Whether a text of six words or more is surely in another language than the reference."""
        if self.language is None or len(tokens) < LANGUAGE_WORDS:
            return False
        if sum(word in self.known for word in tokens) >= FAMILIAR * len(tokens):
            return False
        # not by how sure the other language is: its near relatives share the probability
        return dict(_identifier().rank(text))[self.language] < LANGUAGE_PROBABILITY


_find_habits = lru_cache(maxsize=2)(Habits)  # kept for the next call with the same rows


def _hanging_words(counts: Counter[str], last: Counter[str], rows: int, closed: frozenset[str]) -> frozenset[str]:
    """Words that never end a row although they are frequent: as many as the reference itself can vouch for.

    A row whose last word ends no other row, but is used often, shows that the bar was too low.
    """
    found = closed - last.keys()
    for uses in _USES:
        surprises = sum(1 for word, times in last.items() if times == 1 and counts[word] > uses)
        if surprises + 1 <= TOLERATED * rows:
            return found | {w for w, count in counts.items() if count >= uses and not last[w] and not w.isdigit()}
    return found


def _begins_another(word: str, ordered: Sequence[str]) -> bool:
    """Whether some longer word of the sorted ``ordered`` starts with ``word``, of three letters or more."""
    if len(word) < 3 or not word.isalpha():
        return False
    at = bisect_right(ordered, word)
    return at < len(ordered) and ordered[at].startswith(word)


def _main_language(reference: Sequence[str], tokens: Sequence[Sequence[str]]) -> str | None:
    """The language of most of the longer rows (of at most 500, evenly spaced), else of all rows as one text."""
    longer = [text for text, words in zip(reference, tokens, strict=True) if len(words) >= LANGUAGE_WORDS]
    longer.sort()  # the same rows in another order have the same habits
    sample = longer[:: max(1, len(longer) // _SAMPLE)]
    if not sample:
        return None
    votes = Counter(_identifier().classify(text)[0] for text in sample)
    language, count = max(votes.items(), key=lambda vote: (vote[1], vote[0]))
    return language if count >= 0.8 * len(sample) else None


@cache
def _identifier() -> _Identifier:
    """py3langid (Lui and Baldwin 2012, ACL demo), with probabilities; its model takes half a second to load."""
    module = import_module("py3langid.langid")
    return cast("_Identifier", module.LanguageIdentifier.from_model_file(module.MODEL_FILE, norm_probs=True))
