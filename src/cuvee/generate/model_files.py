"""Where a model's files are, and what they are known by."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from cuvee.errors import InputError
from cuvee.fingerprint import hash_texts

PREFIX = "hf:"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?(?:@[\w./-]+)?")
MODEL_SUFFIXES = (".safetensors", ".bin", ".gguf", ".json", ".txt", ".model", ".jinja")
"""Of files that decide what a model says: weights, config, tokenizer, chat template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model in a folder, in a GGUF file, or on the Hugging Face hub.

    ``place`` is the folder, or the name on the hub; ``gguf_file`` the file's name in the folder. ``revision`` is a
    branch, tag or commit on the hub; None is the main branch.
    """

    place: str
    local: bool
    gguf_file: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        """What people call it: the name on the hub, or of the folder, or of the file without its suffix."""
        if not self.local:
            return self.place
        return Path(self.gguf_file).stem if self.gguf_file is not None else Path(self.place).resolve().name

    @property
    def shown(self) -> str:
        """Where it is, for messages."""
        if self.gguf_file is not None:
            return str(Path(self.place) / self.gguf_file)
        return self.place if self.revision is None else f"{self.place}@{self.revision}"


def find_model(model: str | Path) -> ModelFiles:
    """A folder, a GGUF file, or else NAME or NAME@REVISION on the hub; ``hf:`` before it is dropped.

    Raises:
        InputError: it is none of these.
    """
    text = str(model).removeprefix(PREFIX)
    path = Path(text).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{path}: holds no config.json; give the folder of a transformers model, or a .gguf file")
        return ModelFiles(place=str(path), local=True)
    if path.is_file():
        if path.suffix.casefold() != ".gguf":
            raise InputError(f"{path}: is no .gguf file; give one, or the folder of a transformers model")
        return ModelFiles(place=str(path.parent), local=True, gguf_file=path.name)
    looks_like_path = isinstance(model, Path) or text.casefold().endswith(".gguf")
    if looks_like_path or not _HUB_NAME.fullmatch(text):
        raise InputError(
            f"{text}: no such file or folder, nor a name on the hub; give a folder, a .gguf file or a name"
        )
    name, _, revision = text.partition("@")
    return ModelFiles(place=name, local=False, revision=revision or None)


def hash_path(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's weights, config and tokenizer."""
    return hash_folder(path) if path.is_dir() else _file_sha256(path)


def hash_model(files: ModelFiles) -> str:
    """SHA-256 of a GGUF file, or of the names and contents of a folder's weights, config and tokenizer."""
    folder = Path(files.place)
    if files.gguf_file is not None:
        return _file_sha256(folder / files.gguf_file)
    return hash_folder(folder)


def hash_folder(folder: Path) -> str:
    """SHA-256 of the names and contents of a folder's weights, config and tokenizer."""
    chosen = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in MODEL_SUFFIXES)
    return hash_texts(part for path in chosen for part in (path.name, _file_sha256(path)))


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
