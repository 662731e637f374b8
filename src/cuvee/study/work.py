"""One trial as work that can run anywhere: mix, train, evaluate, with all data at hand and no run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from pydantic import TypeAdapter

from cuvee.corpus import Corpus
from cuvee.encoders import Encoder
from cuvee.errors import CuveeError
from cuvee.fingerprint import derive_seed, hash_value
from cuvee.mix import Blend, mix_corpora, take_blocks
from cuvee.recommend import PlannedTrial
from cuvee.records import Cell, Draw, Regime, Stage, Trial, TrialFailure
from cuvee.similarity import single_blas_thread
from cuvee.study.judging import Judging
from cuvee.study.setup import FRESH
from cuvee.train import TrainSettings, needs_real_rows, train_model, without_loss

Outcome = Trial | TrialFailure
NUMBERS = 1
"""How trials are mixed, trained and scored. Raised where a change of cuvee's own code gives other numbers, so that a
study that is continued with it mixes no trials of before and after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixing:
    """How cells become blends.

    Attributes:
        train: the real training rows.
        pools: level key -> its rows.
        blocks: (real rows a label, share) -> generation blocks that its synthetic rows come from.
        regime: of the shares.
        seed: of the study.
        fewer: real rows a label -> the smaller sets of real rows that cells of so many are made of.
    """

    train: Corpus
    pools: Mapping[str, Corpus]
    blocks: Mapping[tuple[int, float], int]
    regime: Regime
    seed: int
    fewer: Mapping[int, Corpus] = field(default_factory=dict)

    def mix(self, cell: Cell, draw: Draw) -> Blend:
        """The blend of a cell at a draw: from its block, or at larger shares from the next ones too.

        Raises:
            InputError: the blocks hold too few rows.
        """
        pool = None
        if cell.dial is not None:
            whole = self.pools[f"{cell.dial}={cell.level}"]
            is_fresh = draw.generation >= FRESH  # what is kept for the confirmation serves nothing else
            present = sorted({int(b) for b in whole.blocks if b >= 0 and (b >= FRESH) == is_fresh})
            start, needed = present.index(draw.generation), self.blocks[cell.rows_per_label, cell.share]
            pool = take_blocks(whole, {present[(start + k) % len(present)] for k in range(needed)})
        return mix_corpora(
            self.fewer.get(cell.rows_per_label, self.train),
            pool,
            share=cell.share,
            regime=self.regime,
            seed=derive_seed(self.seed, "sampling", draw.generation, draw.sampling),
            kind=cell.kind,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A planned trial, under the key that the run folder keeps it by."""

    number: int
    item: PlannedTrial
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialWork:
    """Runs tasks. It is carried once to each place where trials run.

    Attributes:
        mixing: makes the blend.
        held_out: what predictors are evaluated on.
        part: what it is.
        encoder: knows the vectors of all texts.
        steps: optimiser steps of every cell.
        source_weight: of synthetic rows, for the loss of that name.
        more: other settings of trainer and loss, by name.
        judging: how predictors are evaluated.
        code: hashes of the code of a trainer and a loss of the user's own; empty where both are built in.
    """

    mixing: Mixing
    held_out: Corpus
    part: Literal["validation", "test"]
    encoder: Encoder
    steps: int
    source_weight: float | None
    more: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    judging: Judging = field(default_factory=Judging)
    code: tuple[str, ...] = ()

    def key(self, item: PlannedTrial) -> str:
        """Hash of all that determines the trial's result.

        Raises:
            InputError: its blend cannot be mixed.
        """
        weight = self._weight(item.cell)
        blend = self.mixing.mix(item.cell, item.draw).corpus.fingerprint
        data = [blend, self.held_out.fingerprint, self.encoder.hash, self.mixing.seed]
        more: list[object] = [dict(sorted(self.more.items()))] if self.more else []
        more += [asdict(self.judging)] if self.judging != Judging() else []
        more += [["numbers", NUMBERS, *self.code]]
        return hash_value([item.cell, item.draw, self.part, self.steps, weight, *data, *more])

    def __call__(self, task: Task) -> Outcome:
        """The trial, or the failure it ended in."""
        cell, draw = task.item.cell, task.item.draw
        doing: Stage = "mix"
        try:
            with single_blas_thread():  # the same bits whatever the number of cores
                blend = self.mixing.mix(cell, draw)
                doing = "train"
                predictor = train_model(blend.corpus, settings=self._settings(cell, draw), encoder=self.encoder)
                doing = "evaluate"
                seed = self._seed(draw)
                scores = self.judging.judge(predictor, self.held_out, encoder=self.encoder, seed=seed)
        except (CuveeError, MemoryError) as exc:
            reason = str(exc) or "out of memory; lower split.validation or the trainer's batch size"
            return TrialFailure(cell=cell, draw=draw, stage=doing, reason=reason)
        return Trial(
            cell=cell, draw=draw, composition=blend.composition, steps=self.steps, part=self.part, scores=scores
        )

    def _weight(self, cell: Cell) -> float | None:
        return self.source_weight if cell.loss == "source_weight" else None

    def _settings(self, cell: Cell, draw: Draw) -> TrainSettings:
        made = replace(
            TypeAdapter(TrainSettings).validate_python(self.more),
            trainer=cell.trainer,
            loss=cell.loss,
            steps=self.steps,
            seed=self._seed(draw),
            source_weight=self._weight(cell),
        )
        if cell.kind == "synthetic-only" and needs_real_rows(made):  # no real row to learn a weight from
            return without_loss(made)
        return made

    def _seed(self, draw: Draw) -> int:
        return derive_seed(self.mixing.seed, "training", draw.generation, draw.sampling, draw.training)
