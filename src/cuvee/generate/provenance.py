"""Where each row of a pool came from: a side table, so that the corpus keeps its columns."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

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
