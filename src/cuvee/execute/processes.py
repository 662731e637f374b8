"""Work in processes of this machine: each with its own threads and memory, ended without harm to the others."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, cast

from cuvee.execute.carrying import pack
from cuvee.execute.dispatching import Dispatcher, Report
from cuvee.execute.machine import (
    THREAD_VARIABLES,
    VISIBLE_GPUS,
    resident_memory,
    sharers,
    usable_cores,
    visible_gpus,
    workers_on_gpus,
)
from cuvee.execute.protocol import Lost, R, T, Terms
from cuvee.inputs import free_memory
from cuvee.registry import list_trusted

_WATCH_S = 0.2
"""How often the memory of workers is looked at, where it is limited."""


class ProcessExecutor:
    """Runs items in worker processes, which start when the first item comes and stay until the end.

    Work is written to one file that all workers map; an item travels through a socket, its result comes back through
    it. A worker that the parent outlives is ended with it; where the parent is killed, the workers see the socket
    close and end themselves.

    Args:
        terms: workers, deadline, memory, retries, threads.
    """

    def __init__(self, terms: Terms | None = None) -> None:
        self._terms = terms or Terms()
        self._folder = Path(tempfile.mkdtemp(prefix="cuvee-workers-"))
        self._crew: _ProcessCrew | None = None
        self._dispatcher: Dispatcher | None = None
        self._work: object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers."""
        if self._crew is not None:
            self._crew.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run_all(
        self, work: Callable[[T], R], items: Iterable[T], *, on_start: Callable[[T], None] | None = None
    ) -> Iterator[tuple[T, R | Lost]]:
        """Each item with its result, as they finish. The same ``work`` again finds its workers ready."""
        if self._crew is None or self._dispatcher is None or self._work is not work:
            if self._crew is not None:
                self._crew.close()
            self._crew = _ProcessCrew(work, self._folder, self._terms)
            self._dispatcher, self._work = Dispatcher(self._crew, self._terms), work
        for item, result in self._dispatcher.run(items, on_start):
            yield item, cast("R | Lost", result)


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    wire: Connection
    complaints: Path
    place: int


class _ProcessCrew:
    def __init__(self, work: object, folder: Path, terms: Terms) -> None:
        self._folder, self._terms, self._work = folder, terms, work
        self._file = folder / f"work-{time.monotonic_ns()}"
        self._numbers = count()
        self._workers: dict[int, _Worker] = {}
        self._gpus = visible_gpus()
        self._room = _count_workers(terms, len(self._gpus))

    def room(self) -> int:
        return self._room

    def hire(self) -> int:
        if not self._file.exists():
            pack(self._work, self._file)
        number = next(self._numbers)
        taken = {worker.place for worker in self._workers.values()}
        place = next(p for p in count() if p not in taken)
        mine, theirs = socket.socketpair()
        complaints = self._folder / f"worker-{number}.err"
        trusted = list_trusted()
        with theirs, complaints.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cuvee.execute.worker", str(theirs.fileno()), str(self._file), *trusted],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=self._environment(place),
                start_new_session=True,  # Ctrl-C is for the parent, which ends its workers
            )
        self._workers[number] = _Worker(process, Connection(mine.detach()), complaints, place)
        return number

    def _environment(self, place: int) -> dict[str, str]:
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        threads = dict.fromkeys(THREAD_VARIABLES, str(self._terms.cpus or 1))
        made = {**os.environ, **threads, "PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false"}
        if self._terms.gpus:
            each = max(1, int(self._terms.gpus))
            first = place // sharers(self._terms.gpus) if self._terms.gpus < 1 else place * each
            made[VISIBLE_GPUS] = ",".join(self._gpus[first : first + each])
        return made

    def give(self, worker: int, item: object) -> None:
        with suppress(OSError):  # a dead one: the next wait says so
            self._workers[worker].wire.send_bytes(pickle.dumps(item))

    def dismiss(self, worker: int) -> None:
        gone = self._workers.pop(worker)
        _end(gone.process)
        gone.wire.close()

    def wait(self, seconds: float | None) -> Sequence[Report]:
        limited = self._terms.memory_gb is not None
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            pause = left if not limited else min(_WATCH_S, _WATCH_S if left is None else left)
            wires = {worker.wire: number for number, worker in self._workers.items()}
            reports = [self._read(wires[wire]) for wire in wait(list(wires), pause) if isinstance(wire, Connection)]
            reports += self._too_large({report.worker for report in reports}) if limited else []
            if reports or (until is not None and time.monotonic() >= until):
                return reports

    def _read(self, number: int) -> Report:
        try:
            kind, value = pickle.loads(self._workers[number].wire.recv_bytes())
        except (EOFError, OSError):
            reason = self._explain(self._workers[number])
            self.dismiss(number)
            return Report(worker=number, kind="died", reason=reason)
        return Report(worker=number, kind=cast("Literal['ready', 'result', 'error']", kind), value=value)

    def _too_large(self, heard: set[int]) -> Iterator[Report]:
        limit = self._terms.memory_gb or 0.0
        for number, worker in list(self._workers.items()):
            held = resident_memory(worker.process.pid)
            if number not in heard and held is not None and held > limit * 1e9:
                self.dismiss(number)
                reason = (
                    f"took {held / 1e9:.1f} GB, more than execute.memory_gb ({limit:g}), and was ended; raise it, or "
                    "make the trial smaller (batch size, validation rows)"
                )
                yield Report(worker=number, kind="memory", reason=reason)

    def _explain(self, worker: _Worker) -> str:
        """How it ended, with the last line that it wrote."""
        code = _end(worker.process, patience_s=5.0)  # one that closed its socket is about to be gone
        said = worker.complaints.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = f"; it wrote: {said[-1][:200]}" if said else ""
        if code < 0:
            killed = ", as when the machine runs out of memory" if -code == signal.SIGKILL else ""
            return f"ended by signal {signal.Signals(-code).name}{killed}{last}"
        return f"exit code {code}{last}"

    def close(self) -> None:
        for number in list(self._workers):
            self.dismiss(number)


def _end(process: subprocess.Popen[bytes], patience_s: float = 0.0) -> int:
    """End a process and all that it started; its exit code, its own if it ended within the seconds."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _count_workers(terms: Terms, gpus: int) -> int:
    """As many as cores, memory and GPUs allow; 0 where there are too few GPUs."""
    by_gpu = workers_on_gpus(gpus, terms.gpus) if terms.gpus else None
    if terms.workers is not None:
        return terms.workers if by_gpu is None else min(terms.workers, by_gpu)
    found = max(1, usable_cores() // (terms.cpus or 1))
    free = free_memory()
    if terms.memory_gb is not None and free is not None:
        found = max(1, min(found, int(free / (terms.memory_gb * 1e9))))
    return found if by_gpu is None else min(found, by_gpu)
