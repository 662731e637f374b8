"""Trials: mix, train, evaluate; the grid, the dearer trainer's check, the confirmation, the advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cuvee.corpus import Corpus
from cuvee.fingerprint import hash_value
from cuvee.mix import Blend
from cuvee.recommend import PlannedTrial, confirm_cell, plan_grid, recommend_mixture
from cuvee.records import (
    Advice,
    Cell,
    Confirmation,
    Draw,
    Level,
    Measurement,
    Trial,
    TrialFailure,
)
from cuvee.study.generation import SPEED
from cuvee.study.pools import fresh_pool, usable_draws
from cuvee.study.running import make_mixing, run_planned
from cuvee.study.setup import FRESH, Pools, Study
from cuvee.study.work import Outcome

DIVERSITY = "vendi_q1"


def run_grid(study: Study, pools: Pools) -> list[Outcome]:
    """Every planned trial on validation; those in the run folder are not repeated."""
    config = study.config
    planned = plan_grid(
        usable_draws(study, pools),
        shares=config.mix.shares,
        base_share=config.mix.shape_share,
        rows_per_label=study.rows_per_label,
        sampling=config.draws.sampling,
        training=config.draws.training,
        trainer=config.train.trainer,
        loss=config.train.loss,
    )
    corpora = {level.key: pool.corpus for level, pool in pools.items()}
    return run_planned(study, planned, corpora, stage="train", steps=config.train.steps)


def check_trainer(study: Study, pools: Pools, measurements: Mapping[str, Measurement], draft: Advice) -> list[Outcome]:
    """The dearer trainer on real-only, on the best cell, and on the most diverse cell at the same share."""
    check = study.config.train.check
    if check is None or draft.best is None:
        return []
    best = draft.best.cell
    diverse = max(usable_draws(study, pools), key=lambda level: measurements[level.key].values[DIVERSITY].value)
    cells = [
        Cell(kind="real-only", rows_per_label=study.rows_per_label),
        best,
        replace(best, dial=diverse.dial, level=diverse.name),
    ]
    draws = usable_draws(study, pools)
    planned = []
    for cell in dict.fromkeys(replace(c, trainer=check.trainer, loss="ce") for c in cells):
        blocks = draws[level_of(pools, cell)] if cell.dial else sorted({b for d in draws.values() for b in d})
        planned += [
            PlannedTrial(cell=cell, draw=Draw(generation=b, sampling=0, training=0)) for b in blocks[: check.draws]
        ]
    corpora = {level.key: pool.corpus for level, pool in pools.items()}
    return run_planned(
        study, planned, corpora, stage=f"check with {check.trainer}", steps=check.steps, more=check.settings
    )


def confirm_best(study: Study, pools: Pools, draft: Advice) -> Confirmation | None:
    """The best cell, real-only and real-duplicated on fresh generation draws and the locked test, once.

    None where no draws are set aside. A study extended after its confirmation keeps the first one only if
    the best cell is still the same: the locked test is not opened for another.
    """
    config = study.config
    if config.draws.confirm == 0 or draft.best is None:
        return None
    best = draft.best.cell
    mark, earlier = _name_confirmation(study, best), study.folder.confirmed()
    if earlier is not None and earlier != mark:
        study.stages.listener.noted(
            f"the locked test was already used to confirm {earlier!r}: {mark!r} stays unconfirmed"
        )
        return None
    level = level_of(pools, best)
    fresh = fresh_pool(study, level, pools)
    corpus, blocks = fresh or (pools[level].corpus, usable_draws(study, pools)[level])
    baselines = (
        replace(best, kind="real-only", dial=None, level=None, share=0.0),
        replace(best, kind="real-duplicated", dial=None, level=None),
    )
    training = range(FRESH, FRESH + config.draws.training)
    planned = [
        PlannedTrial(cell=cell, draw=Draw(generation=g, sampling=s, training=t))
        for cell in (best, *baselines)
        for g in blocks
        for s in range(config.draws.sampling)
        for t in training
    ]
    test = study.locked_test(mark).open_for_confirmation()
    outcomes = run_planned(study, planned, {level.key: corpus}, stage="confirm", steps=config.train.steps, test=test)
    trials = [o for o in outcomes if isinstance(o, Trial)]
    return confirm_cell(trials, best, fresh_draws=fresh is not None)


def _name_confirmation(study: Study, best: Cell) -> str:
    """What the locked test is opened for: the cell, and a hash of how its rows are made and trained on.

    The same cell with other steps, prompts or filters is another thing to confirm.
    """
    config = study.config
    how = [
        config.train.model_dump(exclude={"check"}),
        config.generator.model_dump(exclude=SPEED),
        config.writing.model_dump(),
        [each.model_dump() for each in config.filters],
        [each.model_dump() for each in config.pools],
        config.describe,
        study.encoder.hash,
    ]
    return f"{best.key} ({hash_value(how)[:8]})"


def draw_advice(
    study: Study,
    pools: Pools,
    outcomes: Sequence[Outcome],
    measurements: Mapping[str, Measurement],
    confirmation: Confirmation | None = None,
) -> Advice:
    """What the trials say."""
    config = study.config
    ranks: dict[str, list[str]] = {}
    for level in sorted(usable_draws(study, pools), key=lambda k: k.rank):
        ranks.setdefault(level.dial, []).append(level.name)
    return recommend_mixture(
        [o for o in outcomes if isinstance(o, Trial)],
        [o for o in outcomes if isinstance(o, TrialFailure)],
        measurements=measurements,
        level_ranks=ranks,
        shape_share=config.mix.shape_share,
        descriptive_shares=overlapping_shares(study),
        delta=config.advice.delta,
        alpha=config.advice.alpha,
        trainer=config.train.trainer,
        loss=config.train.loss,
        confirmation=confirmation,
        scope=(
            f"{config.describe}, {study.rows_per_label} real rows a label, {len(study.train.labels)} labels, "
            f"generator {config.generator.kind}, trainer {config.train.trainer}"
        ),
    )


def overlapping_shares(study: Study) -> list[float]:
    """Shares whose blends need more rows than one generation draw holds: shown, but not tested."""
    return [share for share in study.config.mix.shares if share > 0 and study.blocks_needed(share) > 1]


def level_of(pools: Pools, cell: Cell) -> Level:
    """The level that a cell names."""
    return next(level for level in pools if (level.dial, level.name) == (cell.dial, cell.level))


def mix_cell(study: Study, pools: Mapping[str, Corpus], cell: Cell, draw: Draw) -> Blend:
    """The blend of a cell at a draw: from its block, or at larger shares from the next ones too.

    Raises:
        InputError: the blocks hold too few rows.
    """
    return make_mixing(study, pools, [cell.share]).mix(cell, draw)
