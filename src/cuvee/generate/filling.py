"""The slots of a level are asked for until each has a row: which answers become rows, and why others do not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cuvee import defects
from cuvee.corpus import Corpus, normalise_text, split_tokens
from cuvee.corpus.forms import split_turns
from cuvee.errors import ConfigError
from cuvee.generate import parsing
from cuvee.generate.calls import Answer, Failure, Outcome, Request
from cuvee.generate.client import Find, OpenedLLM, answer_all
from cuvee.generate.dials.contents import characteristic_words, find_words
from cuvee.generate.dials.slots import Slot, chosen_slots
from cuvee.generate.ledger import Ledger, settle_identity
from cuvee.generate.parsing import DRAFT, MISSING, NO_SOURCE, NOT_NEAREST, Parsed, pick_row
from cuvee.generate.prompts import PromptWriter, Question
from cuvee.records import Progress

# ``nearest(queries, candidates)``: for each query the index of the nearest candidate.
Nearest = Callable[[Sequence[str], Sequence[str]], Sequence[int]]
# ``refuse(texts)``: for each text why it may not become a row, or None.
Refuse = Callable[[Sequence[str]], Sequence[str | None]]
# ``agrees(texts, labels)``: for each text whether it has its label.
Agrees = Callable[[Sequence[str], Sequence[str]], Sequence[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceRules:
    """The rules for accepting an answer as a row, beyond being usable by itself and no copy.

    ``nearest`` is for a paraphrase, which must be nearer to its source than to any other base row; None skips that
    test, and the pool's note says so. ``refuse`` says of texts why they may not become rows (they leak held-out data,
    say). ``agrees`` says of texts with their labels which of them have it. ``grounded`` is the least share of an
    answer's content words that stand in its context, or in its text where it has none; None is any. ``keep_truncated``
    takes answers and drafts that ran into max_tokens, without their last, broken word. ``attempts`` are the answers a
    slot may be given, usable drafts not counted.
    """

    nearest: Nearest | None = None
    refuse: Refuse | None = None
    agrees: Agrees | None = None
    grounded: float | None = None
    keep_truncated: bool = False
    attempts: int = 6


class AcceptanceFilter:
    """Judges answers: each must be usable by itself and no copy, and must pass the other rules.

    Args:
        train: whose rows may not come back.
        writer: of the questions.
        rules: what is accepted.
    """

    def __init__(self, *, train: Corpus, writer: PromptWriter, rules: AcceptanceRules) -> None:
        self.writer, self.rules = writer, rules
        own = train.targets if writer.writing.kind == "reply" else train.texts
        self._training = {normalise_text(text) for text in own}
        self._fewest_turns = min([2, *(len(split_turns(text)) for text in train.texts)])
        self._taken: set[str] = set()
        self._longest = defects.longest_answer(train.targets) if writer.writing.pair else 0
        self._least_words = min([2, *(len(split_tokens(text)) for text in own)])
        self._refused: dict[str, str | None] = {}
        self._agreed: dict[tuple[str, str], bool] = {}

    def check_slots(self, slots: Iterable[Slot]) -> None:
        """Refuse slots that cannot be requested, before any request is sent.

        Raises:
            ConfigError: a slot without a stratum, too many seed examples, or drafts for a kind that has none.
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
            if slot.draft is not None and writing.is_single:
                served = ", ".join(name for name, other in parsing.WRITINGS.items() if not other.is_single)
                raise ConfigError(
                    f"dial 'base_then_refine' drafts texts, kind {writing.kind!r} has two sides; it serves: {served}"
                )

    def parse(self, slot: Slot, question: Question, answer: Answer) -> parsing.Parsed:
        """Judge an answer to a slot's question by itself. A usable draft has the reason ``DRAFT``: it is no row."""
        writing = self.writer.writing
        demands = parsing.Demands(
            shown=question.shown, shown_targets=question.shown_targets, avoided=question.avoided,
            wording=self.writer.wording_runs(slot, question), least_words=self._least_words,
            keep_truncated=self.rules.keep_truncated, lines=self.writer.lines,
        )  # fmt: skip
        label = slot.label if writing.kind == "label" else writing.text
        pair = writing if question.step == "row" and writing.is_single else None
        parsed = parsing.parse_answer(answer, demands, label=label, pair=pair)
        if parsed.target is not None and parsed.reason is None:
            return replace(parsed, reason=self._judge_pair(parsed.text, parsed.target, slot))
        if question.step != "draft" or parsed.reason is not None:
            return parsed
        is_copy = normalise_text(parsed.text) in self._training
        return replace(parsed, reason=parsing.COPY_OF_TRAINING if is_copy else parsing.DRAFT)

    def _judge_pair(self, text: str, target: str, slot: Slot) -> str | None:
        if self.writer.writing.kind == "conversation":
            turns = split_turns(text)
            if turns[-1][0] not in ("user", "tool") or len(turns) < self._fewest_turns:
                return parsing.MALFORMED
        source, least = self.writer.strata[slot.label].source, self.rules.grounded
        reason = defects.pair_reason(text, target, source, self._longest)
        if reason is None and least is not None and defects.grounded_share(target, source or text) < least:
            return defects.UNGROUNDED
        return reason

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

    def take(self, text: str) -> None:
        """Note that a text has become a row."""
        self._taken.add(normalise_text(text))

    def objection(self, text: str, label: str, source: str | None) -> str | None:
        """Why a usable text may not become a row of this label now; ``source`` is what it paraphrases."""
        normal = normalise_text(text)
        if source is not None and normal == normalise_text(source):
            return parsing.COPY_OF_SOURCE
        if normal in self._training:
            return parsing.COPY_OF_TRAINING
        if normal in self._taken:
            return parsing.DUPLICATE
        if (refused := self._refused.get(text)) is not None:
            return refused
        return None if self._agreed.get((text, label), True) else parsing.WRONG_LABEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An answer to a slot's question. ``reason`` says why it is no row; None where it is the slot's row.

    ``number`` counts the slot's answers before it; ``usable`` is whether it may become a row by itself. ``target`` and
    ``context`` are the answer's own, its stratum's, or those of the row that it paraphrases.
    """

    slot: Slot
    number: int
    question: Question
    answer: Answer
    text: str
    target: str
    context: str | None
    usable: bool
    reason: str | None


class Filling:
    """The slots that a level wants in one block, being filled.

    Slots are judged in their order. Each takes its first answer that is usable by itself, equals (normalised) no
    training row and no row of a slot before it, and, if it is a paraphrase, is nearer to its source than to any other
    base row. Of a pair the text is compared. A slot's outcome thus depends on the slots before it and on nothing else:
    not on timing, not on the slots after it, not on other levels.

    Slots are asked for in waves, each of which is settled before the next is begun: what a slot avoids comes before it,
    and base slots (without a parent) come before the first paraphrase. A slot with a draft takes turns: a draft until
    one is usable by itself, then its refinement; where that is rejected, it begins with another draft. Drafts become no
    rows, so they are among the rejected, as such. While requests of a round wait, what other slots will most likely be
    asked next is asked ahead; the rounds find those answers there when they come to them.

    A slot whose request failed has no row and is asked for no more; the others go on as if it had never been wanted.
    Its paraphrases have no source.

    Args:
        slots: base slots first, rounds in their order.
        judge: of the answers.
        name: tells apart slots of several dials, whose keys may be the same.
    """

    def __init__(self, slots: Iterable[Slot], judge: AcceptanceFilter, name: str = "") -> None:
        self.name = name
        self.slots = {slot.key: slot for slot in slots}
        self.attempts: dict[str, list[Attempt]] = {key: [] for key in self.slots}
        self.failed: dict[str, tuple[Question, Failure]] = {}
        self.rows: dict[str, Attempt] = {}
        self._judge = judge
        self._round: Mapping[str, Question] = {}
        self._is_nearest: dict[tuple[str, str], bool] = {}
        self._typical: dict[tuple[object, ...], tuple[str, ...]] = {}
        self._waves = settling_waves(list(self.slots.values()))

    def next_questions(self, find: Find, sent: Collection[Request]) -> Mapping[str, Question]:
        """What to ask now, by slot: the next round, or, while that waits, what can be asked ahead.

        Args:
            find: what came of a request so far.
            sent: requests that were answered, are under way, or wait to be tried again.
        """
        while True:
            self._round = self._round or self.open_questions()
            found = {key: (q, outcome) for key, q in self._round.items() if (outcome := find(q.request)) is not None}
            waiting = {key: q for key, q in self._round.items() if key not in found}
            fresh = {key: q for key, q in waiting.items() if q.request not in sent}
            if fresh or not self._round:
                return fresh
            if waiting:
                return self._without(waiting, found).next_questions(find, sent)
            self.give(found)

    def _without(self, waiting: Collection[str], found: Mapping[str, tuple[Question, Outcome]]) -> Filling:
        """This filling, as if the slots that wait, and those that avoid words of theirs, were not wanted."""
        gone = set(waiting)
        for slot in self.slots.values():
            if slot.avoid is not None and any(key in gone for keys in slot.avoid.rounds for key in keys):
                gone.add(slot.key)
        gone |= self.failed.keys()
        ahead = Filling([slot for slot in self.slots.values() if slot.key not in gone], self._judge)
        ahead.attempts = {key: list(self.attempts[key]) for key in ahead.slots}
        ahead.give({key: pair for key, pair in found.items() if key not in gone})
        return ahead

    def open_questions(self) -> dict[str, Question]:
        """For each slot that needs another answer, what to ask next; empty when all is settled."""
        for wave in self._waves:
            if questions := {slot.key: self._question(slot) for slot in self._open(wave)}:
                return questions
        return {}

    def give(self, outcomes: Mapping[str, tuple[Question, Outcome]]) -> None:
        """Add the answers and failures of questions, by slot key, and judge all slots again."""
        self._round = {}
        for key, (question, outcome) in outcomes.items():
            if isinstance(outcome, Failure):
                self.failed[key] = (question, outcome)
            else:
                self.attempts[key].append(self._parse(self.slots[key], question, outcome))
        if not self.failed.keys().isdisjoint(outcomes):
            self._waves = settling_waves([slot for slot in self.slots.values() if slot.key not in self.failed])
        self._judge.begin((made.text, made.slot.label) for made in self._usable())
        self.rows = {}
        for wave in self._waves:
            if wave[0].parent is not None:
                self._measure_nearest()
            for slot in wave:
                self._settle(slot)
            if self._open(wave):
                break

    def looks_usable(self, key: str, question: Question, answer: Answer) -> bool:
        """Whether an answer may become a row, judged by itself."""
        return self._parse(self.slots[key], question, answer).usable

    def _parse(self, slot: Slot, question: Question, answer: Answer) -> Attempt:
        writing, stratum = self._judge.writer.writing, self._judge.writer.strata[slot.label]
        own = answer if question.place is None else pick_row(answer, question.place)
        answer = own or replace(answer, text="")
        parsed = self._judge.parse(slot, question, own) if own else Parsed(text="", reason=MISSING)
        source = self.rows.get(slot.parent or "")
        target = parsed.target if parsed.target is not None else stratum.source or slot.label
        return Attempt(
            slot=slot,
            number=len(self.attempts[slot.key]),
            question=question,
            answer=answer,
            text=parsed.text,
            target=target if source is None else source.target,
            context=(stratum.source if writing.pair else None) if source is None else source.context,
            usable=parsed.reason is None,
            reason=parsed.reason,
        )

    def _usable(self) -> list[Attempt]:
        return [made for tries in self.attempts.values() for made in tries if made.usable]

    def _open(self, slots: Sequence[Slot]) -> list[Slot]:
        """Slots without a row that may be asked for again."""
        return [
            slot
            for slot in slots
            if slot.key not in self.rows
            and sum(made.reason != DRAFT for made in self.attempts[slot.key]) < self._judge.rules.attempts
            and (slot.parent is None or slot.parent in self.rows)
        ]

    def _question(self, slot: Slot) -> Question:
        tries, ask = self.attempts[slot.key], self._judge.writer.ask
        if slot.parent is not None:
            source = self.rows[slot.parent]
            seed_ids = source.question.seed_ids
            return ask(slot, len(tries), step="paraphrase", source=source.text, seed_ids=seed_ids)
        avoided = self._words_to_avoid(slot)
        if slot.draft is None:
            return ask(slot, len(tries), avoided)
        if not tries or tries[-1].reason != DRAFT:
            return ask(slot, len(tries), avoided, step="draft")
        draft, seed_ids = tries[-1].text, tries[-1].question.seed_ids
        return ask(slot, len(tries), avoided, step="refinement", source=draft, seed_ids=seed_ids)

    def _words_to_avoid(self, slot: Slot) -> tuple[str, ...]:
        """The most characteristic words of each round before the slot's own, but none that says what is wanted."""
        if slot.avoid is None:
            return ()
        writer = self._judge.writer
        about = slot.label if writer.writing.kind == "label" else writer.strata[slot.label].source
        said = [about or "", slot.topic or "", *(part for pair in slot.attributes for part in pair)]
        wanted = frozenset(word for text in said for word in find_words(text.replace("_", " ")))
        words: dict[str, None] = {}
        for keys in slot.avoid.rounds:
            known = (slot.label, keys, slot.avoid.words, wanted)
            if known not in self._typical:
                texts: dict[str, list[str]] = {}
                for row in (self.rows[key] for key in keys if key in self.rows):
                    texts.setdefault(row.slot.label, []).append(row.text)
                self._typical[known] = characteristic_words(texts, slot.label, slot.avoid.words, exclude=wanted)
            words |= dict.fromkeys(self._typical[known])
        return tuple(words)

    def _settle(self, slot: Slot) -> None:
        """Give a slot its first answer that nothing speaks against."""
        source = self.rows.get(slot.parent or "")
        if source is None and slot.parent is not None:
            return
        tries = self.attempts[slot.key]
        for made in tries:
            reason = made.reason
            if made.usable:
                reason = self._judge.objection(made.text, slot.label, None if source is None else source.text)
                if reason is None and not self._is_nearest.get((made.text, slot.parent or ""), True):
                    reason = NOT_NEAREST
            tries[made.number] = replace(made, reason=reason)
            if reason is None:
                self._judge.take(made.text)
                self.rows[slot.key] = tries[made.number]
                break

    def _measure_nearest(self) -> None:
        """Find the nearest base row of every usable paraphrase not yet measured, in one call."""
        if self._judge.rules.nearest is None:
            return
        base = [self.rows[slot.key] for slot in self.slots.values() if slot.parent is None and slot.key in self.rows]
        pairs = ((made.text, made.slot.parent or "") for made in self._usable())
        queries = [pair for pair in dict.fromkeys(pairs) if pair[1] and pair not in self._is_nearest]
        if queries:
            found = self._judge.rules.nearest([text for text, _ in queries], [row.text for row in base])
            for (text, parent), index in zip(queries, found, strict=True):
                self._is_nearest[text, parent] = base[int(index)].slot.key == parent

    # --- what came of it ---
    def row(self, slot: Slot) -> Attempt | None:
        """The slot's row, or its substitute's."""
        return self.rows.get(slot.key) or self.rows.get(slot.substitute or "")

    def needed(self) -> list[str]:
        """The slots that the level's rows hang on, in alphabetical order: substitutes only where they are used."""
        chosen = chosen_slots(self.slots.values())
        spare = {slot.substitute for slot in chosen if slot.substitute and slot.key not in self.rows}
        return sorted({slot.key for slot in chosen} | spare)

    def objections(self, key: str) -> list[str]:
        """Why each answer to a slot became no row, in order; that it has no source, where it had no answer."""
        row, parent = self.rows.get(key), self.slots[key].parent
        if parent is not None and parent not in self.rows and key not in self.failed:
            return [NO_SOURCE]
        return [made.reason or "" for made in self.attempts[key][: None if row is None else row.number]]


def settling_waves(slots: Sequence[Slot]) -> list[list[Slot]]:
    """Slots in the groups in which they are settled: base slots after what they avoid, then paraphrases.

    A slot that is named but missing (its request failed for good) is not waited for.
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


# --- asking until every slot has its row, its answers are used up, or its request failed for good ---
def fill_slots(
    fillings: Sequence[Filling], llm: OpenedLLM, ledger: Ledger, *, total: int, progress: Progress | None = None
) -> None:
    """Ask the open slots of all fillings together, each distinct request once; none waits for another.

    While requests wait for their next try, what does not depend on them goes on. A request that failed for good, now or
    in an earlier run, is not sent again until the ledger forgets its failure.

    Args:
        fillings: whose slots are asked for.
        llm: what is asked.
        ledger: its answers and failures so far.
        total: rows wanted, for progress.
        progress: called with (rows so far, rows wanted).
    """
    asked: dict[Request, tuple[Filling, str, Question]] = {}
    filled: set[tuple[str, str]] = set()
    shown = -1

    def show() -> None:
        """Report progress: back too, where an answer that looked usable turned out to be none."""
        nonlocal shown
        if progress is not None and len(filled) != shown:
            shown = len(filled)
            progress(shown, total)

    def look(request: Request, answer: Answer) -> None:
        """Count a row that an answer will most likely be."""
        filling, key, question = asked[request]
        if filling.looks_usable(key, question, answer):
            filled.add((filling.name, key))
        show()

    def wanted(find: Find) -> list[Request]:
        fresh: dict[Request, tuple[Filling, str, Question]] = {}
        for filling in fillings:
            for key, question in filling.next_questions(find, asked).items():
                fresh.setdefault(question.request, (filling, key, question))
        asked.update(fresh)
        filled.clear()
        filled.update((filling.name, key) for filling in fillings for key in filling.rows)
        show()
        # prompts that share a prefix stand together: the client gives each run of them to one slot of the endpoint
        return sorted(fresh, key=lambda r: (r.model or "", r.prompt or "", r.messages))

    answer_all(replace(llm, endpoint=settle_identity(llm.endpoint, ledger)), ledger, wanted, look)
