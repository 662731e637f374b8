"""Filters of rows that should not be trained on: degenerate text, leaks of held-out rows; the guard against these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cuvee.corpus import Corpus, normalise_text
from cuvee.defects import degenerate_reasons, find_leaks
from cuvee.errors import LeakError
from cuvee.mix.filters.steps import Candidates, Judgement
from cuvee.records import Vectors


@dataclass(frozen=True, kw_only=True, eq=False)
class Degenerate:
    """Removes text that is no usable example (see ``cuvee.defects.degenerate_reasons``).

    Args:
        reference: real texts of the same kind; with them cut-off text and other languages are found too.
        prompts: the instructions that the LLM was given, for echoes of them.
    """

    reference: Sequence[str] = ()
    prompts: Sequence[str] = ()
    name: str = "degenerate"

    def judge(self, rows: Candidates) -> Judgement:
        """The first reason that applies, in the words of ``DegenerateReason``."""
        found = degenerate_reasons(rows.corpus.texts, reference=self.reference or None, prompts=self.prompts or None)
        return Judgement(reasons=tuple(found))


@dataclass(frozen=True, kw_only=True, eq=False)
class Leak:
    """Removes rows that repeat a held-out text more closely than real rows do (see ``cuvee.defects.find_leaks``).

    Args:
        held_out: validation and test texts.
        reference: real training texts, which set how near a neighbour may be.
        held_out_vectors, reference_vectors: of these, shapes (m, d) and (r, d); encoded where left out. Where
            there is nothing to encode with, leaks are found by their words alone, and the note says so.
    """

    held_out: Sequence[str]
    reference: Sequence[str] = ()
    held_out_vectors: Vectors | None = None
    reference_vectors: Vectors | None = None
    name: str = "leak"

    def judge(self, rows: Candidates) -> Judgement:
        """``leaks held-out data (KIND)``, KIND one of ``exact``, ``reordered``, ``overlap``, ``nearest``.

        Raises:
            ValueError: vectors that do not fit.
        """
        if not self.held_out:
            return Judgement(reasons=(None,) * len(rows.corpus), note="no held-out texts were given")
        held_out_vectors = rows.embed(self.held_out, self.held_out_vectors, "held_out_vectors")
        by_vectors = held_out_vectors is not None
        leaks = find_leaks(
            rows.corpus.texts,
            self.held_out,
            reference=self.reference,
            vectors=rows.needed_vectors(self.name) if by_vectors else None,
            held_out_vectors=held_out_vectors,
            reference_vectors=rows.embed(self.reference, self.reference_vectors, "reference_vectors"),
        )
        reasons: list[str | None] = [None] * len(rows.corpus)
        for leak in leaks.found:
            reasons[leak.row] = f"leaks held-out data ({leak.reason})"
        parts = [f"{len(self.held_out)} held-out texts"]
        parts.append("by words alone" if leaks.threshold is None else f"neighbours above cosine {leaks.threshold:.3f}")
        if leaks.baseline is not None:
            parts.append(f"{leaks.baseline:.1%} of the real rows leak by the same rules")
        return Judgement(reasons=tuple(reasons), note="; ".join(parts))


class NoLeaks:
    """Holds that no row of a corpus is a held-out text (by ``normalise_text``).

    Args:
        held_out: validation and test texts.
    """

    def __init__(self, held_out: Sequence[str]) -> None:
        self._held_out = {normalise_text(text) for text in held_out}

    def check(self, corpus: Corpus, *, when: str = "") -> None:
        """Nothing where it holds.

        Args:
            corpus: the rows to check.
            when: for the message, for example ``after filter 'top'``.

        Raises:
            LeakError: a row is a held-out text; the message names the first and how many there are.
        """
        found = [row for row, text in enumerate(corpus.texts) if normalise_text(text) in self._held_out]
        if found:
            first = found[0]
            where = f" {when}" if when else ""
            raise LeakError(
                f"row {corpus.ids[first]!r} ({corpus.texts[first]!r}) is a held-out text{where} "
                f"({len(found)} of {len(corpus)} rows are); remove leaks before training on them"
            )


def assert_no_leaks(corpus: Corpus, held_out: Sequence[str]) -> None:
    """Raise LeakError, naming the row, where a row of ``corpus`` is one of ``held_out`` (by ``normalise_text``)."""
    NoLeaks(held_out).check(corpus)
