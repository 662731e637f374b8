"""Which examples stand together: shares, counts, blends."""

from cuvee.mix.blend import Blend, count_composition, mix_corpora
from cuvee.mix.blocks import assign_blocks, full_blocks, take_blocks
from cuvee.mix.shares import apportion_rows, largest_share, share_counts

__all__ = [
    "Blend",
    "apportion_rows",
    "assign_blocks",
    "count_composition",
    "full_blocks",
    "largest_share",
    "mix_corpora",
    "share_counts",
    "take_blocks",
]
