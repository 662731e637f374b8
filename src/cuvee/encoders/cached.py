"""Vectors that are kept, by the content of their texts."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from cuvee.encoders.protocol import Encoder, WrappedEncoder
from cuvee.encoders.spread import PART, SpreadEncoder
from cuvee.encoders.storage import batches, empty_rows
from cuvee.records import Vectors

_MEMORY_ROWS = 200_000


class CachedEncoder(WrappedEncoder):
    """An encoder that embeds each distinct text once, ever: vectors are kept in a SQLite file by content.

    Args:
        encoder: the one that does the work.
        folder: where the cache file lives; one file for each encoder hash.
    """

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        super().__init__(encoder)
        self._folder = folder
        self._memory: dict[bytes, Vectors] = {}

    @cached_property
    def _database(self) -> sqlite3.Connection:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{hashlib.sha256(self.hash.encode()).hexdigest()[:16]}.sqlite"
        database = sqlite3.connect(path, timeout=60, check_same_thread=False)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
        return database

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim); only texts never seen before are embedded."""
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        parts = list(batches(len(texts)))
        if len(parts) == 1:
            return self._encode_batch(texts)
        out = empty_rows(len(texts), self.dim)
        for part in parts:
            out[part] = self._encode_batch(texts[part])
        return out

    def _encode_batch(self, texts: Sequence[str]) -> Vectors:
        keys = [hashlib.sha256(t.encode("utf-8", "surrogatepass")).digest()[:16] for t in texts]
        known = {k: self._memory[k] for k in keys if k in self._memory}
        known.update(self._read([k for k in keys if k not in known]))
        missing = _missing_parts(keys, texts, known)
        for part, fresh in zip(missing, self._embed([list(part.values()) for part in missing]), strict=True):
            known.update(zip(part, fresh, strict=True))
            rows = [(k, fresh[i].tobytes()) for i, k in enumerate(part)]
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
        if len(self._memory) + len(known) <= _MEMORY_ROWS:
            self._memory.update(known)
        return np.stack([known[k] for k in keys])

    def _embed(self, parts: Sequence[Sequence[str]]) -> Iterable[Vectors]:
        if isinstance(self._encoder, SpreadEncoder):
            return self._encoder.encode_parts(parts)
        return map(self._encoder.encode, parts)

    def _read(self, keys: list[bytes]) -> dict[bytes, Vectors]:
        found: dict[bytes, Vectors] = {}
        distinct = list(dict.fromkeys(keys))
        for start in range(0, len(distinct), 500):
            part = distinct[start : start + 500]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, vector FROM vectors WHERE key IN ({marks})"
            for key, blob in self._database.execute(query, part):
                found[key] = np.frombuffer(blob, dtype=np.float32)
        return found


def _missing_parts(
    keys: Sequence[bytes], texts: Sequence[str], known: Mapping[bytes, Vectors]
) -> list[dict[bytes, str]]:
    """What has to be embedded, part by part, each text once."""
    parts: list[dict[bytes, str]] = []
    seen: set[bytes] = set()
    for start in range(0, len(keys), PART):
        here = zip(keys[start : start + PART], texts[start : start + PART], strict=True)
        part = {key: text for key, text in here if key not in known and key not in seen}
        seen |= part.keys()
        parts += [part] if part else []
    return parts
