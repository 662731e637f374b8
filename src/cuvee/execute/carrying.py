"""Carrying a value to many processes in one file: its large parts are mapped, so that all readers share them."""

from __future__ import annotations

import mmap
import pickle
import struct
from pathlib import Path

_ALIGNED = 64
_HEAD = struct.Struct("<QQ")


def pack(value: object, path: Path) -> None:
    """Pickle ``value`` into a file; arrays and Arrow tables lie in it as they lie in memory.

    Raises:
        ValueError: a part of it cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        body = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    except (pickle.PicklingError, TypeError, AttributeError) as exc:
        raise ValueError(f"work {type(value).__name__} cannot be carried to another process: {exc}") from exc
    views = [buffer.raw() for buffer in buffers]
    places: list[tuple[int, int]] = []
    end = 0
    for view in views:
        start = -(-end // _ALIGNED) * _ALIGNED
        places.append((start, view.nbytes))
        end = start + view.nbytes
    index = pickle.dumps((body, places))
    base = -(-(_HEAD.size + len(index)) // _ALIGNED) * _ALIGNED
    with path.open("wb") as stream:
        stream.write(_HEAD.pack(len(index), base))
        stream.write(index)
        for view, (start, _) in zip(views, places, strict=True):
            stream.seek(base + start)
            stream.write(view)
        stream.truncate(max(base + end, _HEAD.size + len(index)))


def unpack(path: Path) -> object:
    """What :func:`pack` wrote; its large parts are read-only views of the file. Only for files of our own."""
    with path.open("rb") as stream:
        whole = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    length, base = _HEAD.unpack_from(whole)
    body, places = pickle.loads(whole[_HEAD.size : _HEAD.size + length])
    found: object = pickle.loads(body, buffers=[whole[base + start : base + start + size] for start, size in places])
    return found
