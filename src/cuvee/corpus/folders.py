"""Whole folders out: filled under a temporary name, then renamed, so that no half-filled folder is ever seen."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cuvee.errors import InputError


def check_folder(folder: str | Path, *, replaces: Callable[[Path], bool] | None = None) -> None:
    """Refuse a folder that ``fill_folder`` would refuse, before any work is done.

    Raises:
        InputError: it has other things in it, or is a file.
    """
    target = Path(folder).resolve()
    if target.exists() and not target.is_dir():
        raise InputError(f"{folder}: this is a file; choose another folder")
    taken = target.is_dir() and any(target.iterdir())
    if taken and not (replaces is not None and replaces(target)):
        raise InputError(f"{folder}: the folder is not empty; choose another, or empty it")


@contextmanager
def fill_folder(folder: str | Path, *, replaces: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """A temporary folder that takes the name of ``folder`` when all of it was written.

    Args:
        folder: where it is wanted; missing or empty, unless ``replaces`` says that what is there may go.
        replaces: whether a folder that is not empty may be replaced, as a whole.

    Raises:
        InputError: the folder has other things in it, or cannot be written.
    """
    check_folder(folder, replaces=replaces)
    target = Path(folder).resolve()
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        _swap(temporary, target)
    except OSError as exc:
        raise InputError(
            f"{folder}: cannot be written ({exc.strerror or exc}); free some space or choose another place"
        ) from exc
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, target: Path) -> None:
    """Give ``target`` the content of ``temporary``; at every instant each of them is whole."""
    if not target.exists() or not any(target.iterdir()):
        temporary.replace(target)
        return
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    shutil.rmtree(old, ignore_errors=True)
    target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        with contextlib.suppress(OSError):
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
