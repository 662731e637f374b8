"""Which answers become rows. Pure: the outcome depends on the answers, never on when they came."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from cuvee.corpus import Corpus, normalise_text, split_tokens
from cuvee.errors import ConfigError
from cuvee.generate import parsing
from cuvee.generate.calls import Answer
from cuvee.generate.dials.slots import Slot
from cuvee.generate.prompts import PromptWriter, Question

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
    say). ``agrees`` says of texts with their labels which of them have it. ``keep_truncated`` takes answers
    and drafts that ran into max_tokens, without their last, broken word. ``attempts`` are the answers a slot may be
    given, usable drafts not counted.
    """

    nearest: Nearest | None = None
    refuse: Refuse | None = None
    agrees: Agrees | None = None
    keep_truncated: bool = False
    attempts: int = 6


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
        self._taken: set[str] = set()
        shortest = min((len(split_tokens(text)) for text in train.texts), default=2)
        self._least_words = min(2, shortest) if least_words is None else least_words
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
            if slot.draft is not None and writing.pair:
                served = ", ".join(name for name, other in parsing.WRITINGS.items() if not other.pair)
                raise ConfigError(
                    f"dial 'base_then_refine' drafts a text alone, and kind {writing.kind!r} has two sides; kinds that "
                    f"it serves: {served}"
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
