"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cuvee.records import Advice, Composition, Measurement, TrialFailure, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One row of a pool or of the real data, to be shown."""

    label: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything the page shows; only ``title``, ``advice`` and ``levels`` are needed.

    Levels are keyed ``dial=name`` in ``measurements``, ``samples`` and ``rejected``; the real training data
    is ``real``.
    """

    title: str
    advice: Advice
    levels: Mapping[str, Sequence[str]]
    """dial -> its level names from least to most diverse as expected"""
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    trainer: str = "probe"
    shape_share: float = 0.75
    descriptive_shares: Sequence[float] = ()
    delta: float = 0.01
    failures: Sequence[TrialFailure] = ()
    usage: Usage = field(default_factory=Usage)
    seconds: Mapping[str, float] = field(default_factory=dict)
    """stage -> seconds"""
    composition: Composition | None = None
    """of the recommended blend, as realised"""
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    rejected: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """level key -> reason -> rejected answers"""
    settings: Mapping[str, str] = field(default_factory=dict)
    """what was chosen, in words: data, model, seeds"""
    access_log: Sequence[str] = ()
    """who read the locked test, and what the leak guard removed"""
    command: str = ""
    """the command that makes this page again"""
    version: str = ""
