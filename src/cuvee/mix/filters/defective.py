"""Filters of rows that should not be trained on: degenerate text, leaks of held-out rows; the guard against these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cuvee.corpus import Corpus, normalise_text, row_sources
from cuvee.defects import LeakFinder, degenerate_reasons
from cuvee.errors import LeakError
from cuvee.mix.filters.steps import Candidates, Judgement
from cuvee.records import Vectors


@dataclass(frozen=True, kw_only=True, eq=False)
class Degenerate:
    """Removes text that is no usable example (see ``cuvee.defects.degenerate_reasons``).

    Completions (of the task generation) are judged too, by what needs no reference.

    Args:
        reference: real texts of the same kind; with them cut-off text and other languages are found too.
        prompts: the instructions that the LLM was given, for echoes of them.
    """

    reference: Sequence[str] = ()
    prompts: Sequence[str] = ()
    name: str = "degenerate"

    def judge(self, rows: Candidates) -> Judgement:
        """The first reason that applies, in the words of ``DegenerateReason``; ``completion: REASON`` of a target."""
        found = degenerate_reasons(rows.corpus.texts, reference=self.reference or None, prompts=self.prompts or None)
        if rows.corpus.task == "generation":
            of_targets = degenerate_reasons(rows.corpus.targets, min_letters=1)
            found = [
                text or (target and f"completion: {target}") for text, target in zip(found, of_targets, strict=True)
            ]
        return Judgement(reasons=tuple(found))


@dataclass(frozen=True, kw_only=True, eq=False)
class Leak:
    """Removes rows that repeat a held-out text more closely than real rows do (see ``cuvee.defects.find_leaks``).

    Args:
        held_out: validation and test texts.
        reference: real training texts, which set how near a neighbour may be.
        held_out_vectors, reference_vectors: of these, shapes (m, d) and (r, d); encoded where left out. Where
            there is nothing to encode with, leaks are found by their words alone, and the note says so.
        sources: contexts or passages of held-out rows that no training row has: rows about one of them go too.
    """

    held_out: Sequence[str]
    reference: Sequence[str] = ()
    sources: Sequence[str] = ()
    held_out_vectors: Vectors | None = None
    reference_vectors: Vectors | None = None
    name: str = "leak"

    def judge(self, rows: Candidates) -> Judgement:
        """``leaks held-out data (KIND)``, KIND one of ``exact``, ``reordered``, ``overlap``, ``nearest``, ``source``.

        Raises:
            ValueError: vectors that do not fit.
        """
        if not self.held_out:
            return Judgement(reasons=(None,) * len(rows.corpus), note="no held-out texts were given")
        held_out_vectors = rows.embed(self.held_out, self.held_out_vectors, "held_out_vectors")
        finder = LeakFinder(
            self.held_out,
            reference=self.reference,
            held_out_vectors=held_out_vectors,
            reference_vectors=rows.embed(self.reference, self.reference_vectors, "reference_vectors"),
        )
        reasons: list[str | None] = [None] * len(rows.corpus)
        texts = rows.corpus.texts
        whole = [(slice(0, len(texts)), None)]
        for part, vectors in whole if held_out_vectors is None else rows.vector_batches(self.name):
            leaks = finder.find(texts[part], vectors)
            for leak in leaks.found:
                reasons[part.start + leak.row] = f"leaks held-out data ({leak.reason})"
        known = {normalise_text(source) for source in self.sources}
        for row, source in enumerate(row_sources(rows.corpus)):
            if source is not None and normalise_text(source) in known:
                reasons[row] = "leaks held-out data (source)"
        parts = [f"{len(self.held_out)} held-out texts"]
        parts.append("by words alone" if leaks.threshold is None else f"neighbours above cosine {leaks.threshold:.3f}")
        if leaks.baseline is not None:
            parts.append(f"{leaks.baseline:.1%} of the real rows leak by the same rules")
        return Judgement(reasons=tuple(reasons), note="; ".join(parts))


class NoLeaks:
    """Holds that no row of a corpus is a held-out text, or about a held-out source (by ``normalise_text``).

    Args:
        held_out: validation and test texts.
        sources: contexts or passages of held-out rows alone.
    """

    def __init__(self, held_out: Sequence[str], sources: Sequence[str] = ()) -> None:
        self._held_out = {normalise_text(text) for text in held_out}
        self._sources = {normalise_text(source) for source in sources}

    def check(self, corpus: Corpus, *, when: str = "") -> None:
        """Nothing where it holds.

        Args:
            corpus: the rows to check.
            when: for the message, for example ``after filter 'top'``.

        Raises:
            LeakError: a row is a held-out text; the message names the first and how many there are.
        """
        about = row_sources(corpus) if self._sources else [None] * len(corpus)
        found = [
            row
            for row, (text, source) in enumerate(zip(corpus.texts, about, strict=True))
            if normalise_text(text) in self._held_out or normalise_text(source or "") in self._sources
        ]
        if found:
            first = found[0]
            where = f" {when}" if when else ""
            is_text = normalise_text(corpus.texts[first]) in self._held_out
            what = "a held-out text" if is_text else "about a held-out source"
            raise LeakError(
                f"row {corpus.ids[first]!r} ({corpus.texts[first]!r}) is {what}{where} "
                f"({len(found)} of {len(corpus)} rows are); remove leaks before training on them"
            )


def assert_no_leaks(corpus: Corpus, held_out: Sequence[str]) -> None:
    """Raise LeakError, naming the row, where a row of ``corpus`` is one of ``held_out`` (by ``normalise_text``)."""
    NoLeaks(held_out).check(corpus)
