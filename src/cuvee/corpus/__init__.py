"""The table of examples: user files in and out, splits, the locked test."""

from cuvee.corpus.content import content_id, normalise_text
from cuvee.corpus.files import load_corpus, read_columns
from cuvee.corpus.folds import fold_corpus
from cuvee.corpus.nested import few_shot
from cuvee.corpus.output import replace_text, write_corpus, write_table
from cuvee.corpus.splits import LockedTest, Split, distinct_sources, label_strata, row_sources, split_corpus
from cuvee.corpus.table import SCHEMA, Corpus, Origin, Task
from cuvee.corpus.vectors import load_vectors

__all__ = [
    "SCHEMA",
    "Corpus",
    "LockedTest",
    "Origin",
    "Split",
    "Task",
    "content_id",
    "distinct_sources",
    "few_shot",
    "fold_corpus",
    "label_strata",
    "load_corpus",
    "load_vectors",
    "normalise_text",
    "read_columns",
    "replace_text",
    "row_sources",
    "split_corpus",
    "write_corpus",
    "write_table",
]
