"""The leak guard: which texts repeat validation or the locked test, and what no row may be about."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from cuvee.corpus import distinct_sources, normalise_text
from cuvee.defects import LeakFinder
from cuvee.study.setup import Study

DETAIL = "texts, against leaks"
"""What the leak guard's reads of the locked test are logged as."""


def held_out_texts(study: Study) -> list[str]:
    """The texts of validation and the locked test; the read is logged."""
    return [*study.split.validation.texts, *study.locked_test(DETAIL).texts_for_leak_guard()]


def held_out_sources(study: Study) -> list[str]:
    """Contexts or passages of validation and the locked test that no training row is about; the read is logged.

    Where the data is not grouped by them, one passage may stand on both sides of the split: it is no secret then.
    """
    if study.config.task == "classification":
        return []
    test = study.locked_test("contexts or passages, against leaks").sources_for_leak_guard()
    known = {normalise_text(source) for source in distinct_sources(study.train)}
    found = dict.fromkeys([*distinct_sources(study.split.validation), *test])
    return [source for source in found if normalise_text(source) not in known]


class LeakGuard:
    """Says of texts which of them leak validation or the locked test; what they are compared with is read once."""

    def __init__(self, study: Study) -> None:
        self._held_out = held_out_texts(study)
        self._reference = study.train.texts
        self._encoder = study.encoder

    @cached_property
    def _finder(self) -> LeakFinder:
        return LeakFinder(
            self._held_out,
            reference=self._reference,
            held_out_vectors=self._encoder.encode(self._held_out),
            reference_vectors=self._encoder.encode(self._reference),
        )

    def reasons(self, texts: Sequence[str]) -> list[str | None]:
        """For each text why it leaks, or None."""
        reasons: list[str | None] = [None] * len(texts)
        if not texts:
            return reasons
        for leak in self._finder.find(list(texts), self._encoder.encode(texts)).found:
            reasons[leak.row] = f"leaks held-out data ({leak.reason})"
        return reasons
