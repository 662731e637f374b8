"""The last step: a model of what the advice says, on all real rows that may be trained on, kept with its card."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from cuvee.config.sections import PROBE
from cuvee.corpus.files import fill_folder, replace_text
from cuvee.errors import TrialsAwaited
from cuvee.fingerprint import derive_seed, hash_value
from cuvee.hub import CARD_FILE
from cuvee.mix import mix_corpora
from cuvee.recommend import advice_to_json
from cuvee.records import Advice, Cell
from cuvee.report import render_model_card
from cuvee.study.grids import rows_at_hand
from cuvee.study.outputs import tell_facts
from cuvee.study.pools import PooledStudy
from cuvee.study.prepare import Study
from cuvee.study.running import NUMBERS, grid_recipes
from cuvee.train import TRAINERS, train_model

MODEL, KEY_FILE = "model", "model.json"  # of the run folder: the model, and the key of its making


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """The model of a study.

    Attributes:
        folder: that it lies in.
        cell: whose synthetic rows it is trained on; None where on real rows alone.
        real, synthetic: rows that it is trained on.
        said: which rows these are, and what the advice is.
    """

    folder: Path
    cell: Cell | None
    real: int
    synthetic: int
    said: str


def find_advised(advice: Advice) -> Cell | None:
    """The blend that is advised, or that the evidence leans to; None for the real rows alone."""
    if advice.decision == "use":
        return None if advice.best is None else advice.best.cell
    leans = advice.decision == "underpowered" and advice.lean is not None and advice.lean.gain > 0
    return advice.lean.cell if leans and advice.lean is not None else None


def train_advised(made: PooledStudy, advice: Advice) -> Winner:
    """Train the model into ``model/`` of the run folder, unless it lies there already.

    It is trained on the real rows that are not in the locked test, and on as many synthetic rows for each of them as
    the advised blend has, or all that the pool holds. A trainer of the user's own is handed the validation rows
    instead, for early stopping.

    Raises:
        TrialsAwaited: it is to be trained elsewhere.
        CuveeError: training failed, or the model cannot be kept.
    """
    study, cell = made.study, find_advised(advice)
    recipe, seed = grid_recipes(study)[0].fit(study), derive_seed(study.config.seed, MODEL)
    is_own = recipe.trainer not in TRAINERS or recipe.program is not None
    real, validation = study.split.at_hand or study.train, study.split.validation
    real = rows = real if is_own else real.joined(validation)
    if cell is not None:
        pool = rows_at_hand(made.pools[made.find_level(cell)].corpus)
        rows = mix_corpora(
            real,
            pool,
            share=None if cell.whole else cell.share,
            amount="all" if cell.whole else None,
            seed=seed,
            allow_fewer=True,
        ).corpus
    settings, synthetic = recipe.make_settings(recipe.steps, seed), len(rows) - len(real)
    said = _tell_rows(study, cell, len(real), synthetic, with_validation=not is_own)
    found = Winner(folder=study.folder.path / MODEL, cell=cell, real=len(real), synthetic=synthetic, said=said)
    told = [rows.fingerprint, asdict(settings), study.encoder.hash, NUMBERS, *recipe.code, said, advice_to_json(advice)]
    key = hash_value(told)
    known = study.folder.read_json(KEY_FILE, TypeAdapter(str), "the model is trained again")
    if known == key and found.folder.is_dir():
        return found
    work = None if recipe.program is None else study.folder.path.resolve() / "trials" / f"model-{key[:12]}"
    with study.stages.stage("model", "steps") as progress:
        try:
            predictor = train_model(
                rows,
                settings=settings,
                encoder=study.encoder,
                validation=validation if is_own else None,
                progress=lambda done, total, _loss: progress(done, total),
                folder=work,
            )
        except TrialsAwaited as exc:
            raise TrialsAwaited(
                f"the model is trained elsewhere: let {work} have a folder model, then run the same command again"
            ) from exc
        with fill_folder(found.folder, replaces=lambda _: True) as target:
            predictor.save(target)
            # a program's line and its folder tell of a machine
            taken = {name: value for name, value in asdict(predictor.settings).items() if name != "program"}
            base = study.encoder.name if recipe.trainer == PROBE else ""
            facts = tell_facts(study, f"{study.config.name} model", "cuvee train RUN", {"the rows": rows.fingerprint})
            card = render_model_card(facts, rows, taken, base=base, advice=advice, said=said)
            replace_text(target / CARD_FILE, card)
        study.folder.save_text(KEY_FILE, f'"{key}"')
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return found


def _tell_rows(study: Study, cell: Cell | None, real: int, synthetic: int, *, with_validation: bool) -> str:
    beside = " and validation" if with_validation else ""
    locked = f"; the {len(study.split.test)} rows of the locked test are not among them"
    if cell is None:
        return f"Trained on all {real} real rows for training{beside}{locked}. There are no synthetic rows."
    return (
        f"Trained on all {real} real rows for training{beside}{locked}, and on {synthetic} synthetic rows "
        f"({synthetic / real:.3g}x) of {cell.name}, or as many as its pool holds. The study tried this blend beside "
        f"{len(study.train)} real rows: with more of them its gain may be smaller."
    )
