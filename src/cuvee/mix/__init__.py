"""Which examples stand together: shares, counts, blends."""

from cuvee.mix.blend import Blend, count_composition, mix_corpora
from cuvee.mix.shares import apportion_rows, largest_share, share_counts

__all__ = ["Blend", "apportion_rows", "count_composition", "largest_share", "mix_corpora", "share_counts"]
