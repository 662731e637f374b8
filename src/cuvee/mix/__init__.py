"""Which examples stand together: shares, counts, blends."""

from cuvee.mix.blend import (
    Blend,
    assign_blocks,
    deal_blocks,
    first_rows,
    full_blocks,
    mix_corpora,
    share_counts,
    take_blocks,
)
from cuvee.mix.candidates import Filter
from cuvee.mix.filters import (
    Agreement,
    Dedupe,
    Degenerate,
    FewerPerCluster,
    Keep,
    Leak,
    Needed,
    Pairs,
    Scored,
    apply_filters,
    row_wise,
)
from cuvee.mix.paraphrases import replace_with_paraphrases
from cuvee.mix.search import OBJECTIVES
from cuvee.mix.select import METHODS, Method, Metric, Selection, Selector, fill_rows
