"""From a config to a study that can begin: data read and split, identity checked, encoder loaded; what to write."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cuvee.config.dials import DialConfig
from cuvee.config.schema import DataConfig, StudyConfig
from cuvee.config.sections import list_sizes
from cuvee.corpus import Corpus, Task, count_strata, load_corpus, normalise_text
from cuvee.corpus.formats import read_table
from cuvee.corpus.splits import LockedTest, Split, distinct_sources, few_shot_sets, row_names, split_corpus
from cuvee.corpus.table import filled_strings
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import InputError, naming
from cuvee.execute import Stages
from cuvee.fingerprint import derive_seed, hash_value
from cuvee.generate.dials import Dial, Slot
from cuvee.generate.filling import Agrees
from cuvee.generate.parsing import WRITINGS, Kind, Stratum, choose_kind, find_strata
from cuvee.generate.pools import GenerationSpec
from cuvee.generate.prompts import load_prompts
from cuvee.mix import share_counts
from cuvee.probe import choose_l2, fit_probe
from cuvee.records import Level
from cuvee.similarity import find_near_duplicates, unit_rows
from cuvee.store import RunFolder, StoredPool
from cuvee.study.draws import DrawNumbers, bound_draws, find_draws

if TYPE_CHECKING:
    import datasets

Pools = Mapping[Level, StoredPool]
FRESH = 1000  # draws kept for the confirmation are numbered from here, whatever number of draws the grid has
LEFT_OUT = "sources-left-out.jsonl"  # of the run folder: what was not written about, because it is held out
_HELD_OUT = "is a context or passage of validation or the locked test"


# Usual names of the column that holds what is written about.
_COLUMNS = ("text", "passage", "context", "document", "article", "source", "content", "body")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyWriting:
    """What the LLM is to write for a study.

    Attributes:
        kind: of writing.
        strata: what rows are dealt to: labels, passages, contexts, or one for all.
        spec: the same for a generator: sources, wording, rows of a stratum in one draw; whatever else it is asked.
        key: hash of all of it that the strata do not say already.
        left_out: passages or contexts of the study's file that are held out, and so are not written about.
    """

    kind: Kind
    strata: Mapping[str, Stratum]
    spec: GenerationSpec
    key: str
    left_out: tuple[str, ...] = ()

    def slots(self, dial: Dial, blocks: Sequence[int], levels: Sequence[str]) -> list[Slot]:
        """What levels of a dial ask for in some draws, each once."""
        return list(replace(self.spec, blocks=blocks).slots(dial, self.strata, levels).values())


@dataclass(frozen=True, kw_only=True)
class Study:
    """A prepared study: its config, data, encoder and run folder.

    ``few_shot_sets`` holds the smaller sets of real training rows that cells are trained on too, by their rows a label;
    ``fold`` is the fold that is held out, from 1, and None where the study is not cross-fitted.
    """

    config: StudyConfig
    folder: RunFolder
    stages: Stages
    split: Split
    encoder: Encoder
    few_shot_sets: Mapping[int, Corpus] = field(default_factory=dict)
    fold: int | None = None

    def note(self, message: str) -> None:
        """Tell whoever listens something that the user should know."""
        self.stages.listener.noted(message)

    @property
    def fold_name(self) -> str:
        """What stands before what is told of a fold: ``fold 2: ``; empty where the study is not cross-fitted."""
        return "" if self.fold is None else f"fold {self.fold}: "

    @cached_property
    def writing(self) -> StudyWriting:
        """What the LLM is to write, as the config says."""
        return _find_writing(self)

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

    def real_rows(self, rows_per_label: int) -> Corpus:
        """The real training rows of cells with so many a label: each smaller set lies within the larger ones."""
        return self.few_shot_sets.get(rows_per_label, self.train)

    def strata_counts(self, rows_per_label: int | None = None) -> Counter[str]:
        """Label -> real training rows, where there are so many a label; None is the largest number."""
        real = self.train if rows_per_label is None else self.real_rows(rows_per_label)
        return count_strata(real)

    def synthetic_rows(self, share: float, rows_per_label: int | None = None) -> dict[str, int]:
        """Label -> synthetic rows of a blend at ``share`` with so many real rows; None is the largest number."""
        counts = share_counts(self.strata_counts(rows_per_label), share, regime=self.config.mix.regime)
        return {label: synthetic for label, (_, synthetic) in counts.items()}

    def block_rows(self) -> dict[str, int]:
        """Label -> synthetic rows that one generation draw holds: enough for the share of the shape test."""
        return self.synthetic_rows(self.config.mix.shape_share)

    def fits_a_draw(self, share: float, rows_per_label: int) -> bool:
        """Whether one generation draw, made for the largest number of real rows, holds a blend at ``share``."""
        block = self.block_rows()
        return all(s <= block[label] for label, s in self.synthetic_rows(share, rows_per_label).items() if block[label])

    @property
    def ready_made(self) -> bool:
        """Whether pools are files."""
        return self.config.ready_made

    @property
    def draws(self) -> DrawNumbers:
        """The numbers of draws that hold."""
        return find_draws(self.config, self.folder.path)

    @property
    def real_draws(self) -> int:
        """Choices of real rows: subsample s of a file goes with choice s modulo their number."""
        spare, asked, subsamples = self.split.at_hand, self.config.draws.real, self.draws.subsamples
        if spare is None or not self.ready_made:
            return 1
        counts, wanted = count_strata(spare), self.strata_counts()
        has_more = all(counts[label] >= 2 * rows for label, rows in wanted.items())
        return min(asked or subsamples, subsamples) if has_more else 1

    def samplings(self, draws: DrawNumbers, *, fresh: bool) -> range:
        """The numbers of the subsamples of pools, on validation or for the confirmation."""
        if fresh:
            return range(FRESH, FRESH + max(draws.confirm, *self.folder.looks()[0], 0))  # a look is read again
        check = self.config.train.check
        return range(max(draws.subsamples, check.draws if check else 0))

    def real_choices(self, numbers: Iterable[int]) -> dict[tuple[int, int], Corpus]:
        """(number, rows a label) -> a choice of so many real rows, for these subsamples: 0 is the study's own.

        The rows of a smaller number are among those of a larger one.
        """
        spare, draws = self.split.at_hand, self.real_draws
        found = {(0, rows): self.real_rows(rows) for rows in self.row_counts}
        if draws == 1 or spare is None:
            return found
        for number in {each if each >= FRESH else each % draws for each in numbers} - {0}:
            seed = derive_seed(self.config.seed, "real", number)
            made = few_shot_sets(spare, self.row_counts, seed=seed)
            found |= {(number, rows): made[str(rows)] for rows in self.row_counts}
        return found

    @property
    def most_blocks(self) -> int:
        """Generation draws, or blocks of files, whatever number of them trials take."""
        return bound_draws(self.config)[1].generation

    def draws_of(self, dial: DialConfig | None) -> int:
        """Generation draws of a dial; of one that has no settings, all."""
        every = self.draws.generation
        return min(every, (dial.draws if dial else None) or every)

    @cached_property
    def l2(self) -> float:
        """Strength of the penalty of trainer ``probe`` where the config gives none: cross-validated on real rows."""
        train = self.train
        return choose_l2(self.encoder.encode(train.texts), train.targets, train.groups)

    def locked_test(self, detail: str) -> LockedTest:
        """The locked test, its reads logged in the run folder under ``detail``."""
        return self.split.test.logged(lambda reason: self.folder.log_access(reason, detail))

    def held_out_texts(self) -> list[str]:
        """The texts of validation and the locked test; the read is logged."""
        return [*self.split.validation.texts, *self.locked_test("texts, against leaks").texts_for_leak_guard()]

    @cached_property
    def held_out_names(self) -> frozenset[str]:
        """What rows of validation and the locked test are called, and no training row is; the read is logged."""
        test = self.locked_test("names of rows, against leaks").names_for_leak_guard()
        return frozenset((row_names(self.split.validation) | test) - row_names(self.train))

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


def settle_study(study: Study, data: RealData) -> Study:
    """A study, or a fold of one, that can begin: its run folder checked, its training rows free of held-out texts.

    Raises:
        InputError, RunFolderMismatch: before anything is spent.
    """
    config, folder = study.config, study.folder
    cut = config.split.model_dump() | {"rows_per_label": largest_size(config)}
    if study.fold is None:
        del cut["crossfit"]  # older run folders know no such key
    else:
        cut["fold"] = study.fold
    if folder.check_identity({"data": data.fingerprint, "split": hash_value(cut), "seeds": str(config.seed)}):
        study.note(f"{folder.path}: the split is another one than before; nothing was trained yet on that")
    study = replace(study, split=_drop_overlap(study))
    study = replace(study, few_shot_sets=_take_few_shot_sets(config, study.train))
    _check_sizes(study)
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
    with naming(f"split.rows_per_label {sizes}"):
        made = few_shot_sets(train, sizes, seed=config.seed)
    return {size: made[str(size)] for size in sizes if len(made[str(size)]) < len(train)}


def _check_sizes(study: Study) -> None:
    """Refuse numbers of real rows at which a share would hold no synthetic row at all."""
    share = study.config.mix.shape_share
    for rows in study.row_counts:
        if not any(study.synthetic_rows(share, rows).values()):
            raise InputError(f"mix.shape_share {share} gives no synthetic row to {rows} real rows a label; raise it")


def read_real(config: StudyConfig, given: Corpus | None) -> RealData:
    """All real rows, those of files of their own too; ``given`` in place of ``data.real``.

    Raises:
        InputError: a file cannot be read, or has labels that the real rows lack.
    """
    data = config.data
    real = load_rows(data.real, data, config.task) if given is None else given
    paths = {"validation": data.validation, "test": data.test}
    parts = {name: load_rows(path, data, config.task) for name, path in paths.items() if path}
    for name, part in parts.items():
        unknown = sorted(set(part.labels) - set(real.labels)) if config.task == "classification" else []
        if unknown:
            raise InputError(f"data.{name}: label {unknown[0]!r} is not in data.real ({len(unknown)} such labels)")
    near, together = config.split.near, None
    if near is not None:
        vectors = load_encoder(config.encoder).encode(real.texts)
        together = find_near_duplicates(unit_rows(vectors), near)
    groups = real.table["group"].to_pylist()
    grouped = [groups] if any(group is not None for group in groups) else []  # they decide who is on which side
    prints = [f"{name}:{part.fingerprint}" for name, part in sorted(parts.items())]
    fingerprint = hash_value([real.fingerprint, *prints, *grouped])
    return RealData(rows=real, parts=parts, together=together, fingerprint=fingerprint)


def cut_split(
    config: StudyConfig, data: RealData, *, outside: NDArray[np.integer] | None = None, test: Corpus | None = None
) -> Split:
    """Train, validation and test of the real rows, or of those ``outside`` a fold, whose own rows are then the test.

    Raises:
        InputError: too few rows.
    """
    rows, together = data.rows, data.together
    if outside is not None:
        rows, together = rows.take(outside), None if together is None else together[outside]
    test = data.parts.get("test") if test is None else test
    locked = config.split.test if test is None else 0
    held, most = 0 if "validation" in data.parts else config.split.validation, largest_size(config)
    split = split_corpus(rows, together=together, test=locked, validation=held, rows_per_label=most, seed=config.seed)
    validation = data.parts.get("validation", split.validation)
    return replace(split, validation=validation, test=split.test if test is None else LockedTest(test))


def _drop_overlap(study: Study) -> Split:
    """The split without training rows whose text is also held out, which files split by others often have."""
    split, held_out = study.split, {normalise_text(text) for text in study.held_out_texts()}

    def tell_clean(rows: Corpus) -> list[bool]:
        # one prompt may be asked of many contexts, which the split keeps apart
        texts = zip(rows.texts, rows.contexts, strict=True)
        return [context is not None or normalise_text(text) not in held_out for text, context in texts]

    if split.at_hand is not None:
        split = replace(split, at_hand=split.at_hand.keep(tell_clean(split.at_hand)))
    clean = tell_clean(split.train)
    if all(clean):
        return split
    if set(split.train.keep(clean).labels) != set(split.train.labels):
        raise InputError(
            f"{clean.count(False)} of {len(clean)} training rows are also in validation or test, and without them a "
            "label has none left; give data.validation and data.test other rows than data.real"
        )
    study.note(f"{clean.count(False)} training rows are also in validation or test; they are left out")
    return replace(split, train=split.train.keep(clean))


def load_rows(source: str | datasets.Dataset, data: DataConfig, task: Task) -> Corpus:
    """Real rows of a file or a Hugging Face dataset, with the config's columns."""
    return load_corpus(source, text=data.text, label=data.label, group=data.group, context=data.context, task=task)


# --- what an LLM writes ---
def _find_writing(study: Study) -> StudyWriting:
    """What the LLM is to write for this study, as its config says.

    A draw takes no more passages or contexts than it needs rows, and as many of them as it can; a draw of more rows has
    those of one of fewer among its own.

    Raises:
        ConfigError: a kind that does not fit the task, broken prompts, nothing to write about.
        InputError: the file of sources cannot be read, or all that it holds is held out.
    """
    writing = study.config.writing
    sources, left_out = _read_sources(study)
    kind = choose_kind(study.train, writing.kind, sources)
    strata, prompts = find_strata(study.train, kind, sources), load_prompts(writing.prompts)
    wanted = study.block_rows()
    rows = max(wanted.values()) if kind == "label" else math.ceil(sum(wanted.values()) / len(strata))
    if WRITINGS[kind].source is not None:
        chosen = _choose_strata(strata, math.ceil(sum(wanted.values()) / rows), study.config.seed)
        if len(chosen) < len(strata):
            strata = chosen
            sources = tuple(stratum.source or "" for stratum in strata.values())
    settings = [kind, prompts.hash, writing.label_check, writing.grounded]
    key = hash_value([*settings, [stratum.source for stratum in strata.values()]])
    describe, seed = study.config.describe, study.config.seed
    spec = GenerationSpec(
        kind=kind, sources=sources, prompts=prompts, rows_per_label=rows, describe=describe, seed=seed
    )
    return StudyWriting(kind=kind, strata=strata, spec=spec, key=key, left_out=left_out)


def note_held_out_sources(study: Study) -> None:
    """Say that sources are held out, and list them in the run folder."""
    if not (left_out := study.writing.left_out):
        return
    lines = (json.dumps({"source": source, "reason": _HELD_OUT}, ensure_ascii=False) for source in left_out)
    path = study.folder.save_text(LEFT_OUT, "".join(f"{line}\n" for line in lines))
    study.note(
        f"{study.config.writing.sources}: {len(left_out)} passages or contexts are those of validation or the "
        f"locked test; nothing is written about them ({path})"
    )


def read_sources(path: str | Path, column: str | None = None, *, option: str = "writing.sources_text") -> list[str]:
    """The distinct passages or contexts of a file, in its order.

    Args:
        path: of any file that ``load_corpus`` reads.
        column: that holds them; None takes the only column, or the one of a usual name.
        option: how a user names the column, for messages.

    Raises:
        InputError: the file cannot be read, the column is not there or not clear (with the columns that are), or a
            row has nothing in it.
    """
    table = read_table(Path(path))
    names = ", ".join(table.column_names)
    if column is None:
        filled = [name for name in table.column_names if table[name].null_count < table.num_rows]
        found = filled if len(filled) == 1 else [name for name in filled if name.casefold() in _COLUMNS]
        if len(found) != 1:
            raise InputError(f"{path}: which column holds passages or contexts? It has {names}; name one with {option}")
        (column,) = found
    if column not in table.column_names:
        raise InputError(f"{path}: no column {column!r} ({option}); it has {names}")
    return list(dict.fromkeys(filled_strings(table, column, str(path)).to_pylist()))


def _read_sources(study: Study) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The sources of the study's file, without those that are held out, and these."""
    writing = study.config.writing
    if writing.sources is None:
        return None, ()
    held_out = {normalise_text(source) for source in study.held_out_sources()}
    given = read_sources(writing.sources, writing.sources_text)
    kept = tuple(source for source in given if normalise_text(source) not in held_out)
    if not kept:
        raise InputError(
            f"{writing.sources}: all {len(given)} are those of validation or the locked test; give others to "
            "write about"
        )
    return kept, tuple(source for source in given if normalise_text(source) in held_out)


def _choose_strata(strata: Mapping[str, Stratum], count: int, seed: int) -> dict[str, Stratum]:
    """So many of the strata, those first in an order that depends on each one's name and the seed alone."""
    order = sorted(strata, key=lambda name: hash_value([seed, "sources", name]))
    chosen = set(order[:count])
    return {name: stratum for name, stratum in strata.items() if name in chosen}


def check_labels(study: Study) -> Agrees | None:
    """Whether texts have their labels, by a probe of the real training rows; None where the study does not ask."""
    least = study.config.writing.label_check
    if least is None:
        return None
    train = study.train
    probe = fit_probe(study.encoder.encode(train.texts), train.targets)
    column = {label: i for i, label in enumerate(probe.labels)}

    def agrees(texts: Sequence[str], labels: Sequence[str]) -> list[bool]:
        proba = probe.proba(study.encoder.encode(texts))
        return [bool(proba[row, column[label]] >= least) for row, label in enumerate(labels)]

    return agrees
