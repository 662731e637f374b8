"""From a config to a study that can begin: data read and split, identity checked, encoder loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cuvee.config import DataConfig, StudyConfig, config_to_yaml
from cuvee.corpus import Corpus, LockedTest, Split, Task, label_strata, load_corpus, normalise_text, split_corpus
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import InputError
from cuvee.execute import Stages
from cuvee.fingerprint import hash_value
from cuvee.mix import share_counts
from cuvee.records import Level, Vectors
from cuvee.similarity import find_near_duplicates, unit_rows
from cuvee.store import RunFolder, StoredPool

if TYPE_CHECKING:
    import datasets

Pools = Mapping[Level, StoredPool]
FRESH = 1000
"""Draws kept for the confirmation are numbered from here, whatever number of draws the grid has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A prepared study: its config, data, encoder and run folder."""

    config: StudyConfig
    folder: RunFolder
    stages: Stages
    split: Split
    encoder: Encoder

    @property
    def train(self) -> Corpus:
        """The real training rows: all that the LLM and the trainers may see."""
        return self.split.train

    @property
    def rows_per_label(self) -> int:
        """Real training rows of a label (of the largest one, where they differ)."""
        return max(self._strata_counts().values())

    def _strata_counts(self) -> dict[str, int]:
        return dict(sorted(Counter(label_strata(self.train)).items()))

    def block_rows(self) -> dict[str, int]:
        """Label -> synthetic rows that one generation draw holds: enough for the share of the shape test."""
        mix = self.config.mix
        counts = share_counts(self._strata_counts(), mix.shape_share, regime=mix.regime)
        return {label: synthetic for label, (_, synthetic) in counts.items()}

    def blocks_needed(self, share: float) -> int:
        """Generation blocks that a blend at ``share`` draws from: more than one makes draws overlap."""
        mix = self.config.mix
        counts = share_counts(self._strata_counts(), share, regime=mix.regime)
        block = self.block_rows()
        return max([1, *(-(-s // block[label]) for label, (_, s) in counts.items() if block[label])])

    def locked_test(self, detail: str) -> LockedTest:
        """The locked test, its reads logged in the run folder under ``detail``."""
        return self.split.test.logged(lambda reason: self.folder.log_access(reason, detail))


def prepare_study(config: StudyConfig, folder: RunFolder, stages: Stages, real: Corpus | None = None) -> Study:
    """Read and split the data, check that the run folder is of this study, load the encoder.

    Raises:
        InputError, ConfigError, RunFolderMismatch, MissingDependency: before anything is spent.
    """
    with stages.stage("prepare", "rows"):
        split, data = _read_split(config, real)
        folder.check_identity(
            {
                "data": data,
                "split": hash_value(config.split.model_dump()),
                "seeds": str(config.seed),
            }
        )
        split = _drop_overlap(split, folder, stages)
        study = Study(config=config, folder=folder, stages=stages, split=split, encoder=load_encoder(config.encoder))
        if not any(study.block_rows().values()):
            raise InputError(
                f"mix.shape_share {config.mix.shape_share} gives no synthetic row a label with "
                f"{study.rows_per_label} real ones; raise it or split.rows_per_label"
            )
        folder.save_text("study.yaml", config_to_yaml(config))
    return study


def _read_split(config: StudyConfig, given: Corpus | None) -> tuple[Split, str]:
    """The split, and the fingerprint of all real data."""
    data = config.data
    real = given if given is not None else _load_real(config, data.real)
    parts = {
        name: _load_real(config, path) for name, path in (("validation", data.validation), ("test", data.test)) if path
    }
    for name, part in parts.items():
        unknown = sorted(set(part.labels) - set(real.labels)) if config.task == "classification" else []
        if unknown:
            raise InputError(f"data.{name}: label {unknown[0]!r} is not in data.real ({len(unknown)} such labels)")
    near = config.split.near
    together = None if near is None else find_near_duplicates(unit_rows(_encode(config, real)), near).cluster
    split = split_corpus(
        real,
        together=together,
        test=0 if "test" in parts else config.split.test,
        validation=0 if "validation" in parts else config.split.validation,
        rows_per_label=config.split.rows_per_label,
        seed=config.seed,
    )
    if parts:
        split = Split(
            train=split.train,
            validation=parts.get("validation", split.validation),
            test=LockedTest(parts["test"]) if "test" in parts else split.test,
            unused=split.unused,
        )
    named = [group for group in real.table["group"].to_pylist() if group is not None]
    grouped = [real.table["group"].to_pylist()] if named else []  # they decide who is on which side
    return split, hash_value([real.fingerprint, *(f"{k}:{v.fingerprint}" for k, v in sorted(parts.items())), *grouped])


def _encode(config: StudyConfig, real: Corpus) -> Vectors:
    return load_encoder(config.encoder).encode(real.texts)


def _drop_overlap(split: Split, folder: RunFolder, stages: Stages) -> Split:
    """Without training rows whose text is also held out, which files split by others often have."""
    test = split.test.logged(lambda reason: folder.log_access(reason, "texts, against leaks"))
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
    return Split(train=split.train.keep(clean), validation=split.validation, test=split.test, unused=split.unused)


def load_dataset_rows(dataset: datasets.Dataset, data: DataConfig, task: Task) -> Corpus:
    """Real rows from a Hugging Face dataset, with the config's columns."""
    return load_corpus(dataset, text=data.text, label=data.label, group=data.group, context=data.context, task=task)


def _load_real(config: StudyConfig, path: str) -> Corpus:
    data = config.data
    return load_corpus(path, text=data.text, label=data.label, group=data.group, context=data.context, task=config.task)
