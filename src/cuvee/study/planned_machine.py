"""Timing without the network, and what other work on the machine does to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast


def machine_load() -> float:
    """Processes that wanted a core over the last minute, on average; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def tell_load(load: float, cores: int, kind: str) -> list[str]:
    """That other work slows down what was timed, if it does.

    Threads of one training wait for each other: on busy cores two can take many times as long as one.
    """
    if load <= cores / 2:
        return []
    told = f"this machine was busy before anything was timed (a load of {load:.1f} on {cores} cores)"
    alone = "; trials that share its cores with other work may be faster with execute.cpus 1" if kind == "local" else ""
    return [f"{told}: times are those of a busy machine, and vary{alone}"]


class _Constants(Protocol):
    HF_HUB_OFFLINE: bool


@contextmanager
def without_hub() -> Iterator[None]:
    """No model is fetched inside: what is not on this machine fails to load."""
    # loaded before the variable is set, since the package reads it once and keeps it
    hub = cast("_Constants", import_module("huggingface_hub.constants")) if find_spec("huggingface_hub") else None
    kept = None if hub is None else hub.HF_HUB_OFFLINE
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        if hub is not None:
            hub.HF_HUB_OFFLINE = True
        yield
    finally:
        if hub is not None and kept is not None:
            hub.HF_HUB_OFFLINE = kept
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before
