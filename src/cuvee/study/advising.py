"""What the trials say: the advice of the main grid, how it depends on real rows, and whether other choices agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from cuvee.config.dials import TopicsConfig
from cuvee.recommend import DIVERSITY, ComparedCells, compare_advice, recommend_mixture, summarise_rows
from cuvee.recommend.confirming import judge_confirmation
from cuvee.recommend.wording import SEARCHED
from cuvee.records import UNORDERED, Advice, Cell, Confirmation, Outcome, Trial, TrialFailure, count_failed
from cuvee.records.advice import Edge, LostVariant, SensitivityTable
from cuvee.study.generation import count_requests, study_dials
from cuvee.study.grids import PlannedGrid, plan_grids
from cuvee.study.pools import PooledStudy
from cuvee.study.status import account_folder
from cuvee.study.trials import name_confirmation

# Other measures of diversity that the conclusions are drawn with too: another order, another kernel, words alone.
METRICS = ("vendi_q0.5", "dcscore_tau0.1", "distinct_2")


def _has_blend(outcomes: Sequence[Outcome], grid: PlannedGrid) -> bool:
    return any(isinstance(o, Trial) and grid.holds(o.cell) and o.cell.kind == "blend" for o in outcomes)


class Advisor:
    """Draws advice from the outcomes of a study's trials.

    Args:
        made: the study with its pools and what was measured on them.
        joined: whether outcomes are those of all folds.
    """

    def __init__(self, made: PooledStudy, *, joined: bool = False) -> None:
        self._made, self._study, self._joined = made, made.study, joined
        self._grids = plan_grids(made.study, made.levels)
        self._ranks: dict[str, list[str]] = {}
        for level in sorted(made.levels, key=lambda k: k.rank):
            self._ranks.setdefault(level.dial, []).append(level.name)

    def draft(self, outcomes: Sequence[Outcome]) -> Advice:
        """What the main grid says, before the winner is confirmed and without other choices."""
        return self._advise(self._grids[0], outcomes)

    def is_settled(self, draft: Advice, confirmation: Confirmation) -> bool:
        """Whether a look at the locked test says all that looks can say of the winner."""
        config = self._study.config.advice
        gains = () if draft.best is None else draft.best.gains
        return judge_confirmation(confirmation, gains, delta=config.delta, alpha=config.alpha).is_settled

    def lacks_blend(self, outcomes: Sequence[Outcome]) -> bool:
        """Whether every trial of a blend failed, of those that the advice is drawn from."""
        main = self._grids[0]
        blends = [o for o in outcomes if main.holds(o.cell) and o.cell.kind == "blend"]
        return bool(blends) and not _has_blend(blends, main)

    def conclude(
        self,
        grid: Sequence[Outcome],
        checks: Sequence[Outcome] = (),
        variants: Mapping[str, Sequence[Outcome]] = MappingProxyType({}),
        confirmation: Confirmation | None = None,
    ) -> Advice:
        """The verdict with all its evidence.

        The advice under other choices is drawn on validation, and so is the base that it is set against.

        Args:
            grid: outcomes of all grids.
            checks: of the dearer trainer.
            variants: name -> outcomes of the slice of the grid that was trained in another way.
            confirmation: of the winner.
        """
        main, outcomes = self._grids[0], [*grid, *checks]
        why = self._explain() if confirmation is None else ""
        advice = self._advise(main, outcomes, confirmation=confirmation, unconfirmed=why)
        same = [grid for grid in self._grids if (grid.trainer, grid.loss) == (main.trainer, main.loss)]
        rows = {each.rows_per_label: self._advise(each, outcomes, unconfirmed=self._searched) for each in same}
        edge, table = self._find_next(advice), self._compare(outcomes, variants)
        by_rows = summarise_rows(rows) if len(rows) > 1 else ()
        return replace(advice, edge=edge, sensitivity=table, by_rows=by_rows)

    def _compare(
        self, outcomes: Sequence[Outcome], variants: Mapping[str, Sequence[Outcome]]
    ) -> SensitivityTable | None:
        """The advice against that under other choices; None where there is no advice, or no other choice.

        A choice whose blends were all lost has no advice either: it is named with the reason.
        """
        main = self._grids[0]
        if not _has_blend(outcomes, main):
            return None
        made = {
            f"metric {metric}": self._advise(main, outcomes, metric=metric)
            for metric in METRICS
            if all(metric in self._made.measurements[level.key].values for level in self._made.levels)
        }
        lost = []

        def add(name: str, grid: PlannedGrid, outcomes: Sequence[Outcome]) -> None:
            own = [o for o in outcomes if grid.holds(o.cell)]
            failed = count_failed([o for o in own if isinstance(o, TrialFailure)], trials=len(own))
            if _has_blend(own, grid):
                made[name] = self._advise(grid, outcomes)
            elif failed is not None:
                lost.append(LostVariant(variant=name, failed=failed))

        for grid in self._grids[1:]:
            if grid.rows_per_label == main.rows_per_label:
                trainer = [] if grid.trainer == main.trainer else [f"trainer {grid.trainer}"]
                loss = [] if grid.loss == main.loss else [f"loss {grid.loss}"]
                add(", ".join([*trainer, *loss]), grid, outcomes)
        if (check := self._study.config.train.check) is not None:
            dearer = replace(main, trainer=check.trainer, loss="ce", planned=())
            add(f"trainer {check.trainer} (check)", dearer, outcomes)
        for name, found in variants.items():
            add(name, replace(main, planned=()), found)
        return replace(compare_advice(self._advise(main, outcomes), made), lost=tuple(lost)) if made or lost else None

    def _advise(
        self,
        grid: PlannedGrid,
        outcomes: Sequence[Outcome],
        *,
        metric: str = DIVERSITY,
        confirmation: Confirmation | None = None,
        unconfirmed: str = "",
    ) -> Advice:
        config = self._study.config
        recommend = partial(
            recommend_mixture,
            [o for o in outcomes if isinstance(o, Trial)],
            [o for o in outcomes if isinstance(o, TrialFailure)],
            measurements=self._made.measurements,
            level_ranks=self._ranks,
            shape_share=config.mix.shape_share,
            delta=config.advice.delta,
            alpha=config.advice.alpha,
            compared=ComparedCells(trainer=grid.trainer, loss=grid.loss, rows_per_label=grid.rows_per_label),
            metric=metric,
            confirmation=confirmation,
            unconfirmed=unconfirmed,
        )
        advice = recommend(winner=grid.find_winner(self._made.measurements, outcomes, metric))
        if (kept := self._find_confirmed(advice)) is not None:
            advice = recommend(winner=kept)
        return replace(advice, scope=f"{self._write_scope(grid)}. {advice.scope}".strip())

    def _find_next(self, advice: Advice) -> Edge | None:
        """The edge with what three times as many rows of a pool take, by the requests and tokens that the run spent."""
        study, edge, best = self._study, advice.edge, advice.best
        spent = None if study.ready_made else account_folder(study.folder.path)
        if edge is None or best is None or not edge.is_everything or spent is None or not spent.requests:
            return edge
        level = self._made.find_level(best.cell)
        settings, dial = next((settings, dial) for settings, dial in study_dials(study) if dial.name == level.dial)
        draws = study.draws_of(settings)
        slots = study.writing.slots(dial, range(draws, 3 * draws), [level.name])
        usable = 1.0 - min(0.99, sum(spent.rejected.values()) / spent.requests)
        part = count_requests(study, slots) * (study.config.split.crossfit or 1) / usable / spent.requests
        rows, tokens = 2 * self._made.levels[level].rows, part * (spent.prompt_tokens + spent.completion_tokens)
        return replace(edge, rows=rows, requests=round(part * spent.requests), tokens=round(tokens), part=part)

    def _find_confirmed(self, advice: Advice) -> Cell | None:
        """The blend that the locked test was opened for, where another is ahead by less than can be told apart.

        Its confirmation took no part in the choice, so it stays the choice of the study, and more draws or cells do not
        cost it its evidence. In folds each one has its own.
        """
        earlier = None if self._joined else self._study.folder.confirmed()
        alike = (summary.cell for summary in advice.not_distinguished)
        return next((cell for cell in alike if name_confirmation(self._made, cell) == earlier), None)

    def _explain(self) -> str:
        """Why there is no confirmation; empty where none is needed."""
        if self._study.draws.confirm == 0:
            return self._searched
        earlier = self._study.folder.confirmed()
        return f"the locked test was used for {earlier}" if earlier else "no trial of it on held-out rows was finished"

    @property
    def _searched(self) -> str:
        return SEARCHED if self._study.config.search.kind == "adaptive" else ""

    def _write_scope(self, grid: PlannedGrid) -> str:
        study, config = self._study, self._study.config
        each, kinds, rows = "", "", len(study.real_rows(grid.rows_per_label))
        if config.task == "classification":
            each, kinds = " a label", f" ({grid.rows_per_label} a label of {len(study.train.labels)})"
        draws = study.real_draws
        chosen = f"{rows} real rows{kinds}, chosen {draws} times from those at hand" if draws > 1 else ""
        scope = f"{config.describe}, {chosen or f'these {rows} real rows{kinds}'}, generator {config.generator.kind}"
        if not config.ready_made:
            scope += ", one prompt"
            scope += ", one list of topics" if any(isinstance(d, TopicsConfig) for d in config.dials) else ""
        scope += f", trainer {grid.trainer}"
        if study.few_shot_sets and not config.ready_made:
            scope += (
                f". All pools were written with the {study.rows_per_label} real rows{each} at hand, so cells of "
                "fewer rows gain from more real rows than they are trained on"
            )
        return scope + self._write_recipe()

    def _write_recipe(self) -> str:
        """What the recipe needs, where files are too small to be cut into draws of it."""
        study, needed = self._study, sum(self._study.block_rows().values())
        lacking = [
            f"{level.key} holds {has.rows}"
            for level, has in self._made.levels.items()
            if not has.blocks and len(self._ranks[level.dial]) > 1 and level.dial != UNORDERED
        ]
        if not study.ready_made or not lacking:
            return ""
        return (
            f". The recipe cannot be judged, so no shape over levels was tested: {', '.join(lacking[:3])} rows, and "
            f"two draws at share {study.config.mix.shape_share:g} need {2 * needed} of each level"
        )
