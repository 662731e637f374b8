"""From a config to a study that can begin: data read and split, identity checked, encoder loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from cuvee.config import DataConfig, DialConfig, StudyConfig, config_to_yaml
from cuvee.config.training import list_sizes
from cuvee.corpus import (
    Corpus,
    LockedTest,
    Split,
    Task,
    distinct_sources,
    few_shot_sets,
    label_strata,
    load_corpus,
    normalise_text,
    split_corpus,
)
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import InputError, RunFolderMismatch
from cuvee.execute import Stages
from cuvee.fingerprint import hash_value
from cuvee.mix import share_counts
from cuvee.records import Level
from cuvee.similarity import find_near_duplicates, unit_rows
from cuvee.store import RunFolder, StoredPool

if TYPE_CHECKING:
    import datasets

Pools = Mapping[Level, StoredPool]
FRESH = 1000
"""Draws kept for the confirmation are numbered from here, whatever number of draws the grid has."""
FOLD_FILE = "fold.json"
"""Of the run folder of a fold other than the first: which it is."""


class _Number(TypedDict):
    fold: int
    of: int


_NUMBER = TypeAdapter(_Number)
_AGAINST_LEAKS = "texts, against leaks"
"""What the leak guard's reads of the locked test are logged as."""


def read_fold(folder: RunFolder, count: int) -> int | None:
    """The fold that a folder holds, of so many; None where it says none."""
    remedy = "a run of the whole study, not of this fold alone, writes it again"
    kept = folder.read_json(FOLD_FILE, _NUMBER, remedy)
    if kept is None:
        return None
    if kept["of"] != count:
        raise RunFolderMismatch(
            f"{folder.path}: this is fold {kept['fold']} of {kept['of']}, and split.crossfit is {count}; "
            "choose a new name or --out"
        )
    return kept["fold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A prepared study: its config, data, encoder and run folder.

    ``few_shot_sets`` holds the smaller sets of real training rows that cells are trained on too, by their rows a label.
    """

    config: StudyConfig
    folder: RunFolder
    stages: Stages
    split: Split
    encoder: Encoder
    few_shot_sets: Mapping[int, Corpus] = field(default_factory=dict)

    @property
    def train(self) -> Corpus:
        """The real training rows: all that the LLM and the trainers may see."""
        return self.split.train

    @property
    def rows_per_label(self) -> int:
        """Real training rows of a label (of the largest one, where they differ)."""
        return max(self.strata_counts().values())

    @property
    def row_counts(self) -> tuple[int, ...]:
        """Numbers of real rows a label that cells are trained on, largest first."""
        return (self.rows_per_label, *sorted(self.few_shot_sets, reverse=True))

    @property
    def fold(self) -> int | None:
        """Which fold the study is, from 1; None where it is not cross-fitted."""
        count = self.config.split.crossfit
        return None if count is None else read_fold(self.folder, count) or 1

    def real_rows(self, rows_per_label: int) -> Corpus:
        """The real training rows of cells with so many a label: each smaller set lies within the larger ones."""
        return self.few_shot_sets.get(rows_per_label, self.train)

    def strata_counts(self, rows_per_label: int | None = None) -> dict[str, int]:
        """Label -> real training rows, where there are so many a label; None is the largest number."""
        real = self.train if rows_per_label is None else self.real_rows(rows_per_label)
        return dict(sorted(Counter(label_strata(real)).items()))

    def block_rows(self) -> dict[str, int]:
        """Label -> synthetic rows that one generation draw holds: enough for the share of the shape test."""
        mix = self.config.mix
        counts = share_counts(self.strata_counts(), mix.shape_share, regime=mix.regime)
        return {label: synthetic for label, (_, synthetic) in counts.items()}

    def blocks_needed(self, share: float, rows_per_label: int | None = None) -> int:
        """Generation blocks that a blend at ``share`` draws from: more than one makes draws overlap.

        Blocks are made for the largest number of real rows, which None stands for.
        """
        mix = self.config.mix
        counts = share_counts(self.strata_counts(rows_per_label), share, regime=mix.regime)
        block = self.block_rows()
        return max([1, *(-(-s // block[label]) for label, (_, s) in counts.items() if block[label])])

    def draws_of(self, dial: DialConfig | None) -> int:
        """Generation draws of a dial; of one that has no settings, all."""
        every = self.config.draws.generation
        return min(every, (dial.draws if dial else None) or every)

    def locked_test(self, detail: str) -> LockedTest:
        """The locked test, its reads logged in the run folder under ``detail``."""
        return self.split.test.logged(lambda reason: self.folder.log_access(reason, detail))

    def held_out_texts(self) -> list[str]:
        """The texts of validation and the locked test; the read is logged."""
        return [*self.split.validation.texts, *self.locked_test(_AGAINST_LEAKS).texts_for_leak_guard()]

    def held_out_sources(self) -> list[str]:
        """Contexts or passages of validation and the locked test that no training row is about; the read is logged.

        Where the data is not grouped by them, one passage may stand on both sides of the split: it is no secret then.
        """
        if self.config.task == "classification":
            return []
        test = self.locked_test("contexts or passages, against leaks").sources_for_leak_guard()
        known = {normalise_text(source) for source in distinct_sources(self.train)}
        found = dict.fromkeys([*distinct_sources(self.split.validation), *test])
        return [source for source in found if normalise_text(source) not in known]


@dataclass(frozen=True, slots=True, kw_only=True)
class RealData:
    """The real rows of a study, before they are split.

    Attributes:
        rows: those of ``data.real``.
        parts: ``validation`` and ``test``, where they are files of their own.
        together: a number a row, the same for near rows; None where only equal texts count.
        fingerprint: of all of this.
    """

    rows: Corpus
    parts: Mapping[str, Corpus]
    together: NDArray[np.integer] | None
    fingerprint: str


def prepare_study(config: StudyConfig, folder: RunFolder, stages: Stages, real: Corpus | None = None) -> Study:
    """Read and split the data, check that the run folder is of this study, load the encoder.

    Raises:
        InputError, ConfigError, RunFolderMismatch, MissingDependency: before anything is spent.
    """
    with stages.stage("prepare", "rows"):
        data = read_real(config, real)
        return settle_study(config, folder, stages, data=data, split=_split_real(config, data))


def settle_study(
    config: StudyConfig,
    folder: RunFolder,
    stages: Stages,
    *,
    data: RealData,
    split: Split,
    whole: StudyConfig | None = None,
    fold: int | None = None,
) -> Study:
    """A study of data that is split already, or of one fold: its run folder checked, its encoder loaded.

    Args:
        config: what this study goes by.
        folder: its run folder.
        stages: of the run.
        data: all real rows.
        split: how they are split here.
        whole: the config as it was given, which the folder keeps; None where that is ``config``.
        fold: the fold that is held out, from 1.

    Raises:
        InputError, RunFolderMismatch, MissingDependency: before anything is spent.
    """
    cut = config.split.model_dump() | {"rows_per_label": largest_size(config)}
    if config.split.crossfit is None:
        del cut["crossfit"]  # older run folders know no such key
    folder.check_identity(
        {
            "data": data.fingerprint,
            "split": hash_value(cut if fold is None else cut | {"fold": fold}),
            "seeds": str(config.seed),
        }
    )
    split = _drop_overlap(split, folder, stages)
    study = Study(
        config=config,
        folder=folder,
        stages=stages,
        split=split,
        encoder=load_encoder(config.encoder),
        few_shot_sets=_take_few_shot_sets(config, split.train),
    )
    _check_sizes(study)
    folder.save_text("study.yaml", config_to_yaml(whole or config))
    return study


def largest_size(config: StudyConfig) -> int | None:
    """Real training rows of each label at most; None is all."""
    size = list_sizes(config.split.rows_per_label)[0]
    return None if size == "all" else size


def _take_few_shot_sets(config: StudyConfig, train: Corpus) -> dict[int, Corpus]:
    """The smaller sets of training rows that are asked for, by their rows a label."""
    sizes = [size for size in list_sizes(config.split.rows_per_label)[1:] if size != "all"]
    if not sizes:
        return {}
    try:
        made = few_shot_sets(train, sizes, seed=config.seed)
    except InputError as exc:
        raise InputError(f"split.rows_per_label {list(sizes)}: {exc}") from exc
    return {size: made[str(size)] for size in sizes if len(made[str(size)]) < len(train)}


def _check_sizes(study: Study) -> None:
    """Refuse numbers of real rows at which a share would hold no synthetic row at all."""
    mix = study.config.mix
    for rows in study.row_counts:
        counts = share_counts(study.strata_counts(rows), mix.shape_share, regime=mix.regime)
        if not any(synthetic for _, synthetic in counts.values()):
            raise InputError(
                f"mix.shape_share {mix.shape_share} gives no synthetic row a label with {rows} real ones; raise it or "
                "split.rows_per_label, or drop that number of rows"
            )


def read_real(config: StudyConfig, given: Corpus | None) -> RealData:
    """All real rows, those of files of their own too; ``given`` in place of ``data.real``.

    Raises:
        InputError: a file cannot be read, or has labels that the real rows lack.
    """
    data = config.data
    real = given if given is not None else load_rows(data.real, data, config.task)
    parts = {
        name: load_rows(path, data, config.task)
        for name, path in (("validation", data.validation), ("test", data.test))
        if path
    }
    for name, part in parts.items():
        unknown = sorted(set(part.labels) - set(real.labels)) if config.task == "classification" else []
        if unknown:
            raise InputError(f"data.{name}: label {unknown[0]!r} is not in data.real ({len(unknown)} such labels)")
    near = config.split.near
    named = [group for group in real.table["group"].to_pylist() if group is not None]
    grouped = [real.table["group"].to_pylist()] if named else []  # they decide who is on which side
    return RealData(
        rows=real,
        parts=parts,
        together=None
        if near is None
        else find_near_duplicates(unit_rows(load_encoder(config.encoder).encode(real.texts)), near).cluster,
        fingerprint=hash_value(
            [real.fingerprint, *(f"{k}:{v.fingerprint}" for k, v in sorted(parts.items())), *grouped]
        ),
    )


def _split_real(config: StudyConfig, data: RealData) -> Split:
    parts = data.parts
    split = split_corpus(
        data.rows,
        together=data.together,
        test=0 if "test" in parts else config.split.test,
        validation=0 if "validation" in parts else config.split.validation,
        rows_per_label=largest_size(config),
        seed=config.seed,
    )
    test = LockedTest(parts["test"]) if "test" in parts else split.test
    return replace(split, validation=parts.get("validation", split.validation), test=test)


def _drop_overlap(split: Split, folder: RunFolder, stages: Stages) -> Split:
    """Without training rows whose text is also held out, which files split by others often have."""
    test = split.test.logged(lambda reason: folder.log_access(reason, _AGAINST_LEAKS))
    held_out = {normalise_text(t) for t in [*split.validation.texts, *test.texts_for_leak_guard()]}
    # one prompt may be asked of many contexts, which the split keeps apart
    clean = [
        context is not None or normalise_text(text) not in held_out
        for text, context in zip(split.train.texts, split.train.contexts, strict=True)
    ]
    if all(clean):
        return split
    if set(split.train.keep(clean).labels) != set(split.train.labels):
        raise InputError(
            f"{clean.count(False)} of {len(clean)} training rows are also in validation or test, and without them a "
            "label has none left; give data.validation and data.test other rows than data.real"
        )
    stages.listener.noted(f"{clean.count(False)} training rows are also in validation or test; they are left out")
    return replace(split, train=split.train.keep(clean))


def load_rows(source: str | datasets.Dataset, data: DataConfig, task: Task) -> Corpus:
    """Real rows of a file or a Hugging Face dataset, with the config's columns."""
    return load_corpus(source, text=data.text, label=data.label, group=data.group, context=data.context, task=task)
