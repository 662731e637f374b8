"""Room: recommend. Compares trials and says which blend to use, or none, with the evidence. Pure."""

from cuvee.recommend.adaptive import Acquisition, AdaptiveSearch, Imagined
from cuvee.recommend.advice import recommend_mixture
from cuvee.recommend.cells import CellTable, collect_tables, confirm_cell, summarise_cells
from cuvee.recommend.checks import check_manipulation
from cuvee.recommend.optimism import estimate_optimism
from cuvee.recommend.power import plan_draws, plan_power
from cuvee.recommend.search import GridSearch, PlannedTrial, Search, halve, plan_grid
from cuvee.recommend.sensitivity import compare_advice, summarise_rows
from cuvee.recommend.shapes import find_p_above, find_p_within, test_shape
from cuvee.recommend.statistics import (
    Components,
    adjust_holm,
    count_more_draws,
    paired_gain,
    split_variance,
)
from cuvee.recommend.two_lines import fit_two_lines
from cuvee.recommend.wording import advice_to_json, advice_to_text, sensitivity_to_json
from cuvee.records.advice import SensitivityRow, SensitivityTable

__all__ = [
    "Acquisition",
    "AdaptiveSearch",
    "CellTable",
    "Components",
    "GridSearch",
    "Imagined",
    "PlannedTrial",
    "Search",
    "SensitivityRow",
    "SensitivityTable",
    "adjust_holm",
    "advice_to_json",
    "advice_to_text",
    "check_manipulation",
    "collect_tables",
    "compare_advice",
    "confirm_cell",
    "count_more_draws",
    "estimate_optimism",
    "find_p_above",
    "find_p_within",
    "fit_two_lines",
    "halve",
    "paired_gain",
    "plan_draws",
    "plan_grid",
    "plan_power",
    "recommend_mixture",
    "sensitivity_to_json",
    "split_variance",
    "summarise_cells",
    "summarise_rows",
    "test_shape",
]
