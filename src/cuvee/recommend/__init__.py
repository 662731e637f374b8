"""Room: recommend. Compares trials and says which blend to use, or none, with the evidence. Pure."""

from cuvee.recommend.advice import recommend_mixture
from cuvee.recommend.cells import CellTable, collect_tables, confirm_cell, summarise_cells
from cuvee.recommend.checks import check_manipulation
from cuvee.recommend.search import PlannedTrial, plan_grid
from cuvee.recommend.shapes import test_shape
from cuvee.recommend.statistics import (
    Components,
    adjust_holm,
    count_more_draws,
    paired_gain,
    split_variance,
)
from cuvee.recommend.wording import advice_to_json, advice_to_text

__all__ = [
    "CellTable",
    "Components",
    "PlannedTrial",
    "adjust_holm",
    "advice_to_json",
    "advice_to_text",
    "check_manipulation",
    "collect_tables",
    "confirm_cell",
    "count_more_draws",
    "paired_gain",
    "plan_grid",
    "recommend_mixture",
    "split_variance",
    "summarise_cells",
    "test_shape",
]
