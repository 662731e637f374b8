"""Diversity measures side by side: Cuvée, its peers, and the formulas written out; ratios within one run.

    python benchmarks/measure.py [--rows 2000 8000 20000] [--large 100000] [--texts 1000]

Peers that are not installed are named and left out (emb-diversity, sentropy, vendi-score, nltk, rouge-score).
Every measure runs in a process of its own on the same vectors, after a small warm-up that loads its libraries;
DCScore at the small sizes three times, the median shown.
CPU seconds count all threads; memory is the peak over what the input holds (Linux).
About ten minutes on two cores with the default sizes.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

DIMENSIONS = 384
Task = Callable[[], float]


@dataclass(frozen=True)
class Cost:
    """What one measure took."""

    value: float
    cpu: float
    wall: float
    megabytes: float


# --- contenders: each takes what it measures and returns the measure, ready to run ------------------------
def dcscore_formula(vectors: np.ndarray) -> Task:
    """trace(softmax(X X^T)) with the whole matrix, in numpy."""

    def run() -> float:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        kernel = unit @ unit.T
        kernel -= kernel.max(axis=1, keepdims=True)
        powers = np.exp(kernel)
        return float(np.trace(powers / powers.sum(axis=1, keepdims=True)))

    return run


def dcscore_emb_diversity(vectors: np.ndarray) -> Task:
    import emb_diversity

    return lambda: float(emb_diversity.dcscore(vectors)["value"])


def dcscore_sentropy(vectors: np.ndarray) -> Task:
    from sentropy import sentropy

    def run() -> float:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        n = len(unit)
        similarity = np.exp(unit @ unit.T - 1.0)
        return float(sentropy(np.full(n, 1.0 / n), similarity=similarity, q=0, level="overall", eff_no=True))

    return run


def dcscore_cuvee(vectors: np.ndarray) -> Task:
    from cuvee.similarity import kernel_diversity, row_sums, unit_rows

    return lambda: kernel_diversity(row_sums(unit_rows(vectors), [1.0])[0].total)


def all_cuvee(vectors: np.ndarray) -> Task:
    from cuvee.measure import measure_vectors

    names = [f"dcscore_tau{t}" for t in ("1", "0.5", "0.2", "0.1", "0.05")] + ["near_duplicate_rate"]
    return lambda: measure_vectors(vectors, metrics=names).values["dcscore_tau1"].value


def vendi_vendi_score(vectors: np.ndarray) -> Task:
    from vendi_score import vendi

    return lambda: float(vendi.score_X(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))


def vendi_cuvee(vectors: np.ndarray) -> Task:
    from cuvee.similarity import spectrum, unit_rows, vendi_score

    return lambda: vendi_score(spectrum(unit_rows(vectors)))


def self_bleu_nltk(texts: Sequence[str]) -> Task:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    from cuvee.corpus import split_tokens

    smooth = SmoothingFunction().method1

    def run() -> float:
        rows = [split_tokens(t) for t in texts]
        others = (rows[:i] + rows[i + 1 :] for i in range(len(rows)))
        found = (sentence_bleu(o, row, smoothing_function=smooth) for o, row in zip(others, rows, strict=True))
        return float(np.mean(list(found)))

    return run


def lexical_cuvee(texts: Sequence[str], metric: str) -> Task:
    from cuvee.corpus import Corpus
    from cuvee.measure import measure_corpus

    corpus = Corpus.from_rows({"text": t, "target": "x"} for t in texts)
    return lambda: measure_corpus(corpus, metrics=[metric]).values[metric].value


VECTORS: dict[str, Callable[[np.ndarray], Task]] = {
    "DCScore, formula in numpy": dcscore_formula,
    "DCScore, emb-diversity": dcscore_emb_diversity,
    "DCScore, sentropy": dcscore_sentropy,
    "DCScore, cuvee float32": dcscore_cuvee,
    "DCScore at 5 taus + near-duplicates, all intervals, cuvee": all_cuvee,
    "Vendi, vendi-score": vendi_vendi_score,
    "Vendi, cuvee": vendi_cuvee,
}
TEXTS: dict[str, Callable[[Sequence[str]], Task]] = {
    "self-BLEU, nltk": self_bleu_nltk,
    "self-BLEU, cuvee (with interval)": lambda t: lexical_cuvee(t, "self_bleu"),
}
SLOW = {"Vendi, vendi-score": 8000, "DCScore, emb-diversity": 20_000, "DCScore, sentropy": 20_000}
"""Largest n that a peer is asked for: above, it needs more memory than 24 GB or many minutes."""


# --- one measure in its own process ------------------------------------------------------------------------
def run_one(name: str, path: str) -> Cost:
    if name in VECTORS:
        vectors = np.load(path)
        VECTORS[name](vectors[:64].copy())()
        task = VECTORS[name](vectors)
    else:
        texts = json.loads(Path(path).read_text(encoding="utf-8"))
        TEXTS[name](texts[:8])()
        task = TEXTS[name](texts)
    held = forget_peak()
    cpu, wall = time.process_time(), time.perf_counter()
    value = task()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Cost(value, cpu, wall, (read_status("VmHWM") - held) / 1000)


def forget_peak() -> int:
    """Kilobytes in memory now, from which the peak is counted anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return read_status("VmRSS")


def read_status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def measure(name: str, path: str, times: int = 1) -> Cost | None:
    """The cost of one measure, the median by CPU seconds; None where its package is missing or it fails."""
    found = sorted((c for c in (_measure_once(name, path) for _ in range(times)) if c is not None), key=lambda c: c.cpu)
    return found[len(found) // 2] if len(found) == times else None


def _measure_once(name: str, path: str) -> Cost | None:
    done = subprocess.run([sys.executable, __file__, "--one", name, path], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "Error" in line]
        print(f"  {name:<60} left out: {said[-1] if said else f'ended by signal {-done.returncode}'}")
        return None
    return Cost(**json.loads(done.stdout.strip().splitlines()[-1]))


def show(name: str, cost: Cost, base: Cost | None = None) -> None:
    line = f"  {name:<60} {cost.cpu:>9.3f} cpu-s {cost.wall:>9.3f} s {cost.megabytes:>8.0f} MB   value {cost.value:.6g}"
    if base is not None:
        line += f"   {cost.cpu / base.cpu:.3f} of the cpu-s"
    print(line, flush=True)


# --- the tables ----------------------------------------------------------------------------------------------
def make_vectors(n: int, folder: Path) -> str:
    """n vectors in 50 clusters, float32."""
    rng = np.random.default_rng(n)
    centres = rng.normal(size=(50, DIMENSIONS))
    path = folder / f"vectors-{n}.npy"
    np.save(path, (centres[rng.integers(0, 50, n)] + rng.normal(size=(n, DIMENSIONS))).astype(np.float32))
    return str(path)


def make_texts(n: int, folder: Path) -> str:
    """n texts of about twelve words with a Zipf law of words."""
    rng = np.random.default_rng(n)
    words = [f"w{i}" for i in range(5000)]
    law = 1.0 / np.arange(2, 5002)
    texts = [" ".join(rng.choice(words, size=rng.integers(8, 17), p=law / law.sum())) for _ in range(n)]
    path = folder / f"texts-{n}.json"
    path.write_text(json.dumps(texts), encoding="utf-8")
    return str(path)


def gemm_seconds(n: int, tile: int = 1024) -> float:
    """CPU seconds that the products of the upper triangle alone would take: the rate of one tile, measured."""
    from cuvee.similarity import single_blas_thread

    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(tile, DIMENSIONS)).astype(np.float32) for _ in range(2))
    with single_blas_thread():
        first @ second.T
        start = time.process_time()
        for _ in range(40):
            first @ second.T
        return (time.process_time() - start) / 40 * (n / tile) * (n / tile + 1) / 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="*", default=[2000, 8000, 20_000])
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--one", nargs=2)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(asdict(run_one(*options.one))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in options.rows:
            compare_vectors(n, make_vectors(n, folder))
        compare_texts(options.texts, make_texts(options.texts, folder))
        grow(folder)
        if options.large:
            large(options.large, make_vectors(options.large, folder))


def compare_vectors(n: int, path: str) -> None:
    print(f"n = {n}, d = {DIMENSIONS}")
    formula = None
    for contender in VECTORS:
        if n > SLOW.get(contender, n):
            continue
        cost = measure(contender, path, times=3 if contender.startswith("DCScore") else 1)
        if cost is not None:
            formula = formula or cost
            show(contender, cost, formula if contender.startswith("DCScore") and cost is not formula else None)


def compare_texts(n: int, path: str) -> None:
    print(f"{n} texts of 8 to 16 words")
    base = None
    for contender in TEXTS:
        cost = measure(contender, path)
        if cost is not None:
            base = cost if "cuvee" not in contender else base
            show(contender, cost, base if cost is not base else None)


def grow(folder: Path) -> None:
    """Log-log slopes of time and memory in n."""
    sizes = [5000, 10_000, 20_000, 40_000]
    costs = [measure("DCScore, cuvee float32", make_vectors(n, folder)) for n in sizes]
    known = [(n, c) for n, c in zip(sizes, costs, strict=True) if c is not None]
    if len(known) < len(sizes):
        return
    logs = [math.log(n) for n, _ in known]
    slope = [np.polyfit(logs, [math.log(max(v, 1e-3)) for v in values], 1)[0]
             for values in ([c.cpu for _, c in known], [c.megabytes for _, c in known])]  # fmt: skip
    print("growth of DCScore, cuvee float32, over n = " + ", ".join(map(str, sizes)))
    print(f"  slope of cpu-s {slope[0]:.2f}, of memory {slope[1]:.2f}")


def large(n: int, path: str) -> None:
    print(f"n = {n}, d = {DIMENSIONS}")
    alone = gemm_seconds(n)
    print(f"  {'the products of the tiles alone':<60} {alone:>9.3f} cpu-s")
    for contender in ("DCScore, cuvee float32", "Vendi, cuvee"):
        cost = measure(contender, path)
        if cost is not None:
            show(contender, cost)
            if "float32" in contender:
                print(f"  {'':<60} {alone / cost.cpu:.0%} of the rate of its products")


if __name__ == "__main__":
    main()
