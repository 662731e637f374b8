"""The encoders: hashed n-grams, and sentence-transformers models."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cuvee.encoders.protocol import empty_rows, unit_rows_or_zero
from cuvee.errors import InputError, MissingDependency
from cuvee.fingerprint import hash_texts
from cuvee.inputs import check_layers, explain_damage
from cuvee.records import Vectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_AT_A_TIME = 4_096  # texts whose n-grams are counted together


class HashingEncoder:
    """Character 3- to 5-grams within words, hashed (CRC-32, signed) to 512 dimensions, square-root weighted."""

    name = "hashing"
    hash = "hashing-v1-512"
    dim = 512

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), 512)."""
        out = empty_rows(len(texts), self.dim)
        for start in range(0, len(texts), _AT_A_TIME):
            sums = _count_grams(texts[start : start + _AT_A_TIME], self.dim)
            out[start : start + _AT_A_TIME] = unit_rows_or_zero(np.sign(sums) * np.sqrt(np.abs(sums)))
        return out


def _count_grams(texts: Sequence[str], dim: int) -> Vectors:
    """The signed counts of each text's n-grams, shape (len(texts), dim); each distinct word is hashed once."""
    number: dict[str, int] = {}
    rows: list[int] = []
    words: list[int] = []
    for row, text in enumerate(texts):
        found = text.casefold().split()
        words += [number.setdefault(word, len(number)) for word in found]
        rows += [row] * len(found)
    codes = [_hash_word(word) for word in number]
    sizes = np.array([len(code) for code in codes], dtype=np.int64)
    flat = np.concatenate([*codes, np.zeros(0, dtype=np.uint32)])
    of_word = np.array(words, dtype=np.int64)
    lengths = sizes[of_word]
    starts = np.cumsum(sizes) - sizes
    # the n-grams of every occurrence of a word, one occurrence after the other
    at = np.repeat(starts[of_word] - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))
    grams = flat[at]
    cells = np.repeat(np.array(rows, dtype=np.int64), lengths) * dim + grams % dim
    signs = np.where(grams & 0x80000000, 1.0, -1.0)
    sums = np.bincount(cells, weights=signs, minlength=len(texts) * dim)
    return sums.astype(np.float32).reshape(len(texts), dim)


def _hash_word(word: str) -> NDArray[np.uint32]:
    padded = f" {word} "
    grams = (padded[start : start + size] for size in (3, 4, 5) for start in range(max(1, len(padded) - size + 1)))
    return np.array([zlib.crc32(gram.encode("utf-8", "surrogatepass")) for gram in grams], dtype=np.uint32)


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
        check_layers(self._model_name)
        remedy = "give a folder, a name on the hub, or set encoder: hashing"
        with explain_damage(f"encoder {self._name!r}", remedy), _quiet_loading():
            return SentenceTransformer(self._model_name, trust_remote_code=False)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        vectors = self._model.encode(
            list(texts), batch_size=64, show_progress_bar=False, normalize_embeddings=True, convert_to_numpy=True
        )
        return unit_rows_or_zero(np.asarray(vectors, dtype=np.float32))


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


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
