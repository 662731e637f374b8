"""A worker process: ``python -m cuvee.execute.worker FD FILE TRUSTED...``. Reads its work, then items one by one."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import cast

from cuvee.execute.processes import unpack
from cuvee.registry import trust_modules

Inbox = SimpleQueue[bytes]


def main() -> None:
    """Say ``ready``, then answer each item with ``result`` or ``error``, until the other end is gone."""
    wire, path = Connection(int(sys.argv[1])), Path(sys.argv[2])
    inbox: Inbox = SimpleQueue()
    threading.Thread(target=_listen, args=(wire, inbox, path.parent), daemon=True).start()
    with _Errors() as opening:
        work = cast("Callable[[object], object]", unpack(path))
    if opening.error is not None:
        _send(wire, "error", opening.error)
        return
    _send(wire, "ready", None)
    while True:
        item: object = pickle.loads(inbox.get())
        with _Errors() as working, trust_modules(*sys.argv[3:]):
            result = work(item)
        if working.error is None:
            _send(wire, "result", result)
        else:
            _send(wire, "error", working.error)


class _Errors:
    """Catches what is raised inside: it is raised again at the other end."""

    error: Exception | None = None

    def __enter__(self) -> _Errors:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None


def _listen(wire: Connection, inbox: Inbox, folder: Path) -> None:
    """Hand on what comes. Once the other end is gone nobody waits for results: end this process and its children."""
    try:
        while True:
            inbox.put(wire.recv_bytes())
    except (EOFError, OSError):
        shutil.rmtree(folder, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)


def _send(wire: Connection, kind: str, value: object) -> None:
    if isinstance(value, BaseException):
        value.add_note("in a worker process:\n" + "".join(traceback.format_exception(value)))
    message = b""
    with _Errors():  # whatever pickling of foreign objects raises
        message = pickle.dumps((kind, value))
        if kind == "error":
            pickle.loads(message)  # some exceptions pickle and do not come back
            wire.send_bytes(message)
            return
    if kind == "error" or not message:
        trouble = f"in a worker process, {type(value).__name__}, which cannot be sent back: {value}"
        message = pickle.dumps(("error", RuntimeError(trouble)))
    wire.send_bytes(message)


if __name__ == "__main__":
    main()
