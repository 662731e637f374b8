"""Work in processes of this machine: each with its own threads and memory, ended without harm to the others.

joblib and loky are not used: their pools break when one worker dies, and their workers outlive a parent that is killed.
"""

from __future__ import annotations

import mmap
import os
import pickle
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Literal, cast

from cuvee.execute.workers import Report, Terms, Workers, WorkersExecutor
from cuvee.inputs import free_memory, read_kernel
from cuvee.registry import list_trusted

_WATCH_S = 0.2
"""How often the memory of workers is looked at, where it is limited."""
_ALIGNED = 64
_HEAD = struct.Struct("<QQ")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Where libraries of linear algebra look for their number of threads when they are loaded."""
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its control group."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        cores = os.cpu_count() or 1
    quota = read_kernel("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit() and int(quota[1]) > 0:
        cores = min(cores, max(1, int(quota[0]) // int(quota[1])))
    return cores


def resident_memory(process: int) -> int | None:
    """Bytes of memory that a process holds, without what it shares through files; None where not known."""
    fields = read_kernel(f"/proc/{process}/statm").split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 2 else None


def visible_gpus() -> list[str]:
    """Names of the NVIDIA GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` takes them."""
    named = os.environ.get(VISIBLE_GPUS)
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(number) for number, _ in enumerate(folder.iterdir())] if folder.is_dir() else []


def sharers(gpus: float) -> int:
    """Workers that share one GPU where each wants so many, which is below 1: none is split over two."""
    return int(1.0 / gpus + 1e-9)


def workers_on_gpus(there: int, gpus: float) -> int:
    """Workers that so many GPUs hold, where each wants ``gpus`` of them, above 0."""
    return there * sharers(gpus) if gpus < 1 else there // int(gpus)


class ProcessExecutor(WorkersExecutor):
    """Runs items in worker processes, which start when the first item comes and stay until the end.

    Work is written to one file that all workers map; an item travels through a socket, its result comes back through
    it. A worker that the parent outlives is ended with it; where the parent is killed, the workers see the socket
    close and end themselves.

    Args:
        terms: workers, deadline, memory, retries, threads.
    """

    def __init__(self, terms: Terms | None = None) -> None:
        super().__init__(terms)
        self._folder = Path(tempfile.mkdtemp(prefix="cuvee-workers-"))

    def _find_workers(self, work: object) -> Workers:
        return _Processes(work, self._folder, self._terms)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers."""
        super().__exit__(kind, error, trace)
        shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    wire: Connection
    complaints: Path
    place: int


class _Processes:
    def __init__(self, work: object, folder: Path, terms: Terms) -> None:
        self._folder, self._terms, self._work = folder, terms, work
        self._file = folder / f"work-{time.monotonic_ns()}"
        self._numbers = count()
        self._workers: dict[int, _Worker] = {}
        self._gpus = visible_gpus()
        self._room = _count_workers(terms, len(self._gpus))

    def room(self) -> int:
        return self._room

    def start(self) -> int:
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

    def end(self, worker: int) -> None:
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
            self.end(number)
            return Report(worker=number, kind="died", reason=reason)
        return Report(worker=number, kind=cast("Literal['ready', 'result', 'error']", kind), value=value)

    def _too_large(self, reported: set[int]) -> Iterator[Report]:
        limit = self._terms.memory_gb or 0.0
        for number, worker in list(self._workers.items()):
            held = resident_memory(worker.process.pid)
            if number not in reported and held is not None and held > limit * 1e9:
                self.end(number)
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
            self.end(number)


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
