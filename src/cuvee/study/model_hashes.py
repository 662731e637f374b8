"""What model files hold, hashed once and remembered in the run folder."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from cuvee.model_files import MODEL_SUFFIXES, hash_path
from cuvee.store import RunFolder

FILE = "models.json"
"""Of the run folder: the hash of every model file and folder that the study used."""
Signs = list[tuple[str, int, int, int, int]]


class _Known(TypedDict):
    """A path's hash, and the name, size, times of change and number on the disk of each of its files when hashed."""

    sha256: str
    files: Signs


class ModelHashes:
    """Hashes of model files. A path is hashed again when a file there has another size, time of change or inode.

    The time of change (ctime) moves with every write, whatever time of modification a copy is given, so a file that
    was replaced is noticed. A path that is there no more goes by the hash that it last had: what it wrote stays usable.

    Args:
        folder: the run folder, which remembers them.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def find(self, given: str) -> str | None:
        """SHA-256 of a file, or of the model files of a folder; None of what is no path here (a name on the hub)."""
        path = Path(given.removeprefix("hf:")).expanduser()
        known = self._read()
        name = str(path.absolute())
        if not path.exists():
            return known[name]["sha256"] if name in known else None
        files = _read_signs(path)
        if name not in known or known[name]["files"] != files:
            known[name] = {"sha256": hash_path(path), "files": files}
            self._folder.save_text(FILE, json.dumps(known, indent=1))
        return known[name]["sha256"]

    def _read(self) -> dict[str, _Known]:
        remedy = "model files are hashed again; pools of a model that is no longer there need it back"
        return self._folder.read_json(FILE, TypeAdapter(dict[str, _Known]), remedy) or {}


def _read_signs(path: Path) -> Signs:
    files = sorted(p for p in path.iterdir() if p.suffix in MODEL_SUFFIXES) if path.is_dir() else [path]
    found = [(file.name, file.stat()) for file in files if file.is_file()]
    return [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino) for name, stat in found]
