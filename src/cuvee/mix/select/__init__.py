"""Choosing rows of a pool with size, labels and length held fixed: diversity without asking an LLM."""

from cuvee.mix.select.objectives import OBJECTIVES, DCScore, LogDet, Objective, Vendi
from cuvee.mix.select.selection import (
    METHODS,
    Selection,
    largest_difference,
    select_levels,
    select_rows,
    select_target,
)
from cuvee.mix.select.shift import lowest_shift
from cuvee.mix.select.strata import Strata, make_strata

__all__ = [
    "METHODS",
    "OBJECTIVES",
    "DCScore",
    "LogDet",
    "Objective",
    "Selection",
    "Strata",
    "Vendi",
    "largest_difference",
    "lowest_shift",
    "make_strata",
    "select_levels",
    "select_rows",
    "select_target",
]
