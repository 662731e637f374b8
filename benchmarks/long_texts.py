"""Long texts: CPU-seconds to read and measure 12 texts of 60,000 words, and how they grow with the length.

``python benchmarks/long_texts.py`` prints each against its limit: 10 CPU-seconds for all standard metrics, and a ratio
of at most 2.5 for texts of twice the length, since no measure may be quadratic in the length of one text.
"""

import argparse
import resource
import tempfile
from pathlib import Path

import numpy as np

from cuvee.corpus import load_corpus
from cuvee.encoders import load_encoder
from cuvee.measure import measure_corpus

LIMIT, RATIO = 10.0, 2.5  # CPU-seconds; of twice the length


def seconds() -> float:
    """CPU-seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def write(path: Path, texts: int, words: int) -> None:
    """A CSV of texts with a vocabulary of 20,000 words, by Zipf's law."""
    rng = np.random.default_rng(0)
    vocabulary = np.array([f"w{i:x}" for i in range(20_000)])
    rows = (" ".join(vocabulary[np.minimum(rng.zipf(1.3, words), 19_999)]) for _ in range(texts))
    path.write_text("text,label\n" + "".join(f"{row}.,{'ab'[i % 2]}\n" for i, row in enumerate(rows)), encoding="utf-8")


def measure(words: int, encoder: str, folder: Path) -> float:
    """CPU-seconds to read and measure 12 texts of so many words."""
    path = folder / f"{words}.csv"
    write(path, 12, words)
    before = seconds()
    found = measure_corpus(load_corpus(path), encoder=load_encoder(encoder))
    said = ("cut to words", "rows cut", "no_interval")
    cut = [f"{name} {key} {v.settings[key]}" for name, v in found.values.items() for key in said if key in v.settings]
    spent = seconds() - before
    print(f"12 texts of {words:,} words, encoder {encoder}: {spent:.1f} CPU-s; {'; '.join(cut)}")
    return spent


def main() -> None:
    """Print seconds and ratios beside their limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="hashing")
    parser.add_argument("--words", type=int, default=60_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(100, given.encoder, Path(folder))  # imports
        half, whole = (measure(words, given.encoder, Path(folder)) for words in (given.words // 2, given.words))
    for name, value, limit in (("CPU-seconds", whole, LIMIT), ("ratio of twice the length", whole / half, RATIO)):
        print(f"{name}: {value:.2f}, limit {limit}: {'holds' if value <= limit else 'MISSED'}")


if __name__ == "__main__":
    main()
