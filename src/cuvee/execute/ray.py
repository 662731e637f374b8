"""Work on a Ray cluster: a running one by address, or one started on this machine. The only file that imports ray."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence

from cuvee.errors import ConfigError, MissingDependency
from cuvee.execute.workers import THREAD_VARIABLES, Ended, Terms, Worker, WorkersExecutor
from cuvee.inputs import first_line, usable_cores
from cuvee.registry import list_trusted, trust_modules

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
try:
    import ray
except ImportError as exc:
    raise MissingDependency("execute.kind ray needs ray: pip install 'cuvee[ray]', or set kind: processes") from exc

_ROOM_S = 1.0  # how often it is looked whether the cluster has a node for a worker
_KNOCK_S = 10.0  # how long an address may take to answer
# How long a cluster that has no node for a worker may take to get one, where a number of workers was asked for.
_GROWS_S = 300.0


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
        # what was started here has all the nodes that it will ever have
        self._grows = not self._started or address is not None
        if self._started:
            _connect(address)

    def _count_room(self) -> int:
        """As many actors as the cluster now holds in all, or those asked for, which may have to wait for room."""
        if self._terms.workers is None:
            return self.held()
        return self._terms.workers if self._grows or self.held() else 0

    def held(self) -> int:
        """How many actors fit on the nodes when nothing else runs there."""
        return sum(self._fits(node["Resources"]) for node in ray.nodes() if node["Alive"])

    def _fits(self, resources: dict[str, float]) -> int:
        memory = (self._terms.memory_gb or 0.0) * 1e9
        found = [int(resources.get("CPU", 0.0) / (self._terms.cpus or 1))]
        if memory:
            found.append(int(resources.get("memory", 0.0) / memory))
        if self._terms.gpus:
            found.append(int(resources.get("GPU", 0.0)) // self._terms.gpus)
        return min(found)

    def _carry_work(self, work: object) -> None:
        cpus, memory = self._terms.cpus or 1, self._terms.memory_gb
        self._carried = ray.put(work)
        self._actor = ray.remote(_Actor).options(
            num_cpus=cpus,
            num_gpus=self._terms.gpus,
            memory=None if memory is None else int(memory * 1e9),
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": dict.fromkeys(THREAD_VARIABLES, str(cpus)) | {"TOKENIZERS_PARALLELISM": "false"}},
        )

    def _make_worker(self) -> Worker:
        actor = self._actor.remote(list(sys.path), list_trusted())
        return _RayWorker(actor, self._carried, self._terms, self.held)

    def __exit__(self, *error: object) -> None:
        """End all actors, and the connection to the cluster if it was made here (a cluster started here ends)."""
        super().__exit__(*error)
        if self._started:
            ray.shutdown()


def _connect(address: str | None) -> None:
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        host, _, port = (address or "").rpartition("//")[2].rpartition(":")
        if host and port.isdigit():  # ray itself would try for minutes where nobody listens
            socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()
        ray.init(
            # not "auto": a cluster that happens to run on this machine is not ours
            address=address or "local",
            num_cpus=usable_cores() if address is None else None,
            include_dashboard=False if address is None else None,
            configure_logging=False,
            logging_level=logging.CRITICAL,
            log_to_driver=False,
        )
    except (ConnectionError, OSError, ValueError, RuntimeError) as exc:
        where = f"no Ray cluster answers at execute.address {address!r}" if address else "Ray does not start here"
        remedy = "start one with `ray start --head`, or set execute.kind: processes"
        raise ConfigError(f"{where} ({first_line(exc)}); {remedy}") from exc


class _Actor:
    """What an actor does: it holds the work, which lies in its node's object store, and applies it to items."""

    def __init__(self, paths: Sequence[str], trusted: Sequence[str]) -> None:
        sys.path.extend(path for path in paths if path not in sys.path)
        self._trusted = trusted
        self._work: Callable[[object], object] | None = None

    def load(self, work: Callable[[object], object]) -> None:
        """Take the work."""
        self._work = work

    def do(self, item: object) -> object:
        """The result of one item."""
        assert self._work is not None
        with trust_modules(*self._trusted):
            return self._work(item)


class _RayWorker:
    """An actor as the executor knows it; ``held`` says how many of its kind the cluster holds."""

    def __init__(
        self, actor: ray.actor.ActorHandle, work: ray.ObjectRef, terms: Terms, held: Callable[[], int]
    ) -> None:
        self._actor, self._work, self._terms, self._held = actor, work, terms, held

    def load(self) -> None:
        ready, since = self._actor.load.remote(self._work), time.monotonic()
        while not ray.wait([ready], timeout=_ROOM_S)[0]:
            if self._held():
                since = time.monotonic()
            elif time.monotonic() - since >= _GROWS_S:
                raise self._terms.no_room(f", and no node came within {_GROWS_S:g} s")
        self._get(ready)

    def do(self, item: object) -> object:
        result = self._actor.do.remote(item)
        if not ray.wait([result], timeout=self._terms.timeout_s)[0]:
            raise Ended.overdue(self._terms)
        return self._get(result)

    def _get(self, result: ray.ObjectRef) -> object:
        try:
            found: object = ray.get(result)
        except ray.exceptions.RayTaskError as exc:
            raise exc.cause if isinstance(exc.cause, Exception) else RuntimeError(str(exc)) from exc
        except ray.exceptions.RayError as exc:  # the actor or its node is gone
            raise Ended("died", f"{type(exc).__name__}: {first_line(exc)}") from exc
        return found

    def end(self) -> None:
        ray.kill(self._actor, no_restart=True)
