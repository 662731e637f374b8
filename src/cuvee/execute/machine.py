"""What this machine has for workers: cores, GPUs, memory that is taken."""

from __future__ import annotations

import os
from pathlib import Path

from cuvee.inputs import read_kernel

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
