"""The whole flow on one page.

::

    real data ─split─▶ train | validation | test (locked)
    train ─generate─▶ pools ─measure─▶ diversity, shift, quality
    train + pools ─mix─▶ blends ─train─▶ predictors ─evaluate─▶ trials
    trials ─recommend─▶ advice ─confirm on fresh draws and the locked test─▶ report, blend

Where real data is too small to lock a test, each of several folds goes this way, and their trials are joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cuvee.config.reading import make_config, read_config
from cuvee.config.schema import StudyConfig
from cuvee.corpus import Corpus
from cuvee.execute import Listener, Stages
from cuvee.registry import trust_modules
from cuvee.store import RunFolder
from cuvee.study.crossfit import open_folds
from cuvee.study.flow import CrossfitFlow, Flow
from cuvee.study.outputs import StudyResult, Winner, check_tracking, train_advised, write_outputs
from cuvee.study.prepare import load_rows
from cuvee.study.status import Recorder
from cuvee.study.trials import validate_study

if TYPE_CHECKING:
    import datasets


@contextmanager
def open_study(
    config: StudyConfig | dict[str, object] | str | Path,
    *,
    real: Corpus | datasets.Dataset | None = None,
    out: str | Path | None = None,
    listener: Listener | None = None,
    trust: Sequence[str] = (),
) -> Iterator[Flow]:
    """Prepare a study and hold its run folder; stages run as they are asked for.

    Args:
        config: a study.yaml, or its content.
        real: the real rows, a corpus or a Hugging Face dataset; read from ``data.real`` when left out.
        out: the run folder; ``runs/NAME`` when left out.
        listener: hears the progress.
        trust: modules whose code the config may name as ``module:Name``; see ``cuvee.registry.trust_modules``.

    Raises:
        CuveeError: bad input or config, a run folder of another study or in use.
    """
    if real is not None and isinstance(config, dict):
        config = {"data": {"real": "in memory"}, **config}
    settings = make_config(config)
    given = real if real is None or isinstance(real, Corpus) else load_rows(real, settings.data, settings.task)
    with trust_modules(*trust), RunFolder(out or Path("runs") / settings.name) as folder:
        check_tracking(settings)
        settings = settings.model_copy(update={"encoder": folder.keep_encoder(settings.encoder)})
        recorder = Recorder(folder, listener)
        try:
            with open_folds(settings, folder, Stages(recorder, recorder.seconds), given) as studies:
                for study in studies:
                    validate_study(study)
                flows = [Flow(study) for study in studies]
                yield flows[0] if len(flows) == 1 else CrossfitFlow(flows, settings)
        finally:
            recorder.close()


def run_study(
    config: StudyConfig | dict[str, object] | str | Path,
    *,
    real: Corpus | datasets.Dataset | None = None,
    out: str | Path | None = None,
    listener: Listener | None = None,
    trust: Sequence[str] = (),
    blend: bool = False,
) -> StudyResult:
    """Run a study, or go on with one: what the run folder holds is not done again.

    Args:
        config: a study.yaml, or its content.
        real: the real rows, a corpus or a Hugging Face dataset; read from ``data.real`` when left out.
        out: the run folder; ``runs/NAME`` when left out.
        listener: hears the progress.
        trust: modules whose code the config may name as ``module:Name``; see ``cuvee.registry.trust_modules``.
        blend: write the best cell's blend even where the advice is not to use it.

    Raises:
        CuveeError: bad input or config, an endpoint that fails, a run folder of another study or in use.
        TrialsFailed: one of them: every trial of a blend failed.
    """
    with open_study(config, real=real, out=out, listener=listener, trust=trust) as flow:
        return write_outputs(flow, wants_blend=blend)


def train_winner(run: str | Path, *, listener: Listener | None = None, trust: Sequence[str] = ()) -> Winner:
    """Train the model of a run folder into its ``model/``: of the advised blend; what the study lacks is run first.

    Read it back with :func:`cuvee.load_predictor`.

    Args:
        run: the run folder.
        listener: hears the progress.
        trust: as :func:`run_study` takes it.

    Raises:
        CuveeError: no run folder, a trial or the training fails.
    """
    with open_study(read_config(Path(run) / "study.yaml"), out=run, listener=listener, trust=trust) as flow:
        return train_advised(flow, flow.advice)
