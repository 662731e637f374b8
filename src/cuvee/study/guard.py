"""The leak guard: which texts repeat validation or the locked test."""

from __future__ import annotations

from collections.abc import Sequence

from cuvee.defects import find_leaks
from cuvee.study.setup import Study


class LeakGuard:
    """Says of texts which of them leak validation or the locked test."""

    def __init__(self, study: Study) -> None:
        test = study.locked_test("texts, against leaks").texts_for_leak_guard()
        self._held_out = [*study.split.validation.texts, *test]
        self._reference = study.train.texts
        self._encoder = study.encoder

    def reasons(self, texts: Sequence[str]) -> list[str | None]:
        """For each text why it leaks, or None."""
        reasons: list[str | None] = [None] * len(texts)
        if not texts:
            return reasons
        leaks = find_leaks(
            list(texts),
            self._held_out,
            reference=self._reference,
            vectors=self._encoder.encode(texts),
            held_out_vectors=self._encoder.encode(self._held_out),
            reference_vectors=self._encoder.encode(self._reference),
        )
        for leak in leaks.found:
            reasons[leak.row] = f"leaks held-out data ({leak.reason})"
        return reasons
