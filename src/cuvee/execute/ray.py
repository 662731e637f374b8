"""Work on a Ray cluster: a running one by address, or one started on this machine. The only file that imports ray."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count
from types import TracebackType
from typing import Protocol

from cuvee.errors import ConfigError, MissingDependency
from cuvee.execute.processes import THREAD_VARIABLES, usable_cores, workers_on_gpus
from cuvee.execute.workers import Report, Terms, Workers, WorkersExecutor
from cuvee.registry import list_trusted, trust_modules

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
try:
    import ray
except ImportError as exc:
    raise MissingDependency(
        "execute.kind ray needs ray: pip install 'cuvee[ray]', or set execute.kind: processes"
    ) from exc

_ROOM_S = 1.0
"""For how long what the cluster has counts as known."""
_KNOCK_S = 10.0
"""How long an address may take to answer."""
_GROWS_S = 300.0
"""How long a cluster that has no node for a worker may take to get one, where a number of workers was asked for."""


class _Ref(Protocol):
    """A result that is to come."""


class _Worker:
    """What an actor does: it holds the work and applies it to items."""

    def __init__(self, paths: Sequence[str], trusted: Sequence[str]) -> None:
        sys.path.extend(path for path in paths if path not in sys.path)
        self._trusted = trusted
        self._work: Callable[[object], object] | None = None

    def load(self, work: Callable[[object], object]) -> None:
        """Take the work, which lies in the node's object store."""
        self._work = work

    def do(self, item: object) -> object:
        """The result of one item."""
        assert self._work is not None
        with trust_modules(*self._trusted):
            return self._work(item)


class RayExecutor(WorkersExecutor):
    """Runs items on the actors of a Ray cluster.

    The work is put into the object store once; each node reads it from there, each actor maps it. Where an actor
    or its node dies its item is given to a fresh actor; results that came are never lost, since they are here.

    Args:
        address: of a running cluster, as ``ray.init`` takes it; None starts one on this machine, unless this process
            is connected to one already.
        terms: workers, deadline, memory, retries; cpus and gpus are resources of an actor.

    Raises:
        ConfigError: no cluster answers at the address.
    """

    def __init__(self, address: str | None = None, terms: Terms | None = None) -> None:
        super().__init__(terms)
        self._started = not ray.is_initialized()
        self._is_own = self._started and address is None
        if self._started:
            _connect(address)

    def _find_workers(self, work: object) -> Workers:
        # what was started here has all the nodes that it will ever have
        return _Actors(work, self._terms, grows_s=0.0 if self._is_own else _GROWS_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all actors, and the connection to the cluster if it was made here (a cluster started here ends)."""
        super().__exit__(kind, error, trace)
        if self._started:
            ray.shutdown()


def _connect(address: str | None) -> None:
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    cores = usable_cores() if address is None else None
    try:
        _knock(address or "")
        ray.init(
            # not "auto": a cluster that happens to run on this machine is not ours
            address=address or "local",
            num_cpus=cores,
            include_dashboard=False if address is None else None,
            configure_logging=False,
            logging_level=logging.CRITICAL,
            log_to_driver=False,
        )
    except (ConnectionError, OSError, ValueError, RuntimeError) as exc:
        where = f"no Ray cluster answers at execute.address {address!r}" if address else "Ray does not start here"
        first = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
        remedy = "start one with `ray start --head`, or set execute.kind: processes"
        raise ConfigError(f"{where} ({first}); {remedy}") from exc


def _knock(address: str) -> None:
    """Refuse an address at which nobody listens: ray would try for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


class _Actors:
    def __init__(self, work: object, terms: Terms, *, grows_s: float) -> None:
        self._terms, self._grows_s = terms, grows_s
        self._without_room_since: float | None = None
        self._numbers = count()
        self._actors: dict[int, ray.actor.ActorHandle] = {}
        self._refs: dict[_Ref, int] = {}
        self._ready: set[int] = set()
        self._known = (0, -_ROOM_S)
        self._work = ray.put(work)
        cpus = terms.cpus or 1
        self._actor = ray.remote(_Worker).options(
            num_cpus=cpus,
            num_gpus=terms.gpus,
            memory=None if terms.memory_gb is None else int(terms.memory_gb * 1e9),
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": dict.fromkeys(THREAD_VARIABLES, str(cpus)) | {"TOKENIZERS_PARALLELISM": "false"}},
        )

    def room(self) -> int:
        """As many actors as the cluster now holds in all, or those asked for, which may have to wait for room."""
        if self._terms.workers is None:
            return self._holds()
        return self._terms.workers if self._grows_s or self._holds() else 0

    def _holds(self) -> int:
        """Actors that the nodes hold, whatever else runs on them."""
        found, asked = self._known
        if time.monotonic() - asked >= _ROOM_S:
            found = sum(self._fits(node["Resources"]) for node in ray.nodes() if node["Alive"])
            self._known = (found, time.monotonic())
        return found

    def _fits(self, resources: dict[str, float]) -> int:
        memory = (self._terms.memory_gb or 0.0) * 1e9
        found = [int(resources.get("CPU", 0.0) / (self._terms.cpus or 1))]
        if memory:
            found.append(int(resources.get("memory", 0.0) / memory))
        if self._terms.gpus:
            found.append(workers_on_gpus(int(resources.get("GPU", 0.0)), self._terms.gpus))
        return min(found)

    def start(self) -> int:
        number = next(self._numbers)
        actor = self._actor.remote(list(sys.path), list_trusted())
        self._actors[number] = actor
        self._refs[actor.load.remote(self._work)] = number
        return number

    def give(self, worker: int, item: object) -> None:
        self._refs[self._actors[worker].do.remote(item)] = worker

    def end(self, worker: int) -> None:
        self._refs = {ref: number for ref, number in self._refs.items() if number != worker}
        ray.kill(self._actors.pop(worker), no_restart=True)

    def wait(self, seconds: float | None) -> Sequence[Report]:
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            waits = self._ready.isdisjoint(self._actors)  # nobody works yet: is there a node for anybody?
            pause = left if not waits else min(_ROOM_S, _ROOM_S if left is None else left)
            done, _ = ray.wait(list(self._refs), num_returns=1, timeout=pause)
            if done or (until is not None and time.monotonic() >= until):
                return [self._read(ref) for ref in done]
            if waits:
                self._check_room()

    def _check_room(self) -> None:
        """Refuse to wait for ever for a node that can hold a worker."""
        if self._holds():
            self._without_room_since = None
            return
        now = time.monotonic()
        self._without_room_since = self._without_room_since or now
        if now - self._without_room_since >= self._grows_s:
            raise ConfigError(
                f"execute: no node of the cluster holds a worker of {self._terms.cpus or 1} cpus and "
                f"{self._terms.gpus:g} gpus, and none came within {self._grows_s:g} s; lower execute.cpus, "
                "execute.gpus or execute.memory_gb"
            )

    def _read(self, ref: _Ref) -> Report:
        number = self._refs.pop(ref)
        try:
            value: object = ray.get(ref)
        except ray.exceptions.RayTaskError as exc:
            cause = exc.cause if isinstance(exc.cause, Exception) else RuntimeError(str(exc))
            return Report(worker=number, kind="error", value=cause)
        except ray.exceptions.RayError as exc:  # the actor or its node is gone
            self.end(number)
            self._known = (0, -_ROOM_S)
            return Report(worker=number, kind="died", reason=_first_line(exc))
        if number in self._ready:
            return Report(worker=number, kind="result", value=value)
        self._ready.add(number)
        return Report(worker=number, kind="ready")

    def close(self) -> None:
        for number in list(self._actors):
            self.end(number)


def _first_line(exc: Exception) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return f"{type(exc).__name__}: {lines[0][:200]}" if lines else type(exc).__name__
