"""What a corpus of real and synthetic rows holds, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from cuvee.corpus import Corpus, Origin, normalise_text
from cuvee.defects import split_tokens
from cuvee.records import Composition, PartCounts


def count_composition(corpus: Corpus) -> Composition:
    """What a corpus holds, counted from its ``origin``, ``id``, ``text`` and ``target`` columns.

    ``label_counts`` is empty for generation and retrieval: every row has a target of its own there.
    """
    repeats = Counter(corpus.ids)
    pairs = Counter(zip(corpus.targets, corpus.origins, strict=True))
    synthetic = corpus.origins.count("synthetic")
    labels = corpus.labels if corpus.task == "classification" else []
    return Composition(
        share=synthetic / len(corpus) if len(corpus) else 0.0,
        real_rows=len(corpus) - synthetic,
        synthetic_rows=synthetic,
        unique_rows=len(repeats),
        most_repeats=max(repeats.values(), default=0),
        label_counts={label: (pairs[label, "real"], pairs[label, "synthetic"]) for label in labels},
        unique_texts=_count_texts(corpus, range(len(corpus))),
        real=_count_part(corpus, "real"),
        synthetic=_count_part(corpus, "synthetic"),
    )


def _count_part(corpus: Corpus, origin: Origin) -> PartCounts:
    rows = [row for row, found in enumerate(corpus.origins) if found == origin]
    words = sum(_read_text(corpus.texts[row])[1] for row in rows)
    if corpus.task != "classification":  # a target is text to learn from, not a name
        words += sum(_read_text(corpus.targets[row])[1] for row in rows)
    repeats = Counter(corpus.ids[row] for row in rows)
    return PartCounts(
        rows=len(rows),
        words=words,
        unique_rows=len(repeats),
        unique_texts=_count_texts(corpus, rows),
        most_repeats=max(repeats.values(), default=0),
    )


def _count_texts(corpus: Corpus, rows: Sequence[int]) -> int:
    return len({(_read_text(corpus.texts[row])[0], corpus.contexts[row]) for row in rows})


@lru_cache(maxsize=2**15)  # a study counts the same few rows in every trial
def _read_text(text: str) -> tuple[str, int]:
    """A text as it is compared, and its words."""
    return normalise_text(text), len(split_tokens(text))
