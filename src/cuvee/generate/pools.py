"""Pools: the rows of each level of a dial, asked for once and composed many times, with what became of every slot."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from cuvee.corpus import Corpus, replace_text
from cuvee.errors import ConfigError, GenerationError, RunFolderError
from cuvee.fingerprint import hash_texts
from cuvee.generate.calls import Endpoint, Request, Sampling, request_key
from cuvee.generate.client import OpenedLLM
from cuvee.generate.dials.slots import Dial, Slot, chosen_slots, wanted_slots
from cuvee.generate.filling import AcceptanceFilter, AcceptanceRules, Attempt, Filling, fill_slots
from cuvee.generate.ledger import Ledger, settle_identity
from cuvee.generate.parsing import DRAFT, NO_SOURCE, REMEDIES, Kind
from cuvee.generate.prompts import PromptWriter, WritingSpec
from cuvee.masking import LOCAL
from cuvee.records import Level, Progress, Rejected, Shown
from cuvee.records.generation import Quarantined
from cuvee.registry import nearest_name


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Pool(Shown):
    """The synthetic corpus of one level.

    ``requested`` counts the rows wanted. ``quarantine`` holds every answer to one of its slots that became no row, as
    it came, and the failed requests; ``note`` is what else a reader of the pool should know. ``provenance`` is a table
    of the request behind each row of ``corpus``, in the same order.
    """

    level: Level
    corpus: Corpus
    requested: int
    note: str
    quarantine: tuple[Quarantined, ...]
    provenance: pa.Table

    @property
    def rejected(self) -> tuple[Quarantined, ...]:
        """Every answer that became no row, and every paraphrase without a source."""
        return tuple(row for row in self.quarantine if not row.failed)

    @property
    def short(self) -> int:
        """How many rows are missing."""
        return self.requested - len(self.corpus)

    def __str__(self) -> str:
        reasons = ", ".join(f"{n} {why}" for why, n in Counter(r.reason for r in self.rejected).most_common())
        lines = [f"{self.level.key}: {len(self.corpus)} rows, {self.short} short; rejected: {reasons or 'none'}"]
        return "\n".join([*lines, self.note] if self.note else lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSpec(WritingSpec):
    """What is written for a dial, in how many draws, and what is accepted; the other arguments are of the base.

    What is written follows the task of the training rows: a text for a label (classification), a query for a passage
    (retrieval), a question with its answer over a context, an instruction with its response, or a story (generation).
    Dials deal rows to labels, to passages or contexts, or, where nothing is given, to the one stratum ``any``.

    Args:
        rows_per_label: rows of each label, passage or context in a block; of all where there are none.
        blocks: numbers of the generation draws.
        rules: what is accepted.

    Raises:
        ValueError: rows_per_label below 1.
    """

    rows_per_label: int
    blocks: Sequence[int] = (0,)
    rules: AcceptanceRules = field(default_factory=AcceptanceRules)

    def __post_init__(self) -> None:
        if self.rows_per_label < 1:
            raise ValueError(f"rows_per_label {self.rows_per_label!r}; must be 1 or more")

    def slots(self, dial: Dial, strata: Collection[str], levels: Sequence[str]) -> Mapping[str, Slot]:
        """What these levels of a dial ask for, by key."""
        return wanted_slots(dial, list(strata), blocks=self.blocks, rows_per_label=self.rows_per_label, levels=levels)


class PoolMaker:
    """The pools of several levels of a dial: prepared, then filled (with those of other dials), then composed.

    Args:
        train: real training rows: the labels, passages or contexts, and the seed examples.
        spec: what is written.
        dial: what is varied.
        endpoint: of the LLM that writes.
        levels: names of the dial's levels; None is all.

    Raises:
        ConfigError: an unknown level, a dial that does not fit labels and rows, a kind that does not fit the task, no
            passages or contexts for a kind that needs them, labels to check where there are none, or a draft model for
            an LLM in this process, which has one model.
    """

    def __init__(
        self, train: Corpus, spec: GenerationSpec, dial: Dial, endpoint: Endpoint, levels: Sequence[str] | None = None
    ) -> None:
        self._train, self._spec, self._endpoint = train, spec, endpoint
        chosen = _choose_levels(dial, levels)
        writer = PromptWriter(train, spec, endpoint.api)
        kind, strata = writer.writing.kind, writer.strata
        if spec.rules.agrees is not None and kind != "label":
            raise ConfigError(f"agrees checks labels, and rows of the kind {kind!r} have none; leave it out")
        wanted = spec.slots(dial, strata, [level.name for level in chosen])
        if endpoint.identity.startswith(LOCAL) and any(slot.draft and slot.draft.model for slot in wanted.values()):
            raise ConfigError(
                f"draft_model of dial {dial.name!r} needs an endpoint that serves it; this LLM serves one"
            )
        self._judge = AcceptanceFilter(train=train, writer=writer, rules=spec.rules)
        self._judge.check_slots(wanted.values())
        self._fillings = {
            level: [
                Filling(dial.slots(level.name, list(strata), block, spec.rows_per_label), self._judge, dial.name)
                for block in spec.blocks
            ]
            for level in chosen
        }
        self.rows = len(wanted)
        # a pool lacking rows of some stratum is of no use, as a label without rows is, unlike a passage
        self._each = kind == "label" or len(strata) == 1

    @property
    def fillings(self) -> list[Filling]:
        """What is to be filled, level after level."""
        return [filling for fillings in self._fillings.values() for filling in fillings]

    def compose(self, ledger: Ledger) -> tuple[Pool, ...]:
        """One pool a level, from the least diverse, of what was filled.

        Args:
            ledger: that answers were put into.

        Raises:
            GenerationError: some label and block has no row at all; or, with passages or contexts, none of them has.
        """
        endpoint = settle_identity(self._endpoint, ledger)
        return tuple(self._compose(level, fillings, endpoint) for level, fillings in self._fillings.items())

    def _compose(self, level: Level, fillings: Sequence[Filling], endpoint: Endpoint) -> Pool:
        placed = [(slot, filling) for filling in fillings for slot in chosen_slots(filling.slots.values())]
        placed.sort(key=lambda pair: (pair[0].block, pair[0].label, pair[0].order))
        slots = [slot for slot, _ in placed]
        found = [(row, filling) for slot, filling in placed if (row := filling.row(slot)) is not None]
        rows = [row for row, _ in found]
        quarantine = tuple(row for filling in fillings for row in _list_quarantined(filling, endpoint))
        if self._each or not rows:
            _refuse_empty(level, slots, rows, quarantine)
        corpus = self._make_corpus(level, rows)
        return Pool(
            level=level,
            corpus=corpus,
            requested=len(slots),
            note=self._note(slots, rows, [row for row in quarantine if row.failed]),
            quarantine=quarantine,
            provenance=self._trace(found, corpus.ids, endpoint),
        )

    def _make_corpus(self, level: Level, rows: Sequence[Attempt]) -> Corpus:
        writing = self._judge.writer.writing
        of_chats = writing.kind in ("reply", "turn")  # rows of one conversation are one group
        ids = {
            row.slot.key: f"{level.dial}-{hash_texts([row.slot.key, row.slot.label, row.text, *target])[:16]}"
            for row in rows
            for target in [[row.target] if writing.pair else []]
        }
        sources = {row.slot.parent for row in rows}
        together: dict[Request, str] = {}
        for row in rows:
            if row.question.place is not None:
                together.setdefault(row.question.request, ids[row.slot.key])
        alone = {row.slot.key: together.get(row.question.request) for row in rows}
        return Corpus.from_rows(
            [
                {
                    "id": ids[row.slot.key],
                    **dict(zip(_SIDES, writing.compose(row.text, row.target, row.context), strict=True)),
                    "group": alone[row.slot.parent or row.slot.key]
                    or (ids[row.slot.parent or row.slot.key] if row.slot.parent or row.slot.key in sources else None)
                    or (row.slot.label if of_chats else None),
                    "seed_ids": list(row.question.seed_ids),
                    "dial": level.dial,
                    "level": level.name,
                    "block": row.slot.block,
                    "generator": self._endpoint.model,
                }
                for row in rows
            ],
            origin="synthetic",
            task=self._train.task,
        ).formed_like(self._train)

    def _trace(self, found: Iterable[tuple[Attempt, Filling]], ids: Sequence[str], endpoint: Endpoint) -> pa.Table:
        """The request whose answer became each row, under its key in the ledger.

        ``prompt_hash`` is that of the wording, the same for rows asked for in one; ``attempts`` are the slot's answers
        up to this one, drafts included; ``draft_key`` is of the request whose answer the row refines, ``draft_model``
        answered it.
        """
        made = []
        for (row, filling), id_ in zip(found, ids, strict=True):
            request, asked = row.question.request, filling.attempts[row.slot.key]
            draft = asked[row.number - 1].question.request if row.question.step == "refinement" else None
            made.append(
                {
                    "id": id_,
                    "slot": row.slot.key,
                    "request_key": request_key(endpoint, request),
                    "model": endpoint.model,
                    **{name: getattr(request.sampling, name) for name in _SAMPLING},
                    "seed": request.seed,
                    "replicate": request.replicate,
                    "prompt_hash": self._judge.writer.hash_wording(row.slot, row.question),
                    "attempts": row.number + 1,
                    "draft_key": None if draft is None else request_key(endpoint, draft),
                    "draft_model": None if draft is None else draft.model or endpoint.model,
                }
            )
        return pa.Table.from_pylist(made)

    def _note(self, slots: Sequence[Slot], rows: Sequence[Attempt], failed: Sequence[Quarantined]) -> str:
        """What a reader of the pool should know."""
        parts = []
        if len(rows) < len(slots):
            parts.append(f"{len(slots) - len(rows)} of {len(slots)} rows could not be filled")
        if failed:
            parts.append(f"{_name_causes(failed)}; retry failed requests to ask again")
        if asked := sum(slot.parent is not None for slot in slots):
            made = sum(row.slot.parent is not None for row in rows)
            places = len({(slot.label, slot.block) for slot in slots})
            kept = "; the base row is kept for the rest" if made < asked else ""
            parts.append(
                f"m_r realised: {made / places:.3g} of {asked / places:.3g} rows a label and block "
                f"({made} of {asked} paraphrases{kept})"
            )
            if self._spec.rules.nearest is None:
                parts.append("paraphrases were not tested for being nearest to their source")
        return "; ".join(parts)


_SIDES = ("text", "target", "context")
_SAMPLING = ("temperature", "top_p", "min_p", "top_k", "max_tokens")


def _list_quarantined(filling: Filling, endpoint: Endpoint) -> Iterator[Quarantined]:
    """Every rejected answer, unchanged; after the answers of a slot its failed request."""
    for key in filling.needed():
        for number, reason in enumerate(filling.objections(key)):
            made = None if reason == NO_SOURCE else filling.attempts[key][number]
            text, name = ("", "") if made is None else (made.answer.text, request_key(endpoint, made.question.request))
            yield Quarantined(slot=key, reason=reason, attempt=number, text=text, request_key=name)
        if key in filling.failed:
            question, failure = filling.failed[key]
            reason = ": ".join(part for part in (failure.reason, failure.message) if part)
            name, number = request_key(endpoint, question.request), len(filling.attempts[key])
            yield Quarantined(slot=key, reason=reason, attempt=number, text="", request_key=name, failed=True)


def _name_causes(failed: Sequence[Quarantined]) -> str:
    counted = Counter(row.reason.partition(": ")[0] for row in failed)
    kinds = ", ".join(f"{n} {reason}" for reason, n in counted.most_common())
    return f"{len(failed)} {'request' if len(failed) == 1 else 'requests'} failed for good ({kinds})"


def _refuse_empty(
    level: Level, slots: Sequence[Slot], rows: Sequence[Attempt], quarantine: Sequence[Quarantined]
) -> None:
    filled = {(row.slot.label, row.slot.block) for row in rows}
    empty = next((slot for slot in slots if (slot.label, slot.block) not in filled), None)
    if empty is None:
        return
    keys = {slot.key for slot in slots if (slot.label, slot.block) == (empty.label, empty.block)}
    mine = [row for row in quarantine if row.slot in keys and row.reason != NO_SOURCE]
    lost = [row for row in mine if row.failed]
    where = f"{level.key}: no usable row for label {empty.label!r} in block {empty.block}"
    if 2 * len(lost) >= len(mine):
        said = next((found for row in lost if (found := row.reason.partition(": ")[2])), "nothing")
        raise GenerationError(
            f"{where}; {_name_causes(lost)}; the endpoint said: {said}; see what is wrong there, then forget these "
            "failures to ask again"
        )
    counted = Counter(row.reason for row in mine if not row.failed)
    reason, count = counted.most_common(1)[0]
    example = next(row.text for row in mine if row.reason == reason)
    remedy = REMEDIES.get(reason, "try another model or prompt")
    raise GenerationError(
        f"{where}; {count} of {counted.total()} answers were rejected as {reason} (such as {example[:80]!r}); {remedy}"
    )


def fill_pools(makers: Sequence[PoolMaker], llm: OpenedLLM, ledger: Ledger, progress: Progress | None = None) -> None:
    """Ask for the rows of all these pools together; no dial waits for another.

    Raises:
        EndpointError: the endpoint failed; the ledger keeps all answers.
    """
    fillings = [filling for maker in makers for filling in maker.fillings]
    fill_slots(fillings, llm, ledger, total=sum(maker.rows for maker in makers), progress=progress)


def generate_pools(
    train: Corpus,
    spec: GenerationSpec,
    dial: Dial,
    llm: OpenedLLM,
    ledger: Ledger,
    *,
    levels: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> tuple[Pool, ...]:
    """Generate the pools of several levels of a dial, one pool a level, from the least diverse.

    All levels' slots are asked for together, each once; rejected ones are asked for again, up to ``attempts`` answers.
    What is accepted depends on the answers alone, so with a deterministic endpoint the pools are the same
    bytes however often a run is stopped and started again, and adding levels or blocks changes no row of the others.
    Rows are unique within a block; blocks are independent draws, so a row may occur in two of them.
    A slot whose request fails for good gets no row and is counted; ``ledger.forget_failures()`` has it asked for again.

    Args:
        train: real training rows: the labels, passages or contexts, and the seed examples.
        spec: what is written.
        dial: what is varied.
        llm: what writes.
        ledger: its answers so far; new ones are added.
        levels: names of the dial's levels; None is all.
        progress: called with (rows so far, rows wanted).

    Raises:
        ConfigError: as ``PoolMaker``.
        EndpointError: the endpoint failed; the ledger keeps all answers.
        GenerationError: a level has no row at all for some label and block.
    """
    maker = PoolMaker(train, spec, dial, llm.endpoint, levels)
    fill_pools([maker], llm, ledger, progress)
    return maker.compose(ledger)


def generate_corpus(
    train: Corpus,
    *,
    dial: Dial,
    level: str,
    rows_per_label: int,
    endpoint: Endpoint | OpenedLLM,
    ledger: Ledger | None = None,
    sampling: Sampling | None = None,
    describe: str = "examples",
    seed: int = 0,
    kind: Kind | None = None,
    sources: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Pool:
    """Generate the pool of one level; ``generate_pools`` makes several and takes every setting.

    Args:
        train: real training rows: the labels, passages or contexts, and the seed examples.
        dial: what is varied.
        level: the name of one of its levels.
        rows_per_label: rows of each label, passage or context; of all where there are none.
        endpoint: what writes.
        ledger: its answers so far; None keeps nothing.
        sampling: temperature and the like, where the dial does not set them.
        describe: what one text is, in the plural, for prompts.
        seed: of prompts and requests.
        kind: what is written, as ``writing.kind`` of study.yaml; None follows the task.
        sources: passages or contexts to write about; None takes those of the training rows.
        progress: called with (rows so far, rows wanted).

    Raises:
        ConfigError, EndpointError, GenerationError, ValueError: as ``generate_pools``.
    """
    spec = GenerationSpec(
        rows_per_label=rows_per_label, sampling=sampling or Sampling(), describe=describe, seed=seed, kind=kind,
        sources=sources,
    )  # fmt: skip
    llm = endpoint if isinstance(endpoint, OpenedLLM) else OpenedLLM(endpoint=endpoint)
    with Ledger() as memory:
        kept = memory if ledger is None else ledger
        (pool,) = generate_pools(train, spec, dial, llm, kept, levels=[level], progress=progress)
    return pool


def _choose_levels(dial: Dial, names: Sequence[str] | None) -> tuple[Level, ...]:
    known = {level.name: level for level in dial.levels}
    for name in names or ():
        if name not in known:
            raise ConfigError(f"dial {dial.name!r} has no level {name!r}; {nearest_name(name, known)}")
    return tuple(level for level in dial.levels if names is None or level.name in names)


# --- the quarantine: every answer that became no row, in a file one can read, search and learn from ---
_COLUMNS = ("slot", "reason", "attempt", "text", "request_key")


def write_quarantine(pools: Sequence[Pool], path: str | Path) -> int:
    """Write what was rejected from these pools as JSONL: dial, level, slot, reason, attempt, text, request_key.

    Levels share slots, so one answer may stand under several of them.

    Returns:
        How many lines were written.

    Raises:
        InputError: the file cannot be written.
    """
    lines = [
        {"dial": pool.level.dial, "level": pool.level.name, **{name: getattr(row, name) for name in _COLUMNS}}
        for pool in pools
        for row in pool.quarantine
    ]
    replace_text(path, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
    return len(lines)


def read_quarantine(path: Path) -> Iterator[Quarantined]:
    """What ``write_quarantine`` wrote.

    Raises:
        RunFolderError: a line is none of its lines.
    """
    number = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                number += 1
                row = json.loads(line)
                yield Quarantined(**{name: row[name] for name in _COLUMNS})
    except (ValueError, KeyError, TypeError) as exc:
        raise RunFolderError(
            f"{path}, line {number}: damaged; delete the pool beside it, and the next cuvee run makes both again from "
            "the answers in ledger.sqlite, without a request"
        ) from exc


def count_rejected(rejected: Iterable[Rejected]) -> dict[str, int]:
    """Answers that became no row, by reason, the most frequent first.

    A draft that was refined is none of them, nor is a paraphrase whose source has no row: it had no answer.
    """
    return dict(Counter(r.reason for r in rejected if r.reason not in (DRAFT, NO_SOURCE)).most_common())
