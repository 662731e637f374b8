"""What the trials say: the advice of the main grid, how it depends on real rows, and whether other choices agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cuvee.config import FileGenerator
from cuvee.recommend import compare_advice, recommend_mixture, summarise_rows
from cuvee.recommend.checks import DIVERSITY
from cuvee.records import Advice, Confirmation, Measurement, Trial, TrialFailure
from cuvee.study.grids import PlannedGrid, find_winner, overlapping_shares, plan_grids
from cuvee.study.pools import usable_draws
from cuvee.study.setup import Pools, Study
from cuvee.study.work import Outcome

METRICS = ("vendi_q0.5", "dcscore_tau0.1", "distinct_2")
"""Other measures of diversity that the conclusions are drawn with too: another order, another kernel, words alone."""


class Advisor:
    """Draws advice from the outcomes of a study's trials.

    Args:
        study: prepared.
        pools: of all its levels.
        measurements: of all its pools.
    """

    def __init__(self, study: Study, pools: Pools, measurements: Mapping[str, Measurement]) -> None:
        self._study, self._measurements = study, measurements
        usable = usable_draws(study, pools)
        self._grids = plan_grids(study, usable)
        self._ranks: dict[str, list[str]] = {}
        for level in sorted(usable, key=lambda k: k.rank):
            self._ranks.setdefault(level.dial, []).append(level.name)
        self._levels = [level.key for level in usable]

    def draft(self, outcomes: Sequence[Outcome]) -> Advice:
        """What the main grid says, before the winner is confirmed and without other choices."""
        return self._advise(self._grids[0], outcomes)

    def conclude(
        self,
        grid: Sequence[Outcome],
        checks: Sequence[Outcome] = (),
        epochs: Sequence[Outcome] = (),
        confirmation: Confirmation | None = None,
    ) -> Advice:
        """The verdict with all its evidence.

        The advice under other choices is drawn on validation, and so is the base that it is set against.

        Args:
            grid: outcomes of all grids.
            checks: of the dearer trainer.
            epochs: with equal epochs in place of equal steps.
            confirmation: of the winner.
        """
        main, outcomes = self._grids[0], [*grid, *checks]
        advice = self._advise(main, outcomes, confirmation=confirmation)
        base = self._advise(main, outcomes)
        variants = self._vary(outcomes, epochs)
        rows = {each.rows_per_label: self._advise(each, outcomes) for each in self._of_main_recipe()}
        return replace(
            advice,
            sensitivity=compare_advice(base, variants) if variants else None,
            by_rows=summarise_rows(rows) if len(rows) > 1 else (),
            failures=advice.failures + sum(isinstance(outcome, TrialFailure) for outcome in epochs),
        )

    def _of_main_recipe(self) -> list[PlannedGrid]:
        main = self._grids[0]
        return [grid for grid in self._grids if (grid.trainer, grid.loss) == (main.trainer, main.loss)]

    def _vary(self, outcomes: Sequence[Outcome], epochs: Sequence[Outcome]) -> dict[str, Advice]:
        """Name -> the advice under another measure of diversity, trainer, loss or stopping rule."""
        main = self._grids[0]
        made = {
            f"metric {metric}": self._advise(main, outcomes, metric=metric)
            for metric in METRICS
            if all(metric in self._measurements[key].values for key in self._levels)
        }
        for grid in self._grids[1:]:
            if grid.rows_per_label == main.rows_per_label:
                trainer = [] if grid.trainer == main.trainer else [f"trainer {grid.trainer}"]
                loss = [] if grid.loss == main.loss else [f"loss {grid.loss}"]
                made[", ".join([*trainer, *loss])] = self._advise(grid, outcomes)
        check = self._study.config.train.check
        if check is not None:
            dearer = replace(main, trainer=check.trainer, loss="ce", planned=())
            if any(isinstance(o, Trial) and dearer.holds(o.cell) and o.cell.kind == "blend" for o in outcomes):
                made[f"trainer {check.trainer} (check)"] = self._advise(dearer, outcomes, searched=False)
        if any(isinstance(o, Trial) and o.cell.kind == "blend" for o in epochs):
            made["equal epochs"] = self._advise(main, epochs, searched=False)
        return made

    def _advise(
        self,
        grid: PlannedGrid,
        outcomes: Sequence[Outcome],
        *,
        metric: str = DIVERSITY,
        confirmation: Confirmation | None = None,
        searched: bool = True,
    ) -> Advice:
        study, config = self._study, self._study.config
        winner = None
        if searched:
            winner = find_winner(study, grid, self._measurements, outcomes, grids=len(self._grids), metric=metric)
        return recommend_mixture(
            [o for o in outcomes if isinstance(o, Trial)],
            [o for o in outcomes if isinstance(o, TrialFailure)],
            measurements=self._measurements,
            level_ranks=self._ranks,
            shape_share=config.mix.shape_share,
            descriptive_shares=overlapping_shares(study, grid.rows_per_label),
            delta=config.advice.delta,
            alpha=config.advice.alpha,
            trainer=grid.trainer,
            loss=grid.loss,
            rows_per_label=grid.rows_per_label,
            metric=metric,
            confirmation=confirmation,
            winner=winner,
            scope=self._write_scope(grid),
        )

    def _write_scope(self, grid: PlannedGrid) -> str:
        study, config = self._study, self._study.config
        each, kinds = "", ""
        if config.task == "classification":
            each, kinds = " a label", f"{len(study.train.labels)} labels, "
        scope = (
            f"{config.describe}, {grid.rows_per_label} real rows{each}, {kinds}"
            f"generator {config.generator.kind}, trainer {grid.trainer}"
        )
        if study.fewer and not isinstance(config.generator, FileGenerator):
            scope += (
                f". All pools were written with the {study.rows_per_label} real rows{each} at hand, so cells of "
                "fewer rows gain from more real rows than they are trained on"
            )
        return scope
