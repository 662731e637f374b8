"""Encoders that are sentence-transformers models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cuvee.encoders.protocol import unit_rows_or_zero
from cuvee.errors import InputError, MissingDependency
from cuvee.fingerprint import hash_texts
from cuvee.inputs import check_layers, explain_damage
from cuvee.records import Vectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


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
