"""Which examples stand together: shares, counts, blends."""

from cuvee.mix.blend import Blend, mix_corpora
from cuvee.mix.blocks import assign_blocks, deal_blocks, full_blocks, take_blocks
from cuvee.mix.composition import count_composition
from cuvee.mix.filters import (
    FILTERS,
    Agreement,
    Dedupe,
    Degenerate,
    FewerPerCluster,
    Filter,
    Filtered,
    FilterStep,
    Keep,
    Leak,
    NoLeaks,
    Removed,
    apply_filters,
    assert_no_leaks,
)
from cuvee.mix.paraphrases import Replaced, ReplacedLabel, replace_with_paraphrases
from cuvee.mix.select import (
    METHODS,
    OBJECTIVES,
    Selection,
    select_levels,
    select_rows,
    select_target,
)
from cuvee.mix.shares import apportion_rows, largest_share, share_counts

__all__ = [
    "FILTERS",
    "METHODS",
    "OBJECTIVES",
    "Agreement",
    "Blend",
    "Dedupe",
    "Degenerate",
    "FewerPerCluster",
    "Filter",
    "FilterStep",
    "Filtered",
    "Keep",
    "Leak",
    "NoLeaks",
    "Removed",
    "Replaced",
    "ReplacedLabel",
    "Selection",
    "apply_filters",
    "apportion_rows",
    "assert_no_leaks",
    "assign_blocks",
    "count_composition",
    "deal_blocks",
    "full_blocks",
    "largest_share",
    "mix_corpora",
    "replace_with_paraphrases",
    "select_levels",
    "select_rows",
    "select_target",
    "share_counts",
    "take_blocks",
]
