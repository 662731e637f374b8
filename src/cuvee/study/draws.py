"""How many draws a study runs: as many as the config says; where it leaves that open, as many as the time allows.

The first draw of every cell that is drawn more than once is timed, and the time of the config divided by that is the
number of draws: of subsamples, of blocks of files for the shape over levels (as far as the pools go), and, by the time
of the winner and its baselines, of the confirmation at most. The numbers are written into the run folder before the run
goes on, and hold from then on: another run of the folder times nothing, and another ``draws.time`` is set against what
was timed. Generations stay as they are, since requests cost more than trials, and so do the draws of an adaptive
search, which has a budget of its own.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from cuvee.config.schema import StudyConfig
from cuvee.errors import InputError
from cuvee.store import RunFolder, read_json
from cuvee.train import is_deterministic

FILE = "draws.json"
RECORDED_SPREADS = (1.4, 2.4, 3.4)  # SD of a gain between draws in recorded studies, in points: the quartiles
SUBSAMPLES = 8  # random subsamples of a file for each cell on validation, where nothing was timed
MOST_FRESH = 12  # fresh draws of the confirmation at most
_FEWEST = 4  # draws that are run however long they take
_MOST_SUBSAMPLES, _MOST_BLOCKS = 24, 12  # beyond these the held-out items are what limits a study


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawNumbers:
    """How many draws of each kind; ``training`` is None where the config leaves it open."""

    generation: int
    sampling: int
    subsamples: int
    confirm: int
    training: int | None

    def trainings(self, trainer: str, loss: str) -> int:
        """Training draws of a trainer: one where training again changes nothing."""
        if is_deterministic(trainer, loss):
            return 1
        return 3 if self.training is None else self.training


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenDraws:
    """The content of ``draws.json``: the numbers that were chosen, and from what.

    Attributes:
        subsamples, generation, confirm: draws of each kind.
        time: seconds that there were.
        draw, confirmation: seconds of one draw of all cells, and of the winner and its baselines. Where nothing could
            be timed they are such that the usual numbers take all of ``time``.
    """

    subsamples: int
    generation: int
    confirm: int
    time: float
    draw: float
    confirmation: float


_FILE = TypeAdapter(ChosenDraws)


def usual_draws(config: StudyConfig) -> DrawNumbers:
    """The numbers where nothing was timed: those of the config; what it leaves open depends on the kind of pools."""
    asked, files = config.draws, config.ready_made
    few = 1 if files or asked.sampling is None else asked.sampling  # the block of a file is mixed whole
    generation = 5 if asked.generation is None else asked.generation
    subsamples = (asked.sampling or SUBSAMPLES) if files else max(few, generation)
    confirm, training = MOST_FRESH if asked.confirm is None else asked.confirm, asked.training
    return DrawNumbers(generation=generation, sampling=few, subsamples=subsamples, confirm=confirm, training=training)


def bound_draws(config: StudyConfig) -> tuple[DrawNumbers, DrawNumbers]:
    """The fewest and the most draws that may be chosen; equal where the config leaves nothing open."""
    usual, asked = usual_draws(config), config.draws
    if config.search.kind == "adaptive":
        return usual, usual
    fewest = most = usual
    if asked.sampling is None:
        fewest = replace(fewest, subsamples=_FEWEST)
        most = replace(most, subsamples=_MOST_SUBSAMPLES)
    if asked.generation is None and config.ready_made:
        fewest, most = replace(fewest, generation=_FEWEST), replace(most, generation=_MOST_BLOCKS)
    if asked.confirm is None:
        fewest = replace(fewest, confirm=min(_FEWEST, usual.confirm))
    return fewest, most


def is_open(config: StudyConfig) -> bool:
    """Whether a number is left to be chosen."""
    fewest, most = bound_draws(config)
    return fewest != most


def find_draws(config: StudyConfig, folder: Path) -> DrawNumbers:
    """The numbers that hold: those of the config, then those that were chosen in this run folder, then the usual ones.

    Raises:
        RunFolderError: ``draws.json`` is damaged.
    """
    usual, known = usual_draws(config), read_draws(folder)
    if known is None:
        return usual
    if known.time != _seconds(config):
        known = choose_draws(config, draw=known.draw, confirmation=known.confirmation)
    fewest, most = bound_draws(config)
    names = [name for name in ("subsamples", "generation", "confirm") if getattr(fewest, name) != getattr(most, name)]
    return replace(usual, **{name: getattr(known, name) for name in names})


def read_draws(folder: Path) -> ChosenDraws | None:
    """What was chosen in a run folder; None where nothing was yet.

    Raises:
        RunFolderError: the file is damaged.
    """
    return read_json(folder / FILE, _FILE, "the next trials that are missing are timed")


def choose_draws(config: StudyConfig, *, draw: float | None, confirmation: float) -> ChosenDraws:
    """The numbers that the time of the config allows.

    Args:
        config: of the study.
        draw: seconds of one draw of all cells that are drawn more than once; None where nothing could be timed, which
            takes the usual numbers.
        confirmation: seconds of one draw of the winner and its baselines.
    """
    (fewest, most), seconds = bound_draws(config), _seconds(config)
    if draw is None:
        usual = usual_draws(config)
        fewest, most, draw, confirmation = usual, usual, seconds / usual.subsamples, seconds / max(1, usual.confirm)

    numbers = {}
    for name, each in {"subsamples": draw, "generation": draw, "confirm": confirmation}.items():
        limit = getattr(most, name)
        numbers[name] = limit if each * limit <= seconds else max(getattr(fewest, name), int(seconds / each))
    return ChosenDraws(**numbers, time=seconds, draw=draw, confirmation=confirmation)


def has_other_time(config: StudyConfig, folder: Path) -> bool:
    """Whether the draws of a run folder were chosen for another ``draws.time`` than that of the config."""
    known = read_draws(folder)
    return is_open(config) and known is not None and known.time != _seconds(config)


def _seconds(config: StudyConfig) -> float:
    """Of one fold."""
    return config.draws.seconds / (config.split.crossfit or 1)


def save_draws(folder: RunFolder, chosen: ChosenDraws) -> None:
    """Write down what was chosen."""
    folder.save_text(FILE, json.dumps(asdict(chosen), indent=1))


def write_draws(config: StudyConfig, numbers: DrawNumbers, real: int = 1) -> str:
    """``8 subsamples of each pool, up to 5 blocks for shapes over levels, 1 of training, 12 of the confirmation``.

    ``real`` is how many choices of real rows go with the subsamples.
    """
    own = f"{numbers.subsamples} subsamples of each pool, up to {numbers.generation} blocks for shapes over levels"
    if not config.ready_made:
        own = f"{numbers.generation} generations, {numbers.sampling} of sampling, {numbers.subsamples} subsamples"
    own += f", {real} choices of real rows" if real > 1 else ""
    trainings = numbers.trainings(config.train.trainers[0], config.train.losses[0])
    return f"{own}, {trainings} of training, {numbers.confirm} of the confirmation"


def find_spreads(spread: float | None, pilot: str | Path | None) -> tuple[float, ...]:
    """SDs of a gain between draws, in points: the given one, the pilot's, or the quartiles of recorded studies.

    Raises:
        ValueError: both are given, or the spread is below 0.
        InputError: the pilot has no advice, or no blend of it was drawn twice.
    """
    if spread is not None:
        if pilot is not None or not (spread >= 0.0 and math.isfinite(spread)):
            raise ValueError(f"spread is {spread!r} and pilot {pilot!r}; give one of them, and a spread of at least 0")
        return (spread,)
    if pilot is None:
        return RECORDED_SPREADS
    path = Path(pilot) / "advice.json"
    try:
        cells = json.loads(path.read_bytes())["cells"]
        gains = [c["gains"][0] for c in cells if c["cell"]["kind"] == "blend" and c["gains"]]
        found = [100.0 * g["se_draws"] * math.sqrt(g["draws"]) for g in gains if g["draws"] > 1]
    except (OSError, ValueError, LookupError, TypeError) as exc:
        raise InputError(f"{path}: no advice can be read; finish the pilot with `cuvee run`") from exc
    if not found:
        raise InputError(f"{path}: no blend was drawn twice, so nothing is known of the spread; give --spread")
    return (float(np.median(found)),)
