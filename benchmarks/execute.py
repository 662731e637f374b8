"""What executors cost beyond the work: ``python benchmarks/execute.py [SECONDS] [ITEMS] [KIND]``.

Items sleep, so that cores busy with other things hardly count: left are starting, sending, waiting and committing.
Each kind runs 2 workers on data of 100 MB; the overhead is time beyond SECONDS x ITEMS / 2, with and without the start.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cuvee.execute import ExecutorKind, Terms, open_executor
from cuvee.records import Cell, Draw, TrialFailure
from cuvee.store import RunFolder

WORKERS = 2


class Sleep:
    """Work that takes its time."""

    def __init__(self, seconds: float, megabytes: int) -> None:
        self.seconds = seconds
        self.data = np.zeros(megabytes * 125_000)

    def __call__(self, item: int) -> TrialFailure:
        time.sleep(self.seconds)
        draw = Draw(generation=item, sampling=0, training=0)
        return TrialFailure(cell=Cell(kind="real-only", rows_per_label=1), draw=draw, stage="train", reason="x" * 1000)


def run(kind: ExecutorKind, seconds: float, items: int) -> None:
    """Time one kind."""
    workers = 1 if kind == "local" else WORKERS
    ideal = seconds * items / workers
    with tempfile.TemporaryDirectory() as folder, RunFolder(Path(folder) / "run") as kept:
        begun = time.perf_counter()
        first = 0.0
        with open_executor(kind, Terms() if kind == "local" else Terms(workers=workers)) as executor:
            for item, outcome in executor.run_all(Sleep(seconds, 100), range(items)):
                first = first or time.perf_counter() - begun - seconds
                assert isinstance(outcome, TrialFailure)
                kept.add_trial(str(item), outcome)
            worked = time.perf_counter() - begun
        ended = time.perf_counter() - begun
    print(
        f"{kind:<10} {items} x {seconds:g} s on {workers}: ideal {ideal:.2f} s, took {ended:.2f} s "
        f"({100 * (ended / ideal - 1):.1f}% more), of it start {first:.2f} s, end {ended - worked:.2f} s; "
        f"between them {100 * ((worked - first) / ideal - 1):.2f}% more"
    )


if __name__ == "__main__":
    wanted = [*sys.argv[1:], *["1.0", "100"][len(sys.argv) - 1 :]]
    kinds: tuple[ExecutorKind, ...] = ("local", "processes", "ray")
    import execute  # under a name that workers can import

    print(f"load {os.getloadavg()[0]:.1f}")
    for chosen in kinds if len(wanted) < 3 else [k for k in kinds if k in wanted[2:]]:
        execute.run(chosen, float(wanted[0]), int(wanted[1]))
