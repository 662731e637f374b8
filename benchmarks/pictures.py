"""The pictures of the docs: report.png, the page of the demo, and measured.png, the page of one of its pools.

``python benchmarks/pictures.py runs/demo`` after ``cuvee demo``; it needs Chromium and takes half a minute.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"report.png": (1200, 1750), "measured.png": (1100, 1900)}


def take_picture(page: Path, picture: Path, profile: str) -> None:
    """The top of a page, in the light theme."""
    width, height = SIZES[picture.name]
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
        f"--user-data-dir={profile}", "--blink-settings=preferredColorScheme=1", "--virtual-time-budget=3000",
        f"--window-size={width},{height}", f"--screenshot={picture}", page.resolve().as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def main(run: Path) -> None:
    """Write both pictures."""
    pool, real = run / "pools" / "topics=8.parquet", run / "headlines.jsonl"
    with TemporaryDirectory() as folder:
        page = Path(folder) / "topics-8.html"
        measure = [sys.executable, "-m", "cuvee", "measure", pool, "--against", real, "--page", page, "--quiet"]
        subprocess.run([str(each) for each in measure], check=True, stdout=subprocess.DEVNULL)
        for shown, name in ((run / "report.html", "report.png"), (page, "measured.png")):
            take_picture(shown, ROOT / "docs" / name, folder)
            print(ROOT / "docs" / name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
