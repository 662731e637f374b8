"""From filled slots to pools, with an account of every slot."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from cuvee.corpus import Corpus, replace_text
from cuvee.errors import GenerationError, RunFolderError
from cuvee.fingerprint import hash_texts
from cuvee.generate.acceptance import Row
from cuvee.generate.dials.slots import Slot
from cuvee.generate.filling import FailedSlot, Filling, Rounds
from cuvee.generate.parsing import (
    CHATTER,
    COPY_OF_PROMPT,
    COPY_OF_TRAINING,
    DRAFT,
    DUPLICATE,
    EMPTY,
    MALFORMED,
    NEAR_COPY,
    NEAR_DUPLICATE,
    NO_SOURCE,
    TRUNCATED,
    WRONG_LABEL,
)
from cuvee.generate.prompts import Wordings
from cuvee.generate.strata import WRITINGS, Kind
from cuvee.records import Level, Rejected, Usage
from cuvee.records.generation import Quarantined

_Failed = Mapping[str, FailedSlot]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The synthetic corpus of one level.

    ``rejected`` holds every answer to one of its slots that became no row, ``short`` how many rows are
    missing, ``usage`` what its rows cost (levels share rows, so the sum over levels counts some twice; the
    ledger has the total), ``note`` what else a reader of the pool should know. ``accounting`` says what became of every
    slot and answer, ``quarantine`` holds the raw rejected answers and the failed requests, ``provenance`` the request
    behind each row of ``corpus``, in the same order.
    """

    level: Level
    corpus: Corpus
    rejected: tuple[Rejected, ...]
    usage: Usage
    note: str
    short: int
    accounting: Accounting
    quarantine: tuple[Quarantined, ...]
    provenance: tuple[RowProvenance, ...]

    def __str__(self) -> str:
        reasons = ", ".join(f"{n} {why}" for why, n in Counter(r.reason for r in self.rejected).most_common())
        lines = [f"{self.level.key}: {len(self.corpus)} rows, {self.short} short; rejected: {reasons or 'none'}"]
        return "\n".join([*lines, self.note] if self.note else lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What all pools of one generation have in common. ``tested``: paraphrases were, for being nearest.

    ``each``: a pool lacking rows of some stratum is of no use, as a label without rows is, unlike a passage.
    """

    train: Corpus
    model: str
    wordings: Wordings
    kind: Kind
    each: bool
    tested: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A level's slots of one batch, with what filled them."""

    slots: tuple[Slot, ...]
    filling: Filling

    def row(self, slot: Slot) -> Row | None:
        """The slot's row, or its substitute's."""
        rows = self.filling.rows
        return rows.get(slot.key) or (rows.get(slot.substitute) if slot.substitute is not None else None)

    def keys(self) -> set[str]:
        """Of all slots that the level needs, substitutes where they are used."""
        unfilled = [s for s in self.slots if s.key not in self.filling.rows]
        return {s.key for s in self.slots} | {s.substitute for s in unfilled if s.substitute is not None}


def compose_pool(level: Level, parts: Sequence[Part], making: Making, rounds: Rounds) -> Pool:
    """The pool of a level from the parts that its batches fill.

    Raises:
        GenerationError: some label and block has no row at all; or, with passages or contexts, none of them has.
    """
    placed = [(slot, part) for part in parts for slot in part.slots]
    placed.sort(key=lambda pair: (pair[0].block, pair[0].label, pair[0].order))
    slots = [slot for slot, _ in placed]
    found = [(row, part) for slot, part in placed if (row := part.row(slot)) is not None]
    rows = [row for row, _ in found]
    books = {id(part): _Book(part, rounds) for part in parts}
    failed = {key: slot for book in books.values() for key, slot in book.failed.items()}
    rejected = [r for book in books.values() for r in book.rejected]
    if making.each or not rows:
        _refuse_empty(level, slots, rows, rejected, failed)
    corpus = _corpus(level, rows, making)
    asked = [question for part in parts for key in part.keys() for question in part.filling.asked(key)]
    return Pool(
        level=level,
        corpus=corpus,
        rejected=tuple(rejected),
        usage=rounds.usage(asked),
        note=_note(slots, rows, failed, making.tested),
        short=len(slots) - len(rows),
        accounting=count_slots(
            [books[id(part)].end(slot) for slot, part in placed], add_answers(b.answers() for b in books.values())
        ),
        quarantine=tuple(q for book in books.values() for q in book.quarantined()),
        provenance=tuple(
            books[id(part)].trace(row, name, making) for name, (row, part) in zip(corpus.ids, found, strict=True)
        ),
    )


def _corpus(level: Level, rows: Sequence[Row], making: Making) -> Corpus:
    pairs = WRITINGS[making.kind].pair
    ids = {row.slot.key: _row_id(level.dial, row, pairs=pairs) for row in rows}
    sources = {row.slot.parent for row in rows}
    return Corpus.from_rows(
        [
            {
                "id": ids[row.slot.key],
                "text": row.text,
                "target": row.target,
                "context": row.context,
                "group": ids[row.slot.parent or row.slot.key] if row.slot.parent or row.slot.key in sources else None,
                "seed_ids": list(row.seed_ids),
                "dial": level.dial,
                "level": level.name,
                "block": row.slot.block,
                "generator": making.model,
            }
            for row in rows
        ],
        origin="synthetic",
        task=making.train.task,
    )


def _row_id(dial: str, row: Row, *, pairs: bool) -> str:
    parts = [row.slot.key, row.slot.label, row.text, *([row.target] if pairs else [])]
    return f"{dial}-{hash_texts(parts)[:16]}"


# --- the books ------------------------------------------------------------------------------------
class _Book:
    """What became of every answer and request among the slots that a level needs of one batch."""

    def __init__(self, part: Part, rounds: Rounds) -> None:
        self._part = part
        self._filling = part.filling
        self._rounds = rounds
        self._keys = part.keys()
        self.rejected = [r for r in part.filling.rejected if r.slot in self._keys]
        self.failed = {key: slot for key, slot in part.filling.failed.items() if key in self._keys}
        self._objections: dict[str, list[str]] = {}
        for r in self.rejected:
            self._objections.setdefault(r.slot, []).append(r.reason)

    def answers(self) -> AnswerCounts:
        """Of the answers to these slots."""
        return AnswerCounts(
            received=sum(len(self._filling.asked(key)) for key in self._keys),
            accepted=sum(key in self._filling.rows for key in self._keys),
            rejected=Counter(r.reason for r in self.rejected if r.reason != NO_SOURCE),
        )

    def end(self, slot: Slot) -> SlotEnd:
        """How one of the level's slots ended."""
        if self._part.row(slot) is not None:
            return SlotEnd()
        if (failed := self.failed.get(slot.key)) is not None:
            return SlotEnd(reason=failed.failure.reason, failed=True)
        # a paraphrase without a source ends as its source did
        return SlotEnd(reason=self._objections[slot.key][-1], failed=slot.parent in self._filling.failed)

    def quarantined(self) -> list[Quarantined]:
        """Every rejected answer as it came, and after a slot's answers the request that failed."""
        made: list[Quarantined] = []
        for key in sorted(self._keys):
            asked = self._filling.asked(key)
            for attempt, reason in enumerate(self._objections.get(key, ())):
                known = asked[attempt] if reason != NO_SOURCE else None
                text = "" if known is None else self._rounds.answer(known).text
                name = "" if known is None else self._rounds.key(known)
                made.append(Quarantined(slot=key, reason=reason, attempt=attempt, text=text, request_key=name))
            if (failed := self.failed.get(key)) is not None:
                reason = ": ".join(part for part in (failed.failure.reason, failed.failure.message) if part)
                name = self._rounds.key(failed.question)
                made.append(Quarantined(slot=key, reason=reason, attempt=len(asked), text="", request_key=name))
        return made

    def trace(self, row: Row, name: str, making: Making) -> RowProvenance:
        """The request whose answer became a row: the first one that was not rejected."""
        before = len(self._objections.get(row.slot.key, ()))
        asked = self._filling.asked(row.slot.key)
        question = asked[before]
        request = question.request
        return RowProvenance(
            id=name,
            slot=row.slot.key,
            request_key=self._rounds.key(question),
            model=making.model,
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            min_p=request.sampling.min_p,
            top_k=request.sampling.top_k,
            max_tokens=request.sampling.max_tokens,
            seed=request.seed,
            replicate=request.replicate,
            prompt_hash=making.wordings.hash(row.slot, question),
            attempts=before + 1,
            draft_key=self._rounds.key(asked[before - 1]) if question.step == "refinement" else None,
            draft_model=self._rounds.model(asked[before - 1]) if question.step == "refinement" else None,
        )


# --- words for the reader -------------------------------------------------------------------------
def _note(slots: Sequence[Slot], rows: Sequence[Row], failed: _Failed, tested: bool) -> str:
    parts = []
    if len(rows) < len(slots):
        parts.append(f"{len(slots) - len(rows)} of {len(slots)} rows could not be filled")
    if failed:
        parts.append(f"{_causes(failed)}; retry failed requests to ask again")
    asked = sum(slot.parent is not None for slot in slots)
    if asked:
        made = sum(row.slot.parent is not None for row in rows)
        places = len({(slot.label, slot.block) for slot in slots})
        kept = "; the base row is kept for the rest" if made < asked else ""
        parts.append(
            f"m_r realised: {made / places:.3g} of {asked / places:.3g} rows a label and block "
            f"({made} of {asked} paraphrases{kept})"
        )
        if not tested:
            parts.append("paraphrases were not tested for being nearest to their source")
    return "; ".join(parts)


def _causes(failed: _Failed) -> str:
    counted = Counter(slot.failure.reason for slot in failed.values())
    kinds = ", ".join(f"{n} {reason}" for reason, n in counted.most_common())
    return f"{len(failed)} {'request' if len(failed) == 1 else 'requests'} failed for good ({kinds})"


def _refuse_empty(
    level: Level, slots: Sequence[Slot], rows: Sequence[Row], rejected: Sequence[Rejected], failed: _Failed
) -> None:
    filled = {(row.slot.label, row.slot.block) for row in rows}
    empty = next((slot for slot in slots if (slot.label, slot.block) not in filled), None)
    if empty is None:
        return
    keys = {slot.key for slot in slots if (slot.label, slot.block) == (empty.label, empty.block)}
    mine = [r for r in rejected if r.slot in keys and r.reason != NO_SOURCE]
    lost = {key: slot for key, slot in failed.items() if key in keys}
    where = f"{level.key}: no usable row for label {empty.label!r} in block {empty.block}"
    if len(lost) >= len(mine):
        said = next((slot.failure.message for slot in lost.values() if slot.failure.message), "nothing")
        raise GenerationError(
            f"{where}; {_causes(lost)}; the endpoint said: {said}; see what is wrong there, then forget these failures "
            "to ask again"
        )
    reason, count = Counter(r.reason for r in mine).most_common(1)[0]
    example = next(r.text for r in mine if r.reason == reason)
    remedy = REMEDIES.get(reason, "try another model or prompt")
    raise GenerationError(
        f"{where}; {count} of {len(mine)} answers were rejected as {reason} (such as {example[:80]!r}); {remedy}"
    )


# --- what became of every slot and every answer: requested = accepted + quarantined + failed. Pure ---
@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCounts:
    """Answers that were judged for the slots of a pool; ``received`` is ``accepted`` plus ``rejected``.

    Levels share answers, so the sum over pools counts some of them twice; the ledger has the total.

    Raises:
        ValueError: the numbers do not add up.
    """

    received: int
    accepted: int
    rejected: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.received != self.accepted + sum(self.rejected.values()):
            raise ValueError(
                f"{self.received} answers are not {self.accepted} accepted and {dict(self.rejected)!r} rejected"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """What became of the slots of a pool; ``requested`` is ``accepted`` plus ``quarantined`` plus ``failed``.

    ``accepted`` slots have a row, their own or their substitute's. ``quarantined`` slots have none although answers
    came, for them or for the source they were to paraphrase; ``failed`` ones because a request failed
    for good. ``by_reason`` counts the slots without a row by what was last wrong with them.

    Raises:
        ValueError: the numbers do not add up.
    """

    requested: int
    accepted: int
    quarantined: int
    failed: int
    by_reason: Mapping[str, int]
    answers: AnswerCounts

    def __post_init__(self) -> None:
        without = self.quarantined + self.failed
        if self.requested != self.accepted + without or without != sum(self.by_reason.values()):
            raise ValueError(
                f"{self.requested} requested slots are not {self.accepted} accepted, {self.quarantined} quarantined "
                f"and {self.failed} failed, for the reasons {dict(self.by_reason)!r}"
            )

    def __str__(self) -> str:
        reasons = ", ".join(f"{n} {why}" for why, n in Counter(self.by_reason).most_common())
        return (
            f"{self.requested} requested = {self.accepted} accepted + {self.quarantined} quarantined + "
            f"{self.failed} failed{f' ({reasons})' if reasons else ''}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotEnd:
    """How a slot ended. ``reason`` is None where it has a row; ``failed`` says that a request failed for good."""

    reason: str | None = None
    failed: bool = False


def count_rejected(rejected: Iterable[Rejected | Quarantined]) -> dict[str, int]:
    """Answers that became no row, by reason, the most frequent first.

    A draft that was refined is none of them, nor is a paraphrase whose source has no row: it had no answer.
    """
    return dict(Counter(r.reason for r in rejected if r.reason not in (DRAFT, NO_SOURCE)).most_common())


def count_slots(ends: Iterable[SlotEnd], answers: AnswerCounts) -> Accounting:
    """Add up how slots ended."""
    ended = list(ends)
    without = [end for end in ended if end.reason is not None]
    failed = sum(end.failed for end in without)
    return Accounting(
        requested=len(ended),
        accepted=len(ended) - len(without),
        quarantined=len(without) - failed,
        failed=failed,
        by_reason=dict(sorted(Counter(str(end.reason) for end in without).items())),
        answers=answers,
    )


def add_answers(counts: Iterable[AnswerCounts]) -> AnswerCounts:
    """The sum of several counts, reasons in alphabetical order."""
    parts = list(counts)
    rejected: Counter[str] = Counter()
    for part in parts:
        rejected.update(part.rejected)
    return AnswerCounts(
        received=sum(part.received for part in parts),
        accepted=sum(part.accepted for part in parts),
        rejected=dict(sorted(rejected.items())),
    )


# --- where each row of a pool came from: a side table, so that the corpus keeps its columns ---
PROVENANCE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # the row's, as in the corpus
        pa.field("slot", pa.string(), nullable=False),
        pa.field("request_key", pa.string(), nullable=False),  # as in the ledger
        pa.field("model", pa.string(), nullable=False),
        pa.field("temperature", pa.float64(), nullable=False),
        pa.field("top_p", pa.float64(), nullable=False),
        pa.field("min_p", pa.float64()),
        pa.field("top_k", pa.int64()),
        pa.field("max_tokens", pa.int64(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("replicate", pa.int64(), nullable=False),
        pa.field("prompt_hash", pa.string(), nullable=False),
        pa.field("attempts", pa.int64(), nullable=False),
        pa.field("draft_key", pa.string()),  # of the request whose answer the row refines
        pa.field("draft_model", pa.string()),  # that answered it
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowProvenance:
    """The request whose answer became a row.

    ``id`` is the row's in its corpus, where dial, level and seed examples are columns. ``prompt_hash`` is that of the
    prompt's wording, the same for all rows asked for in the same words. ``attempts`` counts the slot's answers up to
    this one, drafts included; ``draft_key`` is the request whose answer the row refines, ``draft_model`` wrote it.
    """

    id: str
    slot: str
    request_key: str
    model: str
    temperature: float
    top_p: float
    min_p: float | None
    top_k: int | None
    max_tokens: int
    seed: int
    replicate: int
    prompt_hash: str
    attempts: int
    draft_key: str | None = None
    draft_model: str | None = None


def provenance_table(pool: Pool) -> pa.Table:
    """One line for each row of a pool, in the order of its rows, with the columns of ``PROVENANCE_SCHEMA``."""
    return pa.Table.from_pylist([asdict(row) for row in pool.provenance], schema=PROVENANCE_SCHEMA)


# --- the quarantine: every answer that became no row, in a file one can read, search and learn from ---
def write_quarantine(pools: Sequence[Pool], path: str | Path) -> int:
    """Write what was rejected from these pools as JSONL: dial, level, slot, reason, attempt, text, request_key.

    Levels share slots, so one answer may stand under several of them.

    Returns:
        How many lines were written.

    Raises:
        InputError: the file cannot be written.
    """
    lines = [
        json.dumps({"dial": pool.level.dial, "level": pool.level.name, **asdict(row)}, ensure_ascii=False)
        for pool in pools
        for row in pool.quarantine
    ]
    replace_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


# --- what a user can do where answers of some kind are rejected again and again ---
REMEDIES = {
    TRUNCATED: "raise max_tokens",
    DUPLICATE: "raise the temperature, give more seed examples, or ask for fewer rows",
    COPY_OF_TRAINING: "raise the temperature",
    COPY_OF_PROMPT: "raise the temperature",
    EMPTY: "check the model and api: chat or completions",
    CHATTER: "use api: completions, or a larger model",
    MALFORMED: "use a larger model, or api: chat with one that answers in JSON",
    NEAR_DUPLICATE: "raise the temperature, or near_duplicate",
    NEAR_COPY: "raise the temperature, or near_duplicate",
    WRONG_LABEL: "check the labels of the training rows, or check no labels",
}
"""Reason of rejection -> remedy."""


def read_quarantine(path: Path) -> Iterator[Quarantined]:
    """What :func:`write_quarantine` wrote.

    Raises:
        RunFolderError: a line is none of its lines.
    """
    number = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                number += 1
                row = json.loads(line)
                yield Quarantined(**{name: row[name] for name in Quarantined.__slots__})
    except (ValueError, KeyError, TypeError) as exc:
        raise RunFolderError(
            f"{path}, line {number}: damaged; delete the pool beside it, and the next cuvee run makes both again from "
            "the answers in ledger.sqlite, without a request"
        ) from exc
