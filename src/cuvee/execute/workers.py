"""Work on many items by workers: on what terms, what to do when one dies, and workers in processes of this machine.

Each worker has its own threads and memory, and is ended without harm to the others. The pools of
joblib and loky are not used: they break when one worker dies, and their workers outlive a parent that is killed.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Generic, Literal, NoReturn, Protocol, Self, TypeVar, cast

from cuvee.errors import ConfigError
from cuvee.inputs import free_memory, read_kernel, usable_cores
from cuvee.registry import list_trusted, trust_modules

T = TypeVar("T")
R = TypeVar("R")
Cause = Literal["timeout", "memory", "died"]

# Where libraries of linear algebra look for their number of threads when they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
_WATCH_S = 0.2  # how often the time and the memory of workers are looked at, where they are limited
_MOST_THREADS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On what terms items are worked on, each a number above 0. None leaves a value to the executor.

    Args:
        workers: at once, at most; None is as many as cores, memory and GPUs allow.
        timeout_s: seconds an item may take before its worker is ended.
        memory_gb: resident memory (10^9 bytes) of a worker before it is ended.
        retries: how often an item is given to a fresh worker after its worker died.
        cpus: cores, and threads of linear algebra, of a worker.
        gpus: of a worker; 0 is none.
    """

    workers: int | None = None
    timeout_s: float | None = None
    memory_gb: float | None = None
    retries: int = 2
    cpus: int | None = None
    gpus: int = 0

    def no_room(self, waited: str = "") -> ConfigError:
        """The error if no worker with these terms fits anywhere."""
        return ConfigError(
            f"execute: no worker of {self.cpus or 1} cpus and {self.gpus} gpus fits anywhere{waited}; lower "
            "execute.cpus, execute.gpus or execute.memory_gb"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What stands in for the result of an item whose work was ended: ``reason`` says why, and what to do."""

    cause: Cause
    reason: str


@dataclass(slots=True)
class _Job(Generic[T]):
    """An item, and how many workers died on it."""

    item: T
    deaths: int = 0


@dataclass(frozen=True, slots=True)
class _Numbered(Generic[T, R]):
    """The work on an item that carries its number."""

    work: Callable[[T], R]

    def __call__(self, item: tuple[int, T]) -> R:
        return self.work(item[1])


class Executor(ABC):
    """Runs one function over many items. What the work itself refuses is a value that it returns, no exception.

    A context manager: leaving it ends what still runs.
    """

    @abstractmethod
    def run_all(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R | Lost]]:
        """Each item with its result, as they finish.

        Args:
            work: what to do; where it runs in other processes it is pickled once, each item once. The same ``work``
                again finds its workers ready.
            items: taken as they are needed, not all at once.

        Raises:
            ConfigError: no worker fits anywhere.
            Exception: whatever ``work`` raises, which no work should.
        """

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """``work(item)`` of each item, in the order of the items; what comes early waits for its turn.

        Raises:
            ConfigError: a worker was ended on an item, too often or by its limits.
        """
        early: dict[int, R] = {}
        turn = 0
        for (number, _), result in self.run_all(_Numbered(work), enumerate(items)):
            if isinstance(result, Lost):
                raise ConfigError(f"a worker was lost: {result.reason}")
            early[number] = result
            while turn in early:
                yield early.pop(turn)
                turn += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """End all workers."""
        return None


class Ended(Exception):
    """A worker died, or took more than it may."""

    def __init__(self, cause: Cause, reason: str) -> None:
        super().__init__(reason)
        self.cause, self.reason = cause, reason

    @classmethod
    def overdue(cls, terms: Terms) -> Ended:
        """The error of a worker that took too long."""
        return cls(
            "timeout",
            f"took longer than execute.timeout_s ({terms.timeout_s:g} s) and was ended; raise it, or make the trial "
            "smaller (fewer steps, fewer validation rows)",
        )


class Worker(Protocol):
    """One worker. Its first two methods block, each in a thread of the executor's."""

    def load(self) -> None:
        """Start, and return when it is ready. Raises ``Ended``, or what reading the work raised."""

    def do(self, item: object) -> object:
        """The result of an item. Raises ``Ended``, or what the work raised."""

    def end(self) -> None:
        """End it at once, even while it works."""


class WorkersExecutor(Executor):
    """An executor over workers, which start when the first item comes and stay until the end or until other work."""

    def __init__(self, terms: Terms | None = None) -> None:
        self._terms = terms or Terms()
        self._work: object = None
        self._workers: list[Worker] = []
        self._idle: list[Worker] = []
        self._threads = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="worker")
        self._futures: set[Future[object]] = set()
        self._early_deaths = 0

    @abstractmethod
    def _count_room(self) -> int:
        """How many workers may be at once, now. 0: none could ever be."""

    @abstractmethod
    def _carry_work(self, work: object) -> None:
        """Put the work where the workers read it."""

    @abstractmethod
    def _make_worker(self) -> Worker:
        """A worker that is not started yet."""

    def run_all(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R | Lost]]:
        """Each item with its result, as they finish."""
        source = map(_Job, items)
        waiting: deque[_Job[T]] = deque()
        running: dict[Future[object], tuple[Worker, _Job[T] | None]] = {}
        finished: list[tuple[T, R | Lost]] = []
        try:
            while True:
                room = self._count_room()
                waiting.extend(islice(source, max(0, max(1, room) - len(waiting))))
                if waiting and self._work != work:
                    self._close()
                    self._carry_work(work)
                    self._work = work
                while waiting and self._idle:
                    worker, job = self._idle.pop(), waiting.popleft()
                    running[self._submit(worker.do, job.item)] = worker, job
                if waiting and not room and not self._workers:
                    raise self._terms.no_room()
                starting = sum(job is None for _, job in running.values())
                for _ in range(min(room - len(self._workers), len(waiting) - starting)):
                    self._workers.append(worker := self._make_worker())
                    running[self._submit(worker.load)] = worker, None
                yield from finished  # only here, so that no worker waits for who reads the results
                if not waiting and len(running) == starting:
                    self._end_workers([worker for worker, _ in running.values()])
                    return
                finished = []
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    worker, mine = running.pop(future)
                    outcome = self._read(future, worker, begins=mine is None)
                    if mine is None:
                        continue
                    if isinstance(outcome, Ended) and outcome.cause == "died" and mine.deaths < self._terms.retries:
                        mine.deaths += 1
                        waiting.appendleft(mine)
                    else:
                        lost = _tell_loss(outcome, mine) if isinstance(outcome, Ended) else None
                        finished.append((mine.item, lost or cast("R", outcome)))
        except BaseException:
            self._close()
            raise

    def _read(self, future: Future[object], worker: Worker, *, begins: bool) -> object:
        """What a worker came back with; an ``Ended`` one is gone, any other is idle now."""
        self._futures.discard(future)
        try:
            found = future.result()
        except Ended as ended:
            self._end_workers([worker])
            self._early_deaths += begins
            if self._early_deaths > self._terms.retries:
                raise ConfigError(
                    f"execute: workers die before they begin ({ended.reason}); lower execute.workers, or set "
                    "execute.kind: local to see what is wrong"
                ) from None
            return ended
        self._idle.append(worker)
        if begins:
            self._early_deaths = 0
        return found

    def _submit(self, call: Callable[..., object], *given: object) -> Future[object]:
        future = self._threads.submit(call, *given)
        self._futures.add(future)
        return future

    def _end_workers(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            worker.end()
            self._workers.remove(worker)

    def __exit__(self, *error: object) -> None:
        """End all workers."""
        self._close()

    def _close(self) -> None:
        self._idle.clear()
        self._end_workers(list(self._workers))
        wait(self._futures)  # their threads see it
        self._futures.clear()


def _tell_loss(ended: Ended, job: _Job[T]) -> Lost:
    if ended.cause != "died":
        return Lost(cause=ended.cause, reason=ended.reason)
    times = "once" if job.deaths == 0 else f"{job.deaths + 1} times, each time on a fresh worker"
    reason = f"its worker died {times} (the last: {ended.reason}); if memory ran out, lower execute.workers"
    return Lost(cause="died", reason=reason)


# --- GPUs ---
def visible_gpus() -> list[str]:
    """Names of the NVIDIA GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` takes them."""
    named = os.environ.get(VISIBLE_GPUS)
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(number) for number, _ in enumerate(folder.iterdir())] if folder.is_dir() else []


# --- processes of this machine ---
class ProcessExecutor(WorkersExecutor):
    """Runs items in worker processes.

    Work is written to one file that all workers map; an item travels through a socket, its result comes back through
    it. A worker that the parent outlives is ended with it; where the parent is killed, the workers see the socket
    close and end themselves.

    Args:
        terms: workers, deadline, memory, retries, threads.
    """

    def __init__(self, terms: Terms | None = None) -> None:
        super().__init__(terms)
        self._folder = Path(tempfile.mkdtemp(prefix="cuvee-workers-"))
        self._numbers = count()
        self._gpus = visible_gpus()
        self._room = _count_processes(self._terms, len(self._gpus))

    def _count_room(self) -> int:
        return self._room

    def _carry_work(self, work: object) -> None:
        self._file = self._folder / f"work-{next(self._numbers)}"
        pack(work, self._file)

    def _make_worker(self) -> Worker:
        taken = {worker.place for worker in self._workers if isinstance(worker, _Process)}
        place = next(p for p in count() if p not in taken)
        complaints = self._folder / f"worker-{next(self._numbers)}.err"
        return _Process(self._terms, self._file, complaints, place, self._environment(place))

    def _environment(self, place: int) -> dict[str, str]:
        terms = self._terms
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        threads = dict.fromkeys(THREAD_VARIABLES, str(terms.cpus or 1))
        made = {**os.environ, **threads, "PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false"}
        if terms.gpus:
            made[VISIBLE_GPUS] = ",".join(self._gpus[place * terms.gpus : (place + 1) * terms.gpus])
        return made

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        shutil.rmtree(self._folder, ignore_errors=True)


class _Process:
    """A worker process. ``place`` says which GPUs are its own."""

    def __init__(self, terms: Terms, work: Path, complaints: Path, place: int, environment: dict[str, str]) -> None:
        self.place = place
        self._terms, self._complaints = terms, complaints
        mine, theirs = socket.socketpair()
        self._wire = Connection(mine.detach())
        program = "from cuvee.execute.workers import serve; serve()"
        with theirs, complaints.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", program, str(theirs.fileno()), str(work), *list_trusted()],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the parent, which ends its workers
            )

    def load(self) -> None:
        self._receive()

    def do(self, item: object) -> object:
        terms, begun = self._terms, time.monotonic()
        with suppress(OSError):  # a dead one: what is received says so
            self._wire.send_bytes(pickle.dumps(item))
        while not self._wire.poll(None if terms.timeout_s is None and terms.memory_gb is None else _WATCH_S):
            if terms.timeout_s is not None and time.monotonic() - begun >= terms.timeout_s:
                raise Ended.overdue(terms)
            held = 0 if terms.memory_gb is None else _resident_memory(self._process.pid)
            if terms.memory_gb is not None and held > terms.memory_gb * 1e9:
                raise Ended(
                    "memory",
                    f"took {held / 1e9:.1f} GB, more than execute.memory_gb ({terms.memory_gb:g}), and was ended; "
                    "raise it, or make the trial smaller (batch size, validation rows)",
                )
        return self._receive()

    def _receive(self) -> object:
        try:
            kind, value = pickle.loads(self._wire.recv_bytes())
        except (EOFError, OSError):
            raise Ended("died", self._explain()) from None
        if kind == "error":
            raise value
        return cast("object", value)

    def _explain(self) -> str:
        """How it ended, with the last line that it wrote."""
        with suppress(subprocess.TimeoutExpired):  # one that closed its socket is about to be gone
            self._process.wait(5.0)
        self.end()
        code = self._process.wait()
        said = self._complaints.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = f"; it wrote: {said[-1][:200]}" if said else ""
        if code < 0:
            killed = ", as when the machine runs out of memory" if -code == signal.SIGKILL else ""
            return f"ended by signal {signal.Signals(-code).name}{killed}{last}"
        return f"exit code {code}{last}"

    def end(self) -> None:
        """End it and all that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _resident_memory(process: int) -> int:
    """Bytes of memory that a process holds, without what it shares through files; 0 where not known."""
    fields = read_kernel(f"/proc/{process}/statm").split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 2 else 0


def _count_processes(terms: Terms, gpus: int) -> int:
    """As many as cores, memory and GPUs allow; 0 where there are too few GPUs."""
    found = terms.workers or max(1, usable_cores() // (terms.cpus or 1))
    free = free_memory()
    if terms.workers is None and terms.memory_gb is not None and free is not None:
        found = max(1, min(found, int(free / (terms.memory_gb * 1e9))))
    return min(found, gpus // terms.gpus) if terms.gpus else found


def pack(value: object, path: Path) -> None:
    """Pickle ``value`` into a file from which every worker maps its arrays.

    Raises:
        ValueError: a part of it cannot be pickled.
    """
    import joblib

    try:
        joblib.dump(value, path)
    except (pickle.PicklingError, TypeError, AttributeError) as exc:
        raise ValueError(f"work {type(value).__name__} cannot be carried to another process: {exc}") from exc


def unpack(path: Path) -> object:
    """What :func:`pack` wrote; its arrays are read-only views of the file. Only for files of our own."""
    import joblib

    return cast("object", joblib.load(path, mmap_mode="r"))


# --- in the worker process ---
def serve() -> NoReturn:
    """Say that the work is read, then answer each item, until the other end is gone: that is what a worker does.

    Its arguments are the number of its socket, the file of its work, and the modules that are trusted.
    """
    wire, path = Connection(int(sys.argv[1])), Path(sys.argv[2])
    inbox: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(wire, inbox, path.parent), daemon=True).start()
    work: Callable[[object], object] | None = None
    while True:
        kind, value = "result", cast("object", None)
        try:
            if work is None:
                work = cast("Callable[[object], object]", unpack(path))
            else:
                item = pickle.loads(inbox.get())
                with trust_modules(*sys.argv[3:]):
                    value = work(item)
            message = pickle.dumps((kind, value))
        except Exception as exc:  # noqa: BLE001 - it is raised again at the other end
            message = _pickle_error(exc)
        wire.send_bytes(message)


def _listen(wire: Connection, inbox: SimpleQueue[bytes], folder: Path) -> None:
    """Pass messages on. When the other end is gone, end this process and its children."""
    try:
        while True:
            inbox.put(wire.recv_bytes())
    except (EOFError, OSError):
        shutil.rmtree(folder, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)


def _pickle_error(error: Exception) -> bytes:
    error.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        message = pickle.dumps(("error", error))
        pickle.loads(message)  # some exceptions pickle and do not come back
    except Exception:  # noqa: BLE001 - whatever pickling of foreign objects raises
        trouble = f"in a worker process, {type(error).__name__}, which cannot be sent back: {error}"
        message = pickle.dumps(("error", RuntimeError(trouble)))
    return message
