"""Choosing diverse rows side by side: Cuvée, its peers, and plain greedy written out; ratios within one run.

    python benchmarks/selection.py [--small 2000] [--take 200] [--large 100000] [--take-large 1000]

Peers that are not installed are named and left out (apricot-select, submodlib-py). Every contender runs in a
process of its own on the same clustered vectors of 384 dimensions, after a small warm-up. One label and no matching
of lengths where peers take part, because they know neither; 20 labels with lengths matched in the large run.
CPU seconds count all threads; memory is the peak over what the input holds (Linux). About five minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cuvee.corpus import Corpus

DIMENSIONS = 384
TAU = 0.1
Task = Callable[[], list[int]]


@dataclass(frozen=True)
class Cost:
    """What one choice took, and what it scores."""

    vendi: float
    dcscore: float
    log_det: float
    cpu: float
    wall: float
    megabytes: float


# --- contenders: each takes unit rows and how many to choose, and returns the choice, ready to run ----------
def greedy_log_det_plain(unit: np.ndarray, take: int) -> Task:
    """Plain greedy by log det(I + K): every gain of every step from a solve, no updates."""

    def run() -> list[int]:
        rows, chosen = unit.astype(np.float64), [0]
        while len(chosen) < take:
            part = rows[chosen]
            solved = np.linalg.solve(np.eye(len(part)) + part @ part.T, part @ rows.T)
            gains = 2.0 - np.einsum("ij,ij->j", part @ rows.T, solved)
            gains[chosen] = -np.inf
            chosen.append(int(gains.argmax()))
        return chosen

    return run


def log_det_submodlib(unit: np.ndarray, take: int) -> Task:
    from submodlib import LogDeterminantFunction

    def run() -> list[int]:
        function = LogDeterminantFunction(n=len(unit), mode="dense", data=unit, metric="cosine", lambdaVal=1)
        found = function.maximize(budget=take, optimizer="LazyGreedy", show_progress=False)
        return [int(row) for row, _ in found]

    return run


def facility_location_apricot(unit: np.ndarray, take: int) -> Task:
    from apricot import FacilityLocationSelection

    def run() -> list[int]:
        found = FacilityLocationSelection(take, metric="cosine", optimizer="lazy").fit(unit)
        return [int(row) for row in found.ranking]

    return run


def cuvee(metric: str) -> Callable[[np.ndarray, int], Task]:
    def make(unit: np.ndarray, take: int) -> Task:
        from cuvee.mix import Selector

        pool = make_pool(len(unit), labels=1)
        return lambda: Selector(pool, unit, take, match_lengths=False).best(metric).rows.tolist()

    return make


def cuvee_large(metric: str) -> Callable[[np.ndarray, int], Task]:
    def make(unit: np.ndarray, take: int) -> Task:
        from cuvee.mix import Selector

        pool = make_pool(len(unit), labels=20)
        return lambda: Selector(pool, unit, take).best(metric).rows.tolist()

    return make


def cuvee_levels(unit: np.ndarray, take: int) -> Task:
    """Five levels, of which the last is shown."""
    from cuvee.mix import Selector

    pool = make_pool(len(unit), labels=20)
    return lambda: Selector(pool, unit, take).levels(5)[-1].rows.tolist()


SMALL: dict[str, Callable[[np.ndarray, int], Task]] = {
    "log det, plain greedy": greedy_log_det_plain,
    "log det, submodlib lazy greedy": log_det_submodlib,
    "log det, cuvee": cuvee("log_det"),
    "Vendi, cuvee": cuvee("vendi"),
    "facility location, apricot lazy": facility_location_apricot,
    "k-center, cuvee": cuvee("k_center"),
    "random, cuvee": cuvee("random"),
}
LARGE: dict[str, Callable[[np.ndarray, int], Task]] = {
    "log det, labels and lengths, cuvee": cuvee_large("log_det"),
    "Vendi, labels and lengths, cuvee": cuvee_large("vendi"),
    "five levels of Vendi, labels and lengths, cuvee": cuvee_levels,
    "random, labels and lengths, cuvee": cuvee_large("random"),
}


# --- what is chosen from, and what a choice scores ----------------------------------------------------------
def make_vectors(n: int, folder: Path) -> str:
    """n unit rows in clusters of very different sizes and widths, float32."""
    rng = np.random.default_rng(n)
    centres = rng.normal(size=(n // 50, DIMENSIONS)).astype(np.float32)
    weights = rng.pareto(1.5, len(centres)) + 0.1
    cluster = rng.choice(len(centres), n, p=weights / weights.sum())
    rows = centres[cluster]
    rows += rng.standard_normal((n, DIMENSIONS), dtype=np.float32) * rng.uniform(0.2, 0.8, n)[:, None].astype(
        np.float32
    )
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    path = folder / f"vectors-{n}.npy"
    np.save(path, rows)
    return str(path)


def make_pool(n: int, *, labels: int) -> Corpus:
    """A corpus to go with vectors: labels by turns, texts of 4 to 22 words."""
    from cuvee.corpus import Corpus

    return Corpus.from_rows(
        [
            {"id": str(i), "text": " ".join([f"w{i}", "x"] * (2 + (i * 7919) % 10)), "target": str(i % labels)}
            for i in range(n)
        ],
        origin="synthetic",
    )


def score(unit: np.ndarray, rows: list[int]) -> tuple[float, float, float]:
    """Vendi, DCScore and log det per row, from their definitions."""
    part = unit[rows].astype(np.float64)
    gram = part @ part.T
    values = np.maximum(np.linalg.eigvalsh(gram / len(part)), 0.0)
    values = values[values > 1e-12]
    sums = np.exp((gram - 1.0) / TAU).sum(axis=1)
    volume = np.linalg.slogdet(np.eye(len(part)) + gram)[1] / len(part)
    return float(np.exp(-(values * np.log(values)).sum())), float((1.0 / sums).sum()), float(volume)


# --- one contender in its own process -----------------------------------------------------------------------
def run_one(name: str, path: str, take: int) -> Cost:
    contender = {**SMALL, **LARGE}[name]
    unit = np.load(path)
    contender(unit[:300].copy(), 40)()
    task = contender(unit, take)
    held = forget_peak()
    cpu, wall = time.process_time(), time.perf_counter()
    rows = task()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    megabytes = (read_status("VmHWM") - held) / 1000
    if len(set(rows)) != take:
        raise SystemExit(f"ValueError: {len(set(rows))} distinct rows instead of {take}")
    return Cost(*score(unit, rows), cpu, wall, megabytes)


def forget_peak() -> int:
    """Kilobytes in memory now, from which the peak is counted anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return read_status("VmRSS")


def read_status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def measure(name: str, path: str, take: int) -> Cost | None:
    command = [sys.executable, __file__, "--one", name, path, str(take)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "Error" in line]
        print(f"  {name:<50} left out: {said[-1] if said else f'ended by signal {-done.returncode}'}")
        return None
    return Cost(**json.loads(done.stdout.strip().splitlines()[-1]))


def compare(contenders: dict[str, Callable[[np.ndarray, int], Task]], path: str, take: int) -> dict[str, Cost]:
    print(f"  {'':<50} {'cpu-s':>8} {'s':>8} {'MB':>7} {'Vendi':>9} {'DCScore':>9} {'log det':>9}")
    found = {}
    for name in contenders:
        cost = measure(name, path, take)
        if cost is not None:
            found[name] = cost
            print(
                f"  {name:<50} {cost.cpu:>8.2f} {cost.wall:>8.2f} {cost.megabytes:>7.0f} "
                f"{cost.vendi:>9.2f} {cost.dcscore:>9.2f} {cost.log_det:>9.5f}",
                flush=True,
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", type=int, default=2000)
    parser.add_argument("--take", type=int, default=200)
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--take-large", type=int, default=1000)
    parser.add_argument("--one", nargs=3)
    options = parser.parse_args()
    if options.one:
        name, path, take = options.one
        print(json.dumps(asdict(run_one(name, path, int(take)))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{options.take} of {options.small} rows")
        small = compare(SMALL, make_vectors(options.small, folder), options.take)
        exact, ours = small.get("log det, plain greedy"), small.get("log det, cuvee")
        if exact and ours:
            share = ours.log_det / exact.log_det
            print(f"  log det: {share:.4f} of plain greedy's value in {ours.cpu / exact.cpu:.3f} of its cpu-s")
        if options.large:
            print(f"{options.take_large} of {options.large} rows")
            compare(LARGE, make_vectors(options.large, folder), options.take_large)


if __name__ == "__main__":
    main()
