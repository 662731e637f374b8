"""Which examples stand together: shares, counts, blends."""

from cuvee.mix.blend import Blend, count_composition, mix_corpora
from cuvee.mix.blocks import assign_blocks, deal_blocks, full_blocks, take_blocks
from cuvee.mix.filters import (
    Agreement,
    Dedupe,
    Degenerate,
    FewerPerCluster,
    Filter,
    Filtered,
    Keep,
    Leak,
    apply_filters,
)
from cuvee.mix.objectives import OBJECTIVES
from cuvee.mix.paraphrases import Replaced, replace_with_paraphrases
from cuvee.mix.select import METHODS, Selection, select_levels, select_rows, select_target
from cuvee.mix.shares import apportion_rows, share_counts

__all__ = [
    "METHODS",
    "OBJECTIVES",
    "Agreement",
    "Blend",
    "Dedupe",
    "Degenerate",
    "FewerPerCluster",
    "Filter",
    "Filtered",
    "Keep",
    "Leak",
    "Replaced",
    "Selection",
    "apply_filters",
    "apportion_rows",
    "assign_blocks",
    "count_composition",
    "deal_blocks",
    "full_blocks",
    "mix_corpora",
    "replace_with_paraphrases",
    "select_levels",
    "select_rows",
    "select_target",
    "share_counts",
    "take_blocks",
]
