"""Pools: the rows of each level of a dial, asked for once and composed many times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cuvee.corpus import Corpus, normalise_text
from cuvee.errors import ConfigError, GenerationError
from cuvee.fingerprint import hash_texts
from cuvee.generate.acceptance import Judge, Nearest, Refuse, Row
from cuvee.generate.calls import Endpoint, Sampling
from cuvee.generate.dials.protocol import Dial, Slot, wanted_slots
from cuvee.generate.ledger import Ledger
from cuvee.generate.parsing import CHATTER, COPY_OF_PROMPT, COPY_OF_TRAINING, DUPLICATE, EMPTY, TRUNCATED
from cuvee.generate.prompts import PromptWriter
from cuvee.generate.rounds import Progress, Rounds
from cuvee.records import Level, Rejected, Usage
from cuvee.registry import nearest_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The synthetic corpus of one level.

    ``rejected`` holds every answer to one of its slots that became no row, ``short`` how many rows are
    missing, ``usage`` what its rows cost (levels share rows, so the sum over levels counts some twice; the
    ledger has the total), ``note`` what else a reader of the pool should know.
    """

    level: Level
    corpus: Corpus
    rejected: tuple[Rejected, ...]
    usage: Usage
    note: str
    short: int

    def __str__(self) -> str:
        reasons = ", ".join(f"{n} {why}" for why, n in Counter(r.reason for r in self.rejected).most_common())
        lines = [f"{self.level.key}: {len(self.corpus)} rows, {self.short} short; rejected: {reasons or 'none'}"]
        return "\n".join([*lines, self.note] if self.note else lines)


def generate_pools(
    train: Corpus,
    *,
    dial: Dial,
    levels: Sequence[str] | None = None,
    blocks: Sequence[int],
    rows_per_label: int,
    endpoint: Endpoint,
    ledger: Ledger,
    sampling: Sampling,
    describe: str = "examples",
    seed: int,
    nearest: Nearest | None = None,
    refuse: Refuse | None = None,
    keep_truncated: bool = False,
    attempts: int = 6,
    progress: Progress | None = None,
) -> tuple[Pool, ...]:
    """Generate the pools of several levels of a dial, one pool a level, from the least diverse.

    All levels' slots are asked for together, each once; rejected ones are asked for again, up to ``attempts`` answers.
    What is accepted depends on the answers alone, so with a deterministic endpoint the pools are the same
    bytes however often a run is stopped and started again, and adding levels or blocks changes no row of the others.
    Rows are unique within a block; blocks are independent draws, so a row may occur in two of them.

    Args:
        train: real training rows: the labels, and the seed examples.
        dial: what is varied.
        levels: names of the dial's levels; None is all.
        blocks: numbers of the generation draws.
        rows_per_label: rows of each label in a block.
        endpoint: the LLM.
        ledger: its answers so far; new ones are added.
        sampling: of every request; a dial may set the temperature.
        describe: what the texts are, in the plural, for the prompts.
        seed: of seed examples and requests.
        nearest: for a paraphrase's acceptance; None skips that test, and the note says so.
        refuse: says of texts why they may not become rows (they leak held-out data, say); None refuses nothing.
        keep_truncated: take answers that ran into max_tokens, without their last, broken word.
        attempts: answers a slot may be given.
        progress: called with (rows so far, rows wanted).

    Raises:
        ConfigError: an unknown level, or a dial that does not fit labels and rows.
        EndpointError: the endpoint failed; the ledger keeps all answers.
        ValueError: blocks, rows_per_label or attempts out of range.
        GenerationError: a level has no row at all for some label and block.
    """
    _check_numbers(blocks, rows_per_label, attempts)
    chosen = _choose_levels(dial, levels)
    dial.check(train.labels, rows_per_label)
    names = [level.name for level in chosen]
    batches = dial.batches(train.labels, blocks=blocks, rows_per_label=rows_per_label, levels=names)
    writer = PromptWriter(train, describe=describe, api=endpoint.api, sampling=sampling, seed=seed)
    least_words = min(2, *(len(normalise_text(text).split()) for text in train.texts))
    judges = [
        Judge(
            batch.slots,
            train=train,
            writer=writer,
            nearest=nearest,
            refuse=refuse,
            keep_truncated=keep_truncated,
            attempts=attempts,
            least_words=least_words,
        )
        for batch in batches
    ]
    rounds = Rounds(endpoint, ledger, total=len(wanted_slots(batches)), progress=progress)
    rounds.fill(judges)
    pools = []
    for level in chosen:
        parts = [_Filled(slots=dial.compose(level.name, b), judge=j) for b, j in zip(batches, judges, strict=True)]
        pools.append(_compose(level, parts, rounds, train=train, generator=endpoint.model, tested=nearest is not None))
    return tuple(pools)


def generate_corpus(
    train: Corpus,
    *,
    dial: Dial,
    level: str,
    blocks: Sequence[int] = (0,),
    rows_per_label: int,
    endpoint: Endpoint,
    ledger: Ledger | None = None,
    sampling: Sampling | None = None,
    describe: str = "examples",
    seed: int = 0,
    nearest: Nearest | None = None,
    refuse: Refuse | None = None,
    keep_truncated: bool = False,
    attempts: int = 6,
    progress: Progress | None = None,
) -> Pool:
    """Generate the pool of one level; see :func:`generate_pools`. Without a ledger nothing is kept."""
    with Ledger() as memory:
        pools = generate_pools(
            train,
            dial=dial,
            levels=[level],
            blocks=blocks,
            rows_per_label=rows_per_label,
            endpoint=endpoint,
            ledger=ledger if ledger is not None else memory,
            sampling=sampling or Sampling(),
            describe=describe,
            seed=seed,
            nearest=nearest,
            refuse=refuse,
            keep_truncated=keep_truncated,
            attempts=attempts,
            progress=progress,
        )
    return pools[0]


def _check_numbers(blocks: Sequence[int], rows_per_label: int, attempts: int) -> None:
    if not blocks or len(set(blocks)) < len(blocks) or min(blocks) < 0:
        raise ValueError(f"blocks {blocks!r}; give at least one, each once, 0 or more")
    if rows_per_label < 1:
        raise ValueError(f"rows_per_label {rows_per_label!r}; must be 1 or more")
    if attempts < 1:
        raise ValueError(f"attempts {attempts!r}; must be 1 or more")


def _choose_levels(dial: Dial, names: Sequence[str] | None) -> tuple[Level, ...]:
    known = {level.name: level for level in dial.levels}
    for name in names or ():
        if name not in known:
            raise ConfigError(f"dial {dial.name!r} has no level {name!r}; {nearest_name(name, known)}")
    return tuple(level for level in dial.levels if names is None or level.name in names)


# --- from filled slots to pools -------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class _Filled:
    """A level's slots of one batch, with the judge that filled them."""

    slots: tuple[Slot, ...]
    judge: Judge

    def row(self, slot: Slot) -> Row | None:
        """The slot's row, or its substitute's."""
        rows = self.judge.rows
        return rows.get(slot.key) or (rows.get(slot.substitute) if slot.substitute is not None else None)

    def keys(self) -> set[str]:
        """Of all slots that the level needs, substitutes where they are used."""
        unfilled = [s for s in self.slots if s.key not in self.judge.rows]
        return {s.key for s in self.slots} | {s.substitute for s in unfilled if s.substitute is not None}


def _compose(
    level: Level, parts: Sequence[_Filled], rounds: Rounds, *, train: Corpus, generator: str, tested: bool
) -> Pool:
    slots = [(slot, part) for part in parts for slot in part.slots]
    slots.sort(key=lambda pair: (pair[0].block, pair[0].label, pair[0].order))
    rows = [row for slot, part in slots if (row := part.row(slot)) is not None]
    rejected = [r for part in parts for r in part.judge.rejected if r.slot in part.keys()]
    _refuse_empty(level, [slot for slot, _ in slots], rows, rejected)
    ids = {row.slot.key: _row_id(level.dial, row) for row in rows}
    sources = {row.slot.parent for row in rows}
    corpus = Corpus.from_rows(
        [
            {
                "id": ids[row.slot.key],
                "text": row.text,
                "target": row.slot.label,
                "group": ids[row.slot.parent or row.slot.key] if row.slot.parent or row.slot.key in sources else None,
                "seed_ids": list(row.seed_ids),
                "dial": level.dial,
                "level": level.name,
                "block": row.slot.block,
                "generator": generator,
            }
            for row in rows
        ],
        origin="synthetic",
        task=train.task,
    )
    return Pool(
        level=level,
        corpus=corpus,
        rejected=tuple(rejected),
        usage=rounds.usage(q for part in parts for key in part.keys() for q in part.judge.asked(key)),
        note=_note([slot for slot, _ in slots], rows, tested),
        short=len(slots) - len(rows),
    )


def _row_id(dial: str, row: Row) -> str:
    return f"{dial}-{hash_texts([row.slot.key, row.slot.label, row.text])[:16]}"


def _note(slots: Sequence[Slot], rows: Sequence[Row], tested: bool) -> str:
    parts = []
    if len(rows) < len(slots):
        parts.append(f"{len(slots) - len(rows)} of {len(slots)} rows could not be filled")
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


_REMEDIES = {
    TRUNCATED: "raise max_tokens",
    DUPLICATE: "raise the temperature, give more seed examples, or ask for fewer rows",
    COPY_OF_TRAINING: "raise the temperature",
    COPY_OF_PROMPT: "raise the temperature",
    EMPTY: "check the model and api: chat or completions",
    CHATTER: "use api: completions, or a larger model",
}


def _refuse_empty(level: Level, slots: Sequence[Slot], rows: Sequence[Row], rejected: Sequence[Rejected]) -> None:
    filled = {(row.slot.label, row.slot.block) for row in rows}
    empty = next((slot for slot in slots if (slot.label, slot.block) not in filled), None)
    if empty is None:
        return
    keys = {slot.key for slot in slots if (slot.label, slot.block) == (empty.label, empty.block)}
    mine = [r for r in rejected if r.slot in keys]
    reason, count = Counter(r.reason for r in mine).most_common(1)[0]
    example = next(r.text for r in mine if r.reason == reason)
    remedy = _REMEDIES.get(reason, "try another model or prompt")
    raise GenerationError(
        f"{level.key}: no usable row for label {empty.label!r} in block {empty.block}; {count} of {len(mine)} "
        f"answers were rejected as {reason} (such as {example[:80]!r}); {remedy}"
    )
