"""The executor of a kind."""

from __future__ import annotations

from typing import Literal

from cuvee.execute.local import LocalExecutor
from cuvee.execute.processes import ProcessExecutor
from cuvee.execute.protocol import Executor, Terms

ExecutorKind = Literal["local", "processes", "ray"]


def open_executor(kind: ExecutorKind = "local", terms: Terms | None = None, *, address: str | None = None) -> Executor:
    """An executor; use it as a context manager.

    Args:
        kind: ``local`` (in this process), ``processes`` (of this machine), ``ray``.
        terms: ``local`` heeds ``cpus`` alone.
        address: of a Ray cluster; None starts one here.

    Raises:
        MissingDependency: ray is not installed.
        ConfigError: no cluster answers.
        ValueError: an unknown kind.
    """
    chosen = terms or Terms()
    if kind == "local":
        return LocalExecutor(chosen.cpus)
    if kind == "processes":
        return ProcessExecutor(chosen)
    if kind == "ray":
        from cuvee.execute.ray import RayExecutor

        return RayExecutor(address, chosen)
    raise ValueError(f"kind is {kind!r}; valid: local, processes, ray")
