"""What other work on the machine does to what is timed."""

from __future__ import annotations

import os


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
