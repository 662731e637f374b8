"""What a study has its LLM write: kind, sources, prompts, and what checks the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cuvee.corpus import load_corpus
from cuvee.fingerprint import derive_seed, hash_value
from cuvee.generate.screening import Agrees
from cuvee.generate.strata import Kind, Stratum, choose_kind, find_strata
from cuvee.generate.templates import PromptSet, load_prompts
from cuvee.probe import fit_probe
from cuvee.study.setup import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Commission:
    """What the LLM is to write for a study.

    Attributes:
        kind: of writing.
        strata: what rows are dealt to: labels, passages, contexts, or one for all.
        sources: passages or contexts from a file of their own; None: those of the training rows.
        prompts: ours, with those of the study's folder.
        rows: of a stratum in one draw.
        key: hash of all of it that the strata do not say already.
    """

    kind: Kind
    strata: Mapping[str, Stratum]
    sources: tuple[str, ...] | None
    prompts: PromptSet
    rows: int
    key: str


def commission(study: Study) -> Commission:
    """What the study's config commissions.

    Raises:
        ConfigError: a kind that does not fit the task, broken prompts, nothing to write about.
        InputError: the file of sources cannot be read.
    """
    writing = study.config.writing
    sources = None
    if writing.sources is not None:
        sources = tuple(dict.fromkeys(load_corpus(writing.sources, labelled=False).texts))
    kind = choose_kind(study.train, writing.kind, sources)
    strata, prompts = find_strata(study.train, kind, sources), load_prompts(writing.prompts)
    wanted = study.block_rows()
    rows = max(wanted.values()) if kind == "label" else math.ceil(sum(wanted.values()) / len(strata))
    settings = [kind, prompts.hash, writing.near_duplicate, writing.label_check]
    key = hash_value([*settings, [stratum.source for stratum in strata.values()]])
    return Commission(kind=kind, strata=strata, sources=sources, prompts=prompts, rows=rows, key=key)


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
