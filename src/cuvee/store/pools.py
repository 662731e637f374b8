"""Pools as the run folder keeps them: one Parquet file each, what is not rows in its metadata."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

import pyarrow as pa

from cuvee.corpus import Corpus
from cuvee.fingerprint import hash_value
from cuvee.records import Level, Rejected, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPool:
    """A pool as the run folder keeps it: rows, rejected answers, note, tokens, and the key of its making.

    ``failed`` holds the ledger's keys of the requests that failed for good. What generating took is not told of pools,
    since they share answers, but of the run folder.
    """

    level: Level
    corpus: Corpus
    rejected: tuple[Rejected, ...] = ()
    usage: Usage = field(default_factory=Usage)
    note: str = ""
    key: str = ""
    failed: tuple[str, ...] = ()


def pool_to_table(pool: StoredPool) -> pa.Table:
    """The rows, with the rest of the pool in the metadata."""
    meta = {
        "level": asdict(pool.level),
        "rejected": [{"slot": r.slot, "reason": r.reason, "text": r.text} for r in pool.rejected],  # may be a million
        "tokens": [pool.usage.requests + pool.usage.replayed, pool.usage.prompt_tokens, pool.usage.completion_tokens],
        "note": pool.note,
        "key": pool.key,
        "task": pool.corpus.task,
        "failed": list(pool.failed),
    }
    content = json.dumps(meta, sort_keys=True)
    return pool.corpus.table.replace_schema_metadata({"cuvee": content, "checksum": hash_value(content)[:16]})


def pool_from_table(table: pa.Table) -> StoredPool:
    """What ``pool_to_table`` made of a pool.

    Raises:
        ValueError, KeyError, TypeError: it is not what was written.
    """
    found = table.schema.metadata or {}
    content = found.get(b"cuvee", b"").decode()
    if found.get(b"checksum", hash_value(content)[:16].encode()) != hash_value(content)[:16].encode():
        raise ValueError("its checksum is wrong")
    meta = json.loads(content)
    answers, prompt, completion = meta["tokens"]
    return StoredPool(
        level=Level(**meta["level"]),
        corpus=Corpus(table.replace_schema_metadata(None).combine_chunks(), meta.get("task", "classification")),
        rejected=tuple(Rejected(**r) for r in meta["rejected"]),
        usage=Usage(replayed=answers, prompt_tokens=prompt, completion_tokens=completion),
        note=meta["note"],
        key=meta["key"],
        failed=tuple(meta.get("failed", ())),
    )


def safe_name(name: str) -> str:
    """A name of a file, made of any name."""
    return "".join(c if c.isalnum() or c in "=._-" else "_" for c in name)
