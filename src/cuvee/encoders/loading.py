"""What stands around encoders: a cache by content, workers, and vectors that are known already."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cuvee.encoders.models import (
    BATCH,
    DEFAULT_ENCODER,
    PART,
    Encoder,
    WrappedEncoder,
    batches,
    build_encoder,
    empty_rows,
    resolve_encoder,
)
from cuvee.fingerprint import hash_each
from cuvee.records import Vectors

T = TypeVar("T")
R = TypeVar("R")
_READ = 500  # keys of one query


class WorkerPool(Protocol):
    """Applies one function to many items, in processes of this machine or of a cluster."""

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """``work(item)`` of each item, in the order of the items.

        Args:
            work: carried to each worker once; the same object again finds the workers ready.
            items: each carried to one worker.

        Raises:
            CuveeError: the work on an item was lost, or it raised one.
        """


def load_encoder(
    name: str = DEFAULT_ENCODER, *, cache: Path | None = None, workers: WorkerPool | None = None
) -> Encoder:
    """The encoder called ``name``, with a cache.

    Args:
        name: ``minilm``, ``hashing``, a sentence-transformers model, or ``module:Name``; a model's name may end
            in @ and one of ``WAYS``.
        cache: folder of the cache; by default ``$CUVEE_CACHE`` or ``~/.cache/cuvee``.
        workers: what embeds the texts, each with the model loaded; None embeds them here.

    Raises:
        MissingDependency, InputError: the model cannot be loaded.
    """
    name = resolve_encoder(name)
    encoder = build_encoder(name)
    if name == "hashing":
        return encoder  # faster than a look into the cache, or than workers
    folder = cache or Path(os.environ.get("CUVEE_CACHE") or Path.home() / ".cache" / "cuvee")
    return CachedEncoder(
        encoder, folder / "embeddings", None if workers is None else partial(workers.map, _Loaded(name))
    )


class _Loaded:
    """Embeds parts of texts in a worker, which loads the model once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._encoder: Encoder | None = None

    def __call__(self, texts: Sequence[str]) -> Vectors:
        if self._encoder is None:
            self._encoder = build_encoder(self._name)
        return self._encoder.encode(texts)


class CachedEncoder(WrappedEncoder):
    """An encoder that embeds each distinct text once, ever: vectors are kept in a SQLite file by content.

    Args:
        encoder: the one that does the work.
        folder: where the cache file lives; one file for each encoder hash.
        embed: gives the vectors of each part of texts, in order, where workers embed them; None embeds them here.
    """

    def __init__(
        self, encoder: Encoder, folder: Path,
        embed: Callable[[Sequence[Sequence[str]]], Iterable[Vectors]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(encoder)
        self._folder, self._embed = folder, embed or partial(map, encoder.encode)
        self.at_once = PART if embed is None else 32 * PART
        """Texts to embed in one call, where what is embedded shall be kept as it comes."""

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
        if 0 < len(texts) <= BATCH:  # the dimension is the model's to tell, which may not be loaded
            return self._encode_batch(texts)
        out = empty_rows(len(texts), self.dim)
        for part in batches(len(texts)):
            out[part] = self._encode_batch(texts[part])
        return out

    def _encode_batch(self, texts: Sequence[str]) -> Vectors:
        keys = [hashlib.sha256(t.encode("utf-8", "surrogatepass")).digest()[:16] for t in texts]
        known = self._read(list(dict.fromkeys(keys)))
        missing = _missing_parts(keys, texts, known)
        for part, fresh in zip(missing, self._embed([list(part.values()) for part in missing]), strict=True):
            known.update(zip(part, fresh, strict=True))
            rows = [(k, fresh[i].tobytes()) for i, k in enumerate(part)]
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
        return np.stack([known[k] for k in keys])

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        found: dict[bytes, Vectors] = {}
        for start in range(0, len(keys), _READ):
            part = keys[start : start + _READ]
            query = f"SELECT key, vector FROM vectors WHERE key IN ({','.join('?' * len(part))})"
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


class KnownVectors:
    """An encoder that looks texts up. What it does not know it has encoded by the encoder of its name.

    Vectors of a batch depend on it in their last bits, so all trials share those that were made once: they get the
    same bits wherever they run. Carried to another process, this is two arrays.

    Args:
        encoder: makes the vectors.
        texts: all that are known beforehand. Their vectors take 4 d bytes each, d being the length of a vector.
        source: what :func:`load_encoder` knows the encoder by; its name where left out.
    """

    def __init__(self, encoder: Encoder, texts: Iterable[str], *, source: str | None = None) -> None:
        distinct = list(dict.fromkeys(texts))
        self.name, self.hash, self.dim = encoder.name, encoder.hash, encoder.dim
        self._source = source or encoder.name
        self._spare: Encoder | None = encoder
        keys = hash_each(distinct)
        order = np.argsort(keys)
        self._keys: NDArray[np.uint64] = keys[order]
        # part by part, so that what is embedded is kept when a run is stopped
        parts = [encoder.encode(distinct[start : start + PART]) for start in range(0, len(distinct), PART)]
        self._vectors: Vectors = np.concatenate([*parts, np.zeros((0, self.dim), dtype=np.float32)])[order]

    def __getstate__(self) -> dict[str, object]:
        """All but the encoder, which may hold a model or an open file."""
        return {**self.__dict__, "_spare": None}

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""
        wanted = hash_each(texts)
        if not len(self._keys) or not len(wanted):
            return self._encode_unknown(texts)
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        vectors: Vectors = self._vectors[places]
        unknown = np.flatnonzero(self._keys[places] != wanted)
        if len(unknown):
            vectors[unknown] = self._encode_unknown([texts[int(i)] for i in unknown])
        return vectors

    def _encode_unknown(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        if self._spare is None:
            self._spare = load_encoder(self._source)
        return self._spare.encode(texts)
