"""What a study has its LLM write: kind, sources, prompts, and what checks the rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cuvee.corpus import normalise_text
from cuvee.corpus.files import read_table
from cuvee.errors import InputError
from cuvee.fingerprint import derive_seed, hash_value
from cuvee.generate.acceptance import Agrees
from cuvee.generate.parsing import WRITINGS, Kind, Stratum, choose_kind, find_strata
from cuvee.generate.prompts import PromptSet, load_prompts
from cuvee.probe import fit_probe
from cuvee.study.setup import Study

LEFT_OUT = "sources-left-out.jsonl"
"""Of the run folder: what was not written about, because it is held out."""
_HELD_OUT = "is a context or passage of validation or the locked test"


_COLUMNS = ("text", "passage", "context", "document", "article", "source", "content", "body")
"""Usual names of the column that holds what is written about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyWriting:
    """What the LLM is to write for a study.

    Attributes:
        kind: of writing.
        strata: what rows are dealt to: labels, passages, contexts, or one for all.
        sources: the passages or contexts to write about; None: all of the training rows, or nothing given.
        prompts: ours, with those of the study's folder.
        rows: of a stratum in one draw.
        key: hash of all of it that the strata do not say already.
        left_out: passages or contexts of the study's file that are held out, and so are not written about.
    """

    kind: Kind
    strata: Mapping[str, Stratum]
    sources: tuple[str, ...] | None
    prompts: PromptSet
    rows: int
    key: str
    left_out: tuple[str, ...] = ()


def study_writing(study: Study) -> StudyWriting:
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
    settings = [kind, prompts.hash, writing.near_duplicate, writing.label_check]
    key = hash_value([*settings, [stratum.source for stratum in strata.values()]])
    return StudyWriting(
        kind=kind, strata=strata, sources=sources, prompts=prompts, rows=rows, key=key, left_out=left_out
    )


def note_left_out(study: Study, wanted: StudyWriting) -> None:
    """Say that sources are held out, and list them in the run folder."""
    if not wanted.left_out:
        return
    lines = (json.dumps({"source": source, "reason": _HELD_OUT}, ensure_ascii=False) for source in wanted.left_out)
    path = study.folder.save_text(LEFT_OUT, "".join(f"{line}\n" for line in lines))
    study.stages.listener.noted(
        f"{study.config.writing.sources}: {len(wanted.left_out)} passages or contexts are those of validation or the "
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
    names = table.column_names
    filled = [name for name in names if table[name].null_count < table.num_rows]
    if column is None:
        usual = [name for name in filled if name.casefold() in _COLUMNS]
        found = usual if len(filled) > 1 else filled
        if len(found) != 1:
            raise InputError(
                f"{path}: which column holds the passages or contexts to write about? It has {', '.join(names)}; "
                f"name one with {option}"
            )
        column = found[0]
    if column not in names:
        raise InputError(f"{path}: no column {column!r} ({option}); it has {', '.join(names)}")
    values = ["" if value is None else str(value) for value in table[column].to_pylist()]
    blank = next((number for number, value in enumerate(values, start=1) if not value.strip()), None)
    if blank is not None:
        raise InputError(f"{path}, row {blank}: column {column!r} is empty; fill it or drop the row")
    return list(dict.fromkeys(values))


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
            f"{writing.sources}: all {len(given)} passages or contexts are those of validation or the locked test; "
            "give others to write about"
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
    probe = fit_probe(
        study.encoder.encode(train.texts), train.targets, seed=derive_seed(study.config.seed, "label-agreement")
    )
    column = {label: i for i, label in enumerate(probe.labels)}

    def agrees(texts: Sequence[str], labels: Sequence[str]) -> list[bool]:
        proba = probe.proba(study.encoder.encode(texts))
        return [bool(proba[row, column[label]] >= least) for row, label in enumerate(labels)]

    return agrees
