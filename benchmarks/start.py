"""What it costs to begin: CPU and memory of imports and of --help, memory of the client, size of the installation.

Run: ``python benchmarks/start.py``. Every line is the least of five runs, beside importing numpy in the same run.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

RUNS = 5
COMMANDS = {
    "import numpy": ["-c", "import numpy"],
    "import cuvee": ["-c", "import cuvee"],
    "cuvee --help": ["-m", "cuvee", "--help"],
    "cuvee measure --help": ["-m", "cuvee", "measure", "--help"],
    "the generating client": ["-c", "from cuvee import Endpoint, Ledger, generate_corpus"],
}


def run_once(arguments: list[str]) -> tuple[float, float]:
    """CPU seconds and peak memory (MB) of a python with these arguments."""
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawn(sys.executable, [sys.executable, *arguments], os.environ, file_actions=silent)
    _, status, used = os.wait4(process, 0)
    if status:
        raise SystemExit(f"python {' '.join(arguments)} failed")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def list_sizes(root: str) -> dict[str, float]:
    """MB of each package that installing ``root`` without extras brings."""
    sizes: dict[str, float] = {}
    waiting = [root]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in sizes:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:  # for another system or python
            continue
        files = [Path(str(found.locate_file(each))) for each in found.files or ()]
        sizes[name] = sum(each.stat().st_size for each in files if each.is_file()) / 1e6
        needed = [each for each in found.requires or () if "extra ==" not in each]
        waiting += [re.split(r"[^\w.-]", each, maxsplit=1)[0] for each in needed]
    return sizes


def main() -> None:
    """Print both tables."""
    print(f"{'':24}{'CPU s':>8}{'MB':>8}{'CPU, x numpy':>14}")
    base = 0.0
    for name, arguments in COMMANDS.items():
        runs = [run_once(arguments) for _ in range(RUNS)]
        cpu, memory = min(cpu for cpu, _ in runs), min(memory for _, memory in runs)
        base = base or cpu
        print(f"{name:24}{cpu:8.2f}{memory:8.0f}{cpu / base:14.1f}")
    sizes = list_sizes("cuvee")
    print(f"\nbase installation: {sum(sizes.values()):.0f} MB in {len(sizes)} packages")
    for name, size in sorted(sizes.items(), key=lambda pair: -pair[1])[:12]:
        print(f"{name:24}{size:8.0f}")


if __name__ == "__main__":
    main()
