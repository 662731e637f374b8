"""Which answers become rows. Pure: the outcome depends on the answers, never on when they came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import ceil

from cuvee.corpus import Corpus, normalise_text
from cuvee.errors import ConfigError
from cuvee.generate.calls import Answer
from cuvee.generate.dials.slots import Slot
from cuvee.generate.dials.words import characteristic_words, find_words
from cuvee.generate.parsing import (
    COPY_OF_SOURCE,
    COPY_OF_TRAINING,
    DRAFT,
    DUPLICATE,
    NEAR_COPY,
    NEAR_DUPLICATE,
    NO_SOURCE,
    NOT_NEAREST,
    WRONG_LABEL,
    Parsed,
    parse_answer,
    parse_pair,
)
from cuvee.generate.prompts import PromptWriter, Question, Wordings
from cuvee.generate.strata import WRITINGS, Stratum, Writing
from cuvee.records import Rejected

Nearest = Callable[[Sequence[str], Sequence[str]], Sequence[int]]
"""``nearest(queries, candidates)``: for each query the index of the nearest candidate."""


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
        if self.near_duplicate is not None:
            check_threshold(self.near_duplicate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An accepted answer, with the draft that it refines and the words that it had to avoid, if any.

    ``target`` and ``context`` are the answer's own, its stratum's, or those of the row that it paraphrases.
    """

    slot: Slot
    text: str
    target: str
    context: str | None = None
    seed_ids: tuple[str, ...]
    draft: str | None = None
    avoided: tuple[str, ...] = ()


class AcceptanceFilter:
    """Fills the slots of one batch from the answers known so far.

    Slots are judged in their order in the batch. Each takes its first answer that is usable by itself, equals
    (normalised) no training row and no row of a slot before it, nor nearly where that is asked for, and, if it is a
    paraphrase, is nearer to its source than to any other base row. Of a pair the text is compared. A slot's outcome
    thus depends on the slots before it and on nothing else: not on timing, not on the slots after it, not on other
    batches. Slots are asked for in waves, each of which is settled before the next is begun: what a slot avoids comes
    before it, and base slots (without a parent) come before the first paraphrase. A slot with a draft takes turns: a
    draft until one is usable by itself, then its refinement; where that is rejected, it begins with another draft.
    Drafts become no rows, so they are among the rejected, as such.

    Args:
        slots: base slots first, rounds in their order.
        train: whose rows may not come back.
        writer: of the questions.
        rules: what is accepted.
        least_words: fewer are too short; None is two, or as few as the shortest training row has.

    Raises:
        ConfigError: a slot wants seed examples that its stratum does not have, or drafts of pairs.
    """

    def __init__(
        self, slots: Sequence[Slot], *, train: Corpus, writer: PromptWriter, rules: AcceptanceRules,
        least_words: int | None = None,
    ) -> None:  # fmt: skip
        check_slots(slots, train, writer.strata, writer.writing)
        self._base = [s for s in slots if s.parent is None]
        self._paraphrases = [s for s in slots if s.parent is not None]
        self._waves = settling_waves(slots)
        self._writer = writer
        self._wordings = Wordings(writer)
        self._screen = Screen(rules.refuse, rules.agrees)
        self._known = Known(train.texts, rules.near_duplicate)
        self._rules = rules
        shortest = min((len(normalise_text(text).split()) for text in train.texts), default=2)
        self._least_words = min(2, shortest) if least_words is None else least_words
        self._slots = {slot.key: slot for slot in slots}
        self._asked: dict[str, list[Question]] = {}
        self._parsed: dict[str, list[Parsed]] = {}
        self._is_nearest: dict[tuple[str, str], bool] = {}
        self._typical: dict[tuple[str, tuple[str, ...], int, frozenset[str]], tuple[str, ...]] = {}
        self.rows: dict[str, Row] = {}
        self.rejected: list[Rejected] = []

    def next_questions(self) -> dict[str, Question]:
        """For each slot that needs another answer, what to ask next; empty when all is settled."""
        for wave in self._waves:
            if questions := {slot.key: self._question(slot) for slot in self._open(wave)}:
                return questions
        return {}

    def give(self, *rounds: Mapping[str, tuple[Question, Answer]]) -> None:
        """Take questions with their answers, by slot key, of one round or several, and judge all slots afresh."""
        for key, (question, answer) in chain.from_iterable(answers.items() for answers in rounds):
            self._asked.setdefault(key, []).append(question)
            self._parsed.setdefault(key, []).append(self.parse(key, question, answer))
        keys = dict.fromkeys(chain.from_iterable(rounds))
        usable = [(p.text, self._slots[key].label) for key in keys for p in self._parsed[key] if p.reason is None]
        self._screen.look(usable)
        self.rows, self.rejected = {}, []
        self._known.begin(p.text for parsed in self._parsed.values() for p in parsed if p.reason is None)
        for wave in self._waves:
            if wave[0].parent is not None:
                self._measure_nearest()
            self._settle(wave)
            if self._open(wave):
                break

    def parse(self, key: str, question: Question, answer: Answer) -> Parsed:
        """An answer to a slot's question, judged by itself. A usable draft has that for its reason: it is no row."""
        slot, writing = self._slots[key], self._writer.writing
        wording = self._wordings.runs(slot, question)
        if question.step == "row" and writing.pair:
            return parse_pair(
                answer, writing=writing, shown=question.shown, shown_targets=question.shown_targets,
                avoided=question.avoided, wording=wording, least_words=self._least_words,
                keep_truncated=self._rules.keep_truncated,
            )  # fmt: skip
        parsed = parse_answer(
            answer,
            label=slot.label if writing.kind == "label" else writing.text,
            shown=question.shown,
            avoided=question.avoided,
            wording=wording,
            least_words=self._least_words,
            keep_truncated=self._rules.keep_truncated,
        )
        if question.step != "draft" or parsed.reason is not None:
            return parsed
        return replace(parsed, reason=COPY_OF_TRAINING if self._known.is_training(parsed.text) else DRAFT)

    def asked(self, key: str) -> Sequence[Question]:
        """The questions that were answered for a slot."""
        return self._asked.get(key, ())

    def _open(self, slots: Sequence[Slot]) -> list[Slot]:
        """Slots without a row that may be asked for again."""
        return [
            slot
            for slot in slots
            if slot.key not in self.rows
            and sum(parsed.reason != DRAFT for parsed in self._parsed.get(slot.key, ())) < self._rules.attempts
            and (slot.parent is None or slot.parent in self.rows)
        ]

    def _question(self, slot: Slot) -> Question:
        attempt = len(self.asked(slot.key))
        if slot.parent is not None:
            source = self.rows[slot.parent]
            return self._writer.ask_for_paraphrase(slot, attempt, source.text, source.seed_ids)
        avoided = self._words_to_avoid(slot)
        if slot.draft is None:
            return self._writer.ask_for_row(slot, attempt, avoided)
        latest = self._parsed[slot.key][-1] if attempt else None
        if latest is None or latest.reason != DRAFT:
            return self._writer.ask_for_draft(slot, attempt, avoided)
        seed_ids = self.asked(slot.key)[-1].seed_ids
        return self._writer.ask_for_refinement(slot, attempt, latest.text, seed_ids, avoided)

    def _words_to_avoid(self, slot: Slot) -> tuple[str, ...]:
        """The most characteristic words of each round before the slot's own, but none that says what is wanted."""
        if slot.avoid is None:
            return ()
        about = slot.label if self._writer.writing.kind == "label" else self._writer.strata[slot.label].source
        said = [about or "", slot.topic or "", *(part for pair in slot.attributes for part in pair)]
        wanted = frozenset(word for text in said for word in find_words(text.replace("_", " ")))
        words: dict[str, None] = {}
        for keys in slot.avoid.rounds:
            words |= dict.fromkeys(self._typical_words(slot.label, keys, slot.avoid.words, wanted))
        return tuple(words)

    def _typical_words(self, label: str, keys: tuple[str, ...], count: int, exclude: frozenset[str]) -> tuple[str, ...]:
        known = (label, keys, count, exclude)
        if known not in self._typical:
            texts: dict[str, list[str]] = {}
            for row in (self.rows[key] for key in keys if key in self.rows):
                texts.setdefault(row.slot.label, []).append(row.text)
            self._typical[known] = characteristic_words(texts, label, count, exclude=exclude)
        return self._typical[known]

    def _settle(self, slots: Sequence[Slot]) -> None:
        for slot in slots:
            source = self.rows.get(slot.parent) if slot.parent is not None else None
            if slot.parent is not None and source is None:
                self.rejected.append(Rejected(slot=slot.key, reason=NO_SOURCE, text=""))
                continue
            for question, parsed in zip(self.asked(slot.key), self._parsed.get(slot.key, ()), strict=True):
                reason = parsed.reason or self._objection(parsed.text, slot, source)
                if reason is None:
                    self._known.add(parsed.text)
                    self.rows[slot.key] = self._make_row(slot, question, parsed, source)
                    break
                self.rejected.append(Rejected(slot=slot.key, reason=reason, text=parsed.text or parsed.raw))

    def _make_row(self, slot: Slot, question: Question, parsed: Parsed, source: Row | None) -> Row:
        writing, stratum = self._writer.writing, self._writer.strata[slot.label]
        if source is not None:
            target, context = source.target, source.context
        else:
            target = parsed.target if parsed.target is not None else stratum.source or slot.label
            context = stratum.source if writing.pair else None
        return Row(
            slot=slot,
            text=parsed.text,
            target=target,
            context=context,
            seed_ids=question.seed_ids,
            draft=question.source if question.step == "refinement" else None,
            avoided=question.avoided,
        )

    def _objection(self, text: str, slot: Slot, source: Row | None) -> str | None:
        if source is not None and normalise_text(text) == normalise_text(source.text):
            return COPY_OF_SOURCE
        if (known := self._known.objection(text)) is not None:
            return known
        if (refused := self._screen.objection(text, slot.label)) is not None:
            return refused
        if source is not None and not self._is_nearest.get((text, source.slot.key), True):
            return NOT_NEAREST
        return None

    def _measure_nearest(self) -> None:
        """Find the nearest base row of every usable paraphrase not yet measured, in one call."""
        if self._rules.nearest is None:
            return
        base = [self.rows[s.key] for s in self._base if s.key in self.rows]
        queries: dict[tuple[str, str], None] = {}
        for slot in self._paraphrases:
            for parsed in self._parsed.get(slot.key, ()):
                pair = (parsed.text, slot.parent or "")
                if parsed.reason is None and pair not in self._is_nearest:
                    queries[pair] = None
        if not queries:
            return
        found = self._rules.nearest([text for text, _ in queries], [row.text for row in base])
        for (text, parent), index in zip(queries, found, strict=True):
            self._is_nearest[text, parent] = base[int(index)].slot.key == parent


# --- the order in which the slots of a batch are settled, and what they may ask for. Pure ---
def settling_waves(slots: Sequence[Slot]) -> list[list[Slot]]:
    """Slots in the groups in which they are settled: base slots after what they avoid, then paraphrases.

    Slots that are named and not there (a request of theirs failed for good) are waited for by nobody.
    """
    depth: dict[str, int] = {}
    waves: dict[tuple[bool, int], list[Slot]] = {}
    derived = {slot.key for slot in slots if slot.parent is not None}
    for slot in slots:
        if slot.parent is not None:
            named = [slot.parent] if slot.parent in derived else []
        else:
            named = [key for keys in slot.avoid.rounds for key in keys] if slot.avoid is not None else []
        depth[slot.key] = 1 + max((depth[key] for key in named if key in depth), default=-1)
        waves.setdefault((slot.parent is not None, depth[slot.key]), []).append(slot)
    return [waves[order] for order in sorted(waves)]


def check_slots(slots: Sequence[Slot], train: Corpus, strata: Mapping[str, Stratum], writing: Writing) -> None:
    """Refuse what cannot be asked for, before anything is.

    Raises:
        ConfigError: a slot of no stratum, seed examples that there are not, or drafts of a kind that has none.
    """
    known = set(train.ids)
    for slot in slots:
        if slot.label not in strata:
            raise ConfigError(f"slot {slot.key!r} is for {slot.label!r}; valid: {', '.join(list(strata)[:8])}")
        rows = len(strata[slot.label].rows)
        if slot.examples and max(slot.examples) >= rows:
            raise ConfigError(
                f"{max(slot.examples) + 1} seed examples are wanted of label {slot.label!r}, it has "
                f"{rows} training rows; drop the level or give more rows"
            )
        unknown = [id_ for id_ in slot.seed_ids if id_ not in known]
        if unknown:
            raise ConfigError(f"seed example {unknown[0]!r} of label {slot.label!r} is no training row")
        if slot.draft is not None and writing.pair:
            served = ", ".join(name for name, other in WRITINGS.items() if not other.pair)
            raise ConfigError(
                f"dial 'base_then_refine' drafts a text alone, and kind {writing.kind!r} has two sides; kinds that it "
                f"serves: {served}"
            )


# --- what keeps a usable text from becoming a row: texts that are there already, and what callers s ---
Refuse = Callable[[Sequence[str]], Sequence[str | None]]
"""``refuse(texts)``: for each text why it may not become a row, or None."""
Agrees = Callable[[Sequence[str], Sequence[str]], Sequence[bool]]
"""``agrees(texts, labels)``: for each text whether it has its label."""


class Screen:
    """What callers say of texts, asked once for each.

    Args:
        refuse: None refuses nothing.
        agrees: None checks nothing.
    """

    def __init__(self, refuse: Refuse | None, agrees: Agrees | None) -> None:
        self._refuse = refuse
        self._agrees = agrees
        self._refused: dict[str, str | None] = {}
        self._right: dict[tuple[str, str], bool] = {}

    def look(self, usable: Iterable[tuple[str, str]]) -> None:
        """Ask for all new ones of these texts with their labels, in one call each."""
        pairs = list(dict.fromkeys(usable))
        texts = [text for text in dict.fromkeys(text for text, _ in pairs) if text not in self._refused]
        if self._refuse is not None and texts:
            self._refused.update(zip(texts, self._refuse(texts), strict=True))
        fresh = [pair for pair in pairs if pair not in self._right]
        if self._agrees is not None and fresh:
            said = self._agrees([text for text, _ in fresh], [label for _, label in fresh])
            self._right.update(zip(fresh, map(bool, said), strict=True))

    def objection(self, text: str, label: str) -> str | None:
        """Why the text may not become a row of this label."""
        if (refused := self._refused.get(text)) is not None:
            return refused
        return None if self._right.get((text, label), True) else WRONG_LABEL


class Known:
    """Texts that are there already: those of the training rows, and of the rows taken so far.

    Args:
        training: texts of the training rows.
        near_duplicate: Jaccard similarity from which texts count as nearly the same; None skips that test.

    Raises:
        ValueError: ``near_duplicate`` out of range.
    """

    def __init__(self, training: Sequence[str], near_duplicate: float | None) -> None:
        self._training = {normalise_text(text) for text in training}
        self._taken: set[str] = set()
        self._threshold = near_duplicate
        self._shingles: dict[str, frozenset[str]] = {}
        if near_duplicate is not None:
            real = [shingles_of(text) for text in sorted(self._training)]
            self._near_training = NearCopies(near_duplicate, count_shingles(real))
            for shingles in real:
                self._near_training.add(shingles)
            self._near_taken = NearCopies(near_duplicate, {})
            self._counted = 0

    def begin(self, texts: Iterable[str]) -> None:
        """Forget the rows taken; ``texts`` are those that may be asked about."""
        self._taken = set()
        if self._threshold is not None:
            for text in texts:
                if text not in self._shingles:
                    self._shingles[text] = shingles_of(text)
            self._near_taken.clear()
            if len(self._shingles) > 2 * self._counted:  # what is common shows again only in many more texts
                self._near_taken = NearCopies(self._threshold, count_shingles(self._shingles.values()))
                self._counted = len(self._shingles)

    def is_training(self, text: str) -> bool:
        """Whether a training row has this text."""
        return normalise_text(text) in self._training

    def add(self, text: str) -> None:
        """Take a row."""
        self._taken.add(normalise_text(text))
        if self._threshold is not None:
            self._near_taken.add(self._shingles[text])

    def objection(self, text: str) -> str | None:
        """What it repeats, if anything."""
        normal = normalise_text(text)
        if normal in self._training:
            return COPY_OF_TRAINING
        if normal in self._taken:
            return DUPLICATE
        if self._threshold is not None:
            if self._near_training.holds(self._shingles[text]):
                return NEAR_COPY
            if self._near_taken.holds(self._shingles[text]):
                return NEAR_DUPLICATE
        return None


# --- texts that are nearly the same: exact Jaccard similarity, without comparing every pair. Pure ---
WIDTH = 5
LEAST, MOST = 0.5, 1.0
"""Thresholds that are taken: below, texts have little in common, and nearly all would have to be compared."""
_ROUNDING = 1e-9
_SHARED = 16  # first shingles that similar texts share: more than one word that two texts have in common


def check_threshold(threshold: float) -> None:
    """Refuse a threshold out of range.

    Raises:
        ValueError: it is.
    """
    if not LEAST <= threshold <= MOST:
        raise ValueError(f"near_duplicate {threshold!r}; give a Jaccard similarity from {LEAST} to 1, or None")


def shingles_of(text: str) -> frozenset[str]:
    """All runs of five characters of the normalised text; a shorter one is a run of its own.

    Characters and not words, because rows are short: one changed word in a row of twelve changes a quarter of its word
    triples.
    """
    normal = normalise_text(text)
    return frozenset(normal[i : i + WIDTH] for i in range(max(1, len(normal) - WIDTH + 1)))


def count_shingles(texts: Iterable[frozenset[str]]) -> Counter[str]:
    """How many of the texts have each shingle."""
    counted: Counter[str] = Counter()
    for shingles in texts:
        counted.update(shingles)
    return counted


class NearCopies:
    """Texts put in one by one, and whether another one is nearly the same as one of them.

    Two sets of shingles with a Jaccard similarity of at least t share at least k of their first n - ceil(t n) + k
    elements in any fixed order of all shingles (prefix filtering: Chaudhuri, Ganti and Kaushik 2006; with k above 1:
    Wang, Li and Feng 2012). With the rarest first few texts do, and only those are compared: the answer is exact, and
    the order matters for the speed alone.

    Args:
        threshold: Jaccard similarity from which texts are nearly the same, 0.5 to 1.
        frequency: how common each shingle is; those that it lacks count as the rarest.
    """

    def __init__(self, threshold: float, frequency: Mapping[str, int]) -> None:
        check_threshold(threshold)
        self._threshold = threshold
        self._frequency = frequency
        self._texts: list[frozenset[str]] = []
        self._places: dict[str, list[int]] = {}
        self._prefixes: dict[frozenset[str], list[str]] = {}

    def clear(self) -> None:
        """Take all texts out; what was worked out about them stays."""
        self._texts, self._places = [], {}

    def add(self, shingles: frozenset[str]) -> None:
        """Put a text in."""
        for shingle in self._prefix(shingles):
            self._places.setdefault(shingle, []).append(len(self._texts))
        self._texts.append(shingles)

    def holds(self, shingles: frozenset[str]) -> bool:
        """Whether one of the texts is nearly the same as this one."""
        shared: Counter[int] = Counter()
        for shingle in self._prefix(shingles):
            if places := self._places.get(shingle):
                shared.update(places)
        least = min(_SHARED, self._least_overlap(shingles))
        return any(self._alike(shingles, self._texts[place]) for place, n in shared.items() if n >= least)

    def _least_overlap(self, shingles: frozenset[str]) -> int:
        return ceil(self._threshold * len(shingles) - _ROUNDING)

    def _prefix(self, shingles: frozenset[str]) -> list[str]:
        if shingles not in self._prefixes:
            length = len(shingles) - self._least_overlap(shingles) + _SHARED
            ordered = sorted((self._frequency.get(shingle, 0), shingle) for shingle in shingles)
            self._prefixes[shingles] = [shingle for _, shingle in ordered[:length]]
        return self._prefixes[shingles]

    def _alike(self, one: frozenset[str], other: frozenset[str]) -> bool:
        if min(len(one), len(other)) < self._threshold * max(len(one), len(other)) - _ROUNDING:
            return False
        shared = len(one & other)
        return shared >= self._threshold * (len(one) + len(other) - shared) - _ROUNDING
