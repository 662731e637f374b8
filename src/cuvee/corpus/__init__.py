"""The table of examples: user files in and out, splits, the locked test."""

from cuvee.corpus.content import compare_labels, end_of_tokens, first_same, normalise_text, split_tokens
from cuvee.corpus.files import load_corpus, load_vectors, read_columns, replace_text, write_corpus, write_table
from cuvee.corpus.splits import (
    LockedTest,
    Split,
    count_strata,
    few_shot_sets,
    label_strata,
    link_rows,
    number_folds,
    row_names,
    row_sources,
    split_corpus,
    written_from,
)
from cuvee.corpus.table import Corpus, Origin, Task
