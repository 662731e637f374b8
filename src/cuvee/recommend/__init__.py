"""Room: recommend. Compares trials and says which blend to use, or none, with the evidence. Pure."""

from cuvee.recommend.advice import compare_advice, recommend_mixture, summarise_rows
from cuvee.recommend.cells import ComparedCells
from cuvee.recommend.confirming import confirm_cell
from cuvee.recommend.search import AdaptiveSearch, PlannedTrial, plan_grid
from cuvee.recommend.shapes import DIVERSITY
from cuvee.recommend.statistics import plan_power
from cuvee.recommend.wording import advice_to_json
