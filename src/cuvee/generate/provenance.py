"""Where each row of a pool came from: a side table, so that the corpus keeps its columns."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from cuvee.corpus import Corpus
from cuvee.fingerprint import hash_value
from cuvee.generate.calls import Api, Sampling
from cuvee.generate.dials.protocol import Slot
from cuvee.generate.prompts import EXAMPLES_SHOWN, Kind, PromptWriter, Question

if TYPE_CHECKING:
    from cuvee.generate.composition import Pool

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
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowProvenance:
    """The request whose answer became a row.

    ``id`` is the row's in its corpus, where dial, level and seed examples are columns. ``prompt_hash`` is that of the
    prompt's wording, the same for all rows asked for in the same words. ``attempts`` counts the slot's answers up to
    this one, drafts included; ``draft_key`` is the request whose answer the row refines.
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


def provenance_table(pool: Pool) -> pa.Table:
    """One line for each row of a pool, in the order of its rows, with the columns of ``PROVENANCE_SCHEMA``."""
    return pa.Table.from_pylist([asdict(row) for row in pool.provenance], schema=PROVENANCE_SCHEMA)


class WordingHashes:
    """Hashes of prompts' wordings: what the writer says with placeholders for label, topic and examples.

    Args:
        describe, api, sampling: as the writer was given them.
    """

    def __init__(self, *, describe: str, api: Api, sampling: Sampling) -> None:
        rows = [{"id": str(i), "text": f"[example {i}]", "target": "[label]"} for i in range(EXAMPLES_SHOWN)]
        train = Corpus.from_rows(rows)
        self._seed_ids = train.ids
        self._writer = PromptWriter(train, describe=describe, api=api, sampling=sampling, seed=0)
        self._known: dict[tuple[Slot, str, bool], str] = {}

    def hash(self, slot: Slot, question: Question) -> str:
        """SHA-256 of the wording of a question that was asked for a slot."""
        blank = Slot(
            key="[slot]",
            label="[label]",
            block=0,
            topic=None if slot.topic is None else "[topic]",
            attributes=tuple((f"[name {i}]", f"[value {i}]") for i in range(len(slot.attributes))),
            number=0,
            order=0,
        )
        known = (blank, question.kind, bool(question.avoided))
        if known not in self._known:
            request = self._ask(blank, question.kind, ("[word]",) if question.avoided else ()).request
            self._known[known] = hash_value([request.prompt, request.messages])
        return self._known[known]

    def _ask(self, slot: Slot, kind: Kind, avoided: tuple[str, ...]) -> Question:
        if kind == "paraphrase":
            return self._writer.ask_for_paraphrase(slot, 0, "[text]", self._seed_ids)
        if kind == "refinement":
            return self._writer.ask_for_refinement(slot, 0, "[text]", self._seed_ids, avoided)
        return self._writer.ask_for_row(slot, 0, avoided)
