"""The last step: a model of what the advice says, on all real rows that may be trained on, kept with its card."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from cuvee._version import __version__
from cuvee.corpus import Corpus
from cuvee.corpus.files import fill_folder, replace_text
from cuvee.errors import TrialsAwaited
from cuvee.fingerprint import derive_seed, hash_value
from cuvee.hub import CARD_FILE
from cuvee.recommend import advice_to_json
from cuvee.records import Advice, Cell
from cuvee.report import CardFacts, Reproduction, render_model_card
from cuvee.study.outputs import mix_advised
from cuvee.study.prepare import Pools, Study
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


def train_advised(study: Study, pools: Pools, advice: Advice) -> Winner:
    """Train the model into ``model/`` of the run folder, unless it lies there already.

    It is trained on the real rows that are not in the locked test, and on the synthetic rows of the advised blend. A
    trainer of the user's own is handed the validation rows instead, for early stopping.

    Raises:
        TrialsAwaited: it is to be trained elsewhere.
        CuveeError: training failed, or the model cannot be kept.
    """
    cell, recipe = find_advised(advice), grid_recipes(study)[0].fit(study)
    is_own = recipe.trainer not in TRAINERS or recipe.program is not None
    rows, validation = study.split.at_hand or study.train, study.split.validation
    rows = rows if is_own else rows.joined(validation)
    real = len(rows)
    if cell is not None:
        blend = mix_advised(study, pools, cell).corpus
        rows = rows.joined(blend.keep([origin == "synthetic" for origin in blend.origins]))
    settings = recipe.make_settings(recipe.steps, derive_seed(study.config.seed, "winner"))
    said = _tell_rows(study, cell, real, len(rows) - real, with_validation=not is_own)
    found = Winner(folder=study.folder.path / MODEL, cell=cell, real=real, synthetic=len(rows) - real, said=said)
    made = [rows.fingerprint, asdict(settings), study.encoder.hash, NUMBERS, *recipe.code, said, advice_to_json(advice)]
    key = hash_value(made)
    if (
        study.folder.read_json(KEY_FILE, TypeAdapter(str), "the model is trained again") == key
        and found.folder.is_dir()
    ):
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
            replace_text(target / CARD_FILE, _write_card(study, advice, rows, asdict(predictor.settings), said))
        study.folder.save_text(KEY_FILE, f'"{key}"')
    return found


def _tell_rows(study: Study, cell: Cell | None, real: int, synthetic: int, *, with_validation: bool) -> str:
    beside = " and validation" if with_validation else ""
    locked = f"; the {len(study.split.test)} rows of the locked test are not among them"
    if cell is None:
        return f"Trained on all {real} real rows for training{beside}{locked}. There are no synthetic rows."
    return (
        f"Trained on all {real} real rows for training{beside}{locked}, and on the {synthetic} synthetic rows of the "
        f"blend {cell.name}. The study tried these synthetic rows beside {len(study.train)} real ones: its gain holds "
        "there, and more real rows make it smaller."
    )


def _write_card(study: Study, advice: Advice, rows: Corpus, taken: dict[str, object], said: str) -> str:
    config = study.config
    facts = CardFacts(
        name=f"{config.name} model",
        version=__version__,
        task=rows.task,
        languages=config.card.languages,
        licences=config.card.licences(),
        reproduction=Reproduction(
            command="cuvee train RUN", seed=config.seed, fingerprints={"the rows": rows.fingerprint}
        ),
    )
    base = study.encoder.name if taken["trainer"] == "probe" else ""
    taken.pop("program")  # its line and its folder tell of a machine
    return render_model_card(facts, rows, taken, base=base, advice=advice, said=said)
