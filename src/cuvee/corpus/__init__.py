"""The table of examples: user files in and out, splits, the locked test."""

from cuvee.corpus.files import load_corpus, read_columns, write_corpus
from cuvee.corpus.splits import LockedTest, Split, split_corpus
from cuvee.corpus.table import SCHEMA, Corpus, Origin, Task, content_id, normalise_text

__all__ = [
    "SCHEMA",
    "Corpus",
    "LockedTest",
    "Origin",
    "Split",
    "Task",
    "content_id",
    "load_corpus",
    "normalise_text",
    "read_columns",
    "split_corpus",
    "write_corpus",
]
