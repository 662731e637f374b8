"""Which answers become rows. Pure: the outcome depends on the answers, never on when they came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import ceil

from cuvee.corpus import Corpus, normalise_text, split_tokens
from cuvee.errors import ConfigError
from cuvee.generate import parsing
from cuvee.generate.calls import Answer
from cuvee.generate.dials.slots import Slot
from cuvee.generate.prompts import PromptWriter, Question

Nearest = Callable[[Sequence[str], Sequence[str]], Sequence[int]]
"""``nearest(queries, candidates)``: for each query the index of the nearest candidate."""
Refuse = Callable[[Sequence[str]], Sequence[str | None]]
"""``refuse(texts)``: for each text why it may not become a row, or None."""
Agrees = Callable[[Sequence[str], Sequence[str]], Sequence[bool]]
"""``agrees(texts, labels)``: for each text whether it has its label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceRules:
    """What an answer must be to become a row, beside usable by itself and no copy.

    ``nearest`` is for a paraphrase, which must be nearer to its source than to any other base row; None skips that
    test, and the pool's note says so. ``refuse`` says of texts why they may not become rows (they leak held-out data,
    say). ``agrees`` says of texts with their labels which of them have it. ``near_duplicate`` is the Jaccard similarity
    of the texts' runs of five characters, 0.5 to 1, from which a row counts as nearly the same as a training row, or
    as one before it in its batch (a paraphrase: as its source, too); None allows all but copies. ``keep_truncated``
    takes answers and drafts that ran into max_tokens, without their last, broken word. ``attempts`` are the answers a
    slot may be given, usable drafts not counted.

    Raises:
        ValueError: attempts or near_duplicate out of range.
    """

    nearest: Nearest | None = None
    refuse: Refuse | None = None
    agrees: Agrees | None = None
    near_duplicate: float | None = None
    keep_truncated: bool = False
    attempts: int = 6

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts {self.attempts!r}; must be 1 or more")
        if self.near_duplicate is not None and not LEAST <= self.near_duplicate <= MOST:
            raise ValueError(f"near_duplicate {self.near_duplicate!r}; give a Jaccard similarity from {LEAST} to 1")


class AcceptanceFilter:
    """Judges answers: each must be usable by itself and no copy, and must pass the other rules.

    Args:
        train: whose rows may not come back.
        writer: of the questions.
        rules: what is accepted.
        least_words: fewer are too short; None is two, or as few as the shortest training row has.
    """

    def __init__(
        self, *, train: Corpus, writer: PromptWriter, rules: AcceptanceRules, least_words: int | None = None
    ) -> None:
        self.writer, self.rules = writer, rules
        self._training = {normalise_text(text) for text in train.texts}
        self._ids = set(train.ids)
        self._taken: set[str] = set()
        near = rules.near_duplicate
        self._near_training, self._near_taken = (None if near is None else NearCopies(near) for _ in range(2))
        if self._near_training is not None:
            for text in self._training:
                self._near_training.add(text)
        shortest = min((len(split_tokens(text)) for text in train.texts), default=2)
        self._least_words = min(2, shortest) if least_words is None else least_words
        self._refused: dict[str, str | None] = {}
        self._agreed: dict[tuple[str, str], bool] = {}

    def check_slots(self, slots: Iterable[Slot]) -> None:
        """Refuse what cannot be asked for, before anything is.

        Raises:
            ConfigError: a slot without a stratum, unknown seed examples, or drafts for a kind that has none.
        """
        strata, writing = self.writer.strata, self.writer.writing
        for slot in slots:
            if slot.label not in strata:
                raise ConfigError(f"slot {slot.key!r} is for {slot.label!r}; valid: {', '.join(list(strata)[:8])}")
            rows = len(strata[slot.label].rows)
            if slot.examples and max(slot.examples) >= rows:
                raise ConfigError(
                    f"{max(slot.examples) + 1} seed examples are wanted of label {slot.label!r}, it has "
                    f"{rows} training rows; drop the level or give more rows"
                )
            if unknown := [id_ for id_ in slot.seed_ids if id_ not in self._ids]:
                raise ConfigError(f"seed example {unknown[0]!r} of label {slot.label!r} is no training row")
            if slot.draft is not None and writing.pair:
                served = ", ".join(name for name, other in parsing.WRITINGS.items() if not other.pair)
                raise ConfigError(
                    f"dial 'base_then_refine' drafts a text alone, and kind {writing.kind!r} has two sides; kinds that "
                    f"it serves: {served}"
                )

    def parse(self, slot: Slot, question: Question, answer: Answer) -> parsing.Parsed:
        """An answer to a slot's question, judged by itself. A usable draft has that for its reason: it is no row."""
        writing = self.writer.writing
        demands = parsing.Demands(
            shown=question.shown, shown_targets=question.shown_targets, avoided=question.avoided,
            wording=self.writer.wording_runs(slot, question), least_words=self._least_words,
            keep_truncated=self.rules.keep_truncated, lines=self.writer.lines,
        )  # fmt: skip
        label = slot.label if writing.kind == "label" else writing.text
        pair = writing if question.step == "row" and writing.pair else None
        parsed = parsing.parse_answer(answer, demands, label=label, pair=pair)
        if question.step != "draft" or parsed.reason is not None:
            return parsed
        is_copy = normalise_text(parsed.text) in self._training
        return replace(parsed, reason=parsing.COPY_OF_TRAINING if is_copy else parsing.DRAFT)

    def begin(self, usable: Iterable[tuple[str, str]]) -> None:
        """Forget the rows taken; ``usable`` are the texts that may be taken now, with their labels.

        Callers are asked about all new ones, in one call each.
        """
        pairs = dict.fromkeys(usable)
        texts = [text for text in dict.fromkeys(text for text, _ in pairs) if text not in self._refused]
        if self.rules.refuse is not None and texts:
            self._refused.update(zip(texts, self.rules.refuse(texts), strict=True))
        fresh = [pair for pair in pairs if pair not in self._agreed]
        if self.rules.agrees is not None and fresh:
            said = self.rules.agrees([text for text, _ in fresh], [label for _, label in fresh])
            self._agreed.update(zip(fresh, map(bool, said), strict=True))
        self._taken.clear()
        if self._near_taken is not None:
            self._near_taken.clear()

    def take(self, text: str) -> None:
        """A text has become a row."""
        self._taken.add(normalise_text(text))
        if self._near_taken is not None:
            self._near_taken.add(text)

    def objection(self, text: str, label: str, source: str | None) -> str | None:
        """Why a usable text may not become a row of this label now; ``source`` is what it paraphrases."""
        normal = normalise_text(text)
        if source is not None and normal == normalise_text(source):
            return parsing.COPY_OF_SOURCE
        if normal in self._training:
            return parsing.COPY_OF_TRAINING
        if normal in self._taken:
            return parsing.DUPLICATE
        if self._near_training is not None and self._near_training.holds(text):
            return parsing.NEAR_COPY
        if self._near_taken is not None and self._near_taken.holds(text):
            return parsing.NEAR_DUPLICATE
        if (refused := self._refused.get(text)) is not None:
            return refused
        return None if self._agreed.get((text, label), True) else parsing.WRONG_LABEL


# --- texts that are nearly the same: exact Jaccard similarity, without comparing every pair. Pure ---
WIDTH = 5
LEAST, MOST = 0.5, 1.0
"""Thresholds that are taken: below, texts have little in common, and nearly all would have to be compared."""
_ROUNDING = 1e-9
_SHARED = 16  # shingles that a text must share to be compared: more than one word that two texts have in common


def shingles_of(text: str) -> frozenset[str]:
    """All runs of five characters of the normalised text; a shorter one is a run of its own.

    Characters and not words, because rows are short: one changed word in a row of twelve changes a quarter of its word
    triples.
    """
    normal = normalise_text(text)
    return frozenset(normal[i : i + WIDTH] for i in range(max(1, len(normal) - WIDTH + 1)))


class NearCopies:
    """Texts put in one by one, and whether another one is nearly the same as one of them.

    A set of n shingles that has a Jaccard similarity of at least t to another one lacks at most n - ceil(t n) of them
    there, so that of any n - ceil(t n) + k of its shingles k are in the other (prefix filtering: Chaudhuri, Ganti and
    Kaushik 2006; with k above 1: Wang, Li and Feng 2012). Looked up are those that the fewest texts hold; few texts
    hold k of them, and only those are compared: the answer is exact.

    Args:
        threshold: Jaccard similarity from which texts are nearly the same, 0.5 to 1.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._known: dict[str, frozenset[str]] = {}
        self.clear()

    def clear(self) -> None:
        """Take all texts out; what was worked out about them stays."""
        self._texts: list[frozenset[str]] = []
        self._places: dict[str, list[int]] = {}

    def add(self, text: str) -> None:
        """Put a text in."""
        shingles = self._look(text)
        for shingle in shingles:
            self._places.setdefault(shingle, []).append(len(self._texts))
        self._texts.append(shingles)

    def holds(self, text: str) -> bool:
        """Whether one of the texts is nearly the same as this one."""
        shingles = self._look(text)
        most = ceil(self._threshold * len(shingles) - _ROUNDING)
        least = min(_SHARED, most)
        rarest = sorted((self._places.get(shingle, ()) for shingle in shingles), key=len)
        shared = Counter(chain.from_iterable(rarest[: len(shingles) - most + least]))
        return any(self._alike(shingles, self._texts[place]) for place, n in shared.items() if n >= least)

    def _look(self, text: str) -> frozenset[str]:
        if text not in self._known:
            self._known[text] = shingles_of(text)
        return self._known[text]

    def _alike(self, one: frozenset[str], other: frozenset[str]) -> bool:
        shared = len(one & other)
        return shared >= self._threshold * (len(one) + len(other) - shared) - _ROUNDING
