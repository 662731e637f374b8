"""Which examples stand together: shares, counts, blends."""

from cuvee.mix.blend import Blend, apportion_rows, count_composition, first_rows, mix_corpora, share_counts
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
    Needed,
    apply_filters,
    row_wise,
)
from cuvee.mix.paraphrases import Replaced, replace_with_paraphrases
from cuvee.mix.search import OBJECTIVES
from cuvee.mix.select import METHODS, Selection, select_levels, select_rows, select_target
