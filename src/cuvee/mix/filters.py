"""Filters of a pool: each says which rows go and why, and every removed row is listed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus, normalise_text, row_sources
from cuvee.defects import (
    SLACK,
    LeakFinder,
    Leaks,
    NoLeaks,
    SetLeak,
    degenerate_reasons,
    detect_set_leak,
    first_rows,
    near_repeats,
)
from cuvee.errors import ConfigError, CuveeError, LeakError, TrainingError
from cuvee.fingerprint import derive_seed
from cuvee.mix.candidates import (
    Candidates,
    Encode,
    Filter,
    Filtered,
    FilterStep,
    Judgement,
    Removed,
    check_reasons,
    count_reasons,
)
from cuvee.mix.shares import apportion_rows
from cuvee.probe import cross_validated_proba, fit_probe
from cuvee.records import Vectors
from cuvee.registry import Kind, nearest_name, resolve_name
from cuvee.similarity import find_near_duplicates, nearest_neighbours

Reasons = Callable[[Corpus], Sequence[str | None]]
_UNKNOWN = "has a label the real rows lack"


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
        whole: also test the rows that are left as a set (see ``cuvee.defects.detect_set_leak``), where there are
            vectors of held-out and of real training rows.
    """

    held_out: Sequence[str]
    reference: Sequence[str] = ()
    sources: Sequence[str] = ()
    held_out_vectors: Vectors | None = None
    reference_vectors: Vectors | None = None
    whole: bool = True
    name: str = "leak"

    def judge(self, rows: Candidates) -> Judgement:
        """``leaks held-out data (KIND)``, KIND one of ``exact``, ``reordered``, ``overlap``, ``nearest``, ``source``.

        Raises:
            ValueError: vectors that do not fit.
        """
        if not self.held_out:
            return Judgement(reasons=(None,) * len(rows.corpus), note="no held-out texts were given")
        held_out_vectors = rows.embed(self.held_out, self.held_out_vectors, "held_out_vectors")
        reference_vectors = rows.embed(self.reference, self.reference_vectors, "reference_vectors")
        finder = LeakFinder(
            self.held_out,
            reference=self.reference,
            held_out_vectors=held_out_vectors,
            reference_vectors=reference_vectors,
        )
        texts = rows.corpus.texts
        known = {normalise_text(source) for source in self.sources}
        reasons: list[str | None] = [
            "leaks held-out data (source)" if source is not None and normalise_text(source) in known else None
            for source in row_sources(rows.corpus)
        ]

        def clean_batches() -> Iterator[Vectors]:
            """The vectors of the rows that stay; each batch is judged as it comes, and then let go."""
            for part, vectors in rows.vector_batches(self.name):
                self._note_leaks(finder.find(texts[part], vectors), reasons, part.start)
                yield vectors[[reason is None for reason in reasons[part]]]

        if held_out_vectors is None:
            self._note_leaks(finder.find(texts), reasons, 0)
        elif reference_vectors is None or not self.whole:
            for _ in clean_batches():
                pass
        else:
            found = detect_set_leak(clean_batches(), held_out_vectors, reference_vectors)
            if found is not None and found.alarm:
                self._raise_alarm(found, [text for text, why in zip(texts, reasons, strict=True) if why is None])
        parts = [f"{len(self.held_out)} held-out texts"]
        threshold, baseline = finder.limits
        parts.append("by words alone" if threshold is None else f"neighbours above cosine {threshold:.3f}")
        if baseline is not None:
            parts.append(f"{baseline:.1%} of the real rows leak by the same rules")
        return Judgement(reasons=tuple(reasons), note="; ".join(parts))

    @staticmethod
    def _note_leaks(leaks: Leaks, reasons: list[str | None], start: int) -> None:
        for leak in leaks.found:
            reasons[start + leak.row] = reasons[start + leak.row] or f"leaks held-out data ({leak.reason})"

    def _raise_alarm(self, found: SetLeak, texts: Sequence[str]) -> NoReturn:
        """Say that the set leaks: its share, examples, and what to do.

        Raises:
            LeakError: always.
        """
        pairs = "; ".join(f"{texts[row]!r} beside held-out {self.held_out[real]!r}" for row, real in found.examples[:3])
        raise LeakError(
            f"the rows look as if they had been written from held-out rows, though no single row repeats one: of "
            f"{found.near} rows whose nearest real row is held out, {found.rate:.1%} lie much nearer to it than to any "
            f"other real row, where {found.baseline:.1%} of real rows do (p = {found.p_value:.2g}); for example "
            f"{pairs}. If they are versions of real rows, split by the source row (data.group, with group under "
            "pools), or make them from training rows alone. If they are not, set whole: false of the filter leak"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Dedupe:
    """Removes rows that repeat an earlier row or a text of ``against``; the first row in order stays.

    Texts repeat each other where they agree by ``normalise_text``, whatever their labels; a row that has a context is
    compared with it (as ``Corpus.prompts`` has both): one question may be asked of many. With ``near``, so do
    rows whose cosine is at least ``near``: a row goes where a row that *stays*, or a text of ``against``, is so
    near, so a chain of neighbours does not pull in rows that are unlike the one that stays.

    Args:
        against: other texts, for example the real training rows.
        near: cosine from which on two rows say the same, above 0, at most 1; None: exact repeats alone.
        against_vectors: of ``against``, shape (m, d); encoded where left out.

    Raises:
        ValueError: ``near`` out of range.
    """

    against: Sequence[str] = ()
    near: float | None = None
    against_vectors: Vectors | None = None
    name: str = "dedupe"

    def __post_init__(self) -> None:
        if self.near is not None and not 0 < self.near <= 1:
            raise ValueError(f"near is {self.near!r}; give a cosine above 0, at most 1, or None")

    def judge(self, rows: Candidates) -> Judgement:
        """``repeats ...`` for exact repeats, ``near-duplicate of ...`` for the others.

        Raises:
            ValueError: ``near`` is given and there are no vectors.
        """
        reasons = _exact_repeats(rows.corpus, self.against)
        if self.near is None:
            return Judgement(reasons=tuple(reasons))
        unit = rows.needed_vectors(self.name)
        if self.against:
            others = rows.embed(self.against, self.against_vectors, "against_vectors")
            if others is None:
                raise ValueError("near and against are given, but against has no vectors; give encode, against_vectors")
            close = nearest_neighbours(unit, others).cosine >= np.float32(self.near - SLACK)
            _fill(reasons, np.flatnonzero(close), "near-duplicate of a given text")
        left = np.flatnonzero([reason is None for reason in reasons])
        _fill(reasons, left[near_repeats(unit[left], self.near)], "near-duplicate of an earlier row")
        return Judgement(reasons=tuple(reasons), note=f"near-duplicates: cosine of at least {self.near:g}")


@dataclass(frozen=True, kw_only=True)
class FewerPerCluster:
    """Keeps the first ``limit`` rows of each family of rows.

    A family is a group of the corpus (all paraphrases of one source; a row without a group is alone), or with
    ``threshold`` a cluster of rows linked by a cosine of at least that. The rows that a smaller limit keeps are
    among those that a larger one keeps.

    Raises:
        ValueError: ``limit`` below 1, or ``threshold`` out of range.
    """

    limit: int
    threshold: float | None = None
    name: str = "fewer-per-cluster"

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"limit is {self.limit!r}; it must be at least 1")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold!r}; give a cosine above 0, at most 1, or None")

    def judge(self, rows: Candidates) -> Judgement:
        """``not among the first N of its group`` (or ``cluster``).

        Raises:
            ValueError: ``threshold`` is given and there are no vectors.
        """
        families: list[str] | list[int] = rows.corpus.groups
        what, note = "group", ""
        if self.threshold is not None:
            families = find_near_duplicates(rows.needed_vectors(self.name), self.threshold).cluster.tolist()
            what, note = "cluster", f"clusters: rows linked by a cosine of at least {self.threshold:g}"
        seen: Counter[str | int] = Counter()
        reasons: list[str | None] = []
        for family in families:
            seen[family] += 1
            reasons.append(f"not among the first {self.limit} of its {what}" if seen[family] > self.limit else None)
        counts = f"{len(seen)} {what}s, the largest of {max(seen.values(), default=0)} rows"
        return Judgement(reasons=tuple(reasons), note=f"{counts}; {note}" if note else counts)


def _exact_repeats(corpus: Corpus, against: Sequence[str]) -> list[str | None]:
    given = {normalise_text(text) for text in against}
    keys = [normalise_text(prompt) for prompt in corpus.prompts]
    targets, labelled = corpus.targets, corpus.task == "classification"

    def reason(row: int, first: int) -> str | None:
        if keys[row] in given:
            return "repeats a given text"
        if first == row:
            return None
        same = targets[first] == targets[row] or not labelled
        return "repeats an earlier row" if same else "repeats an earlier row of another label"

    return [reason(row, first) for row, first in enumerate(first_rows(keys).tolist())]


def _fill(reasons: list[str | None], rows: NDArray[np.int64], reason: str) -> None:
    for row in rows.tolist():
        reasons[row] = reasons[row] or reason


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreement:
    """Keeps the rows whose own label is likely by a probe fitted on the real training rows alone.

    The probe and its seed are those of the measured ``label_agreement``, so both judge a row alike. A label that
    the real rows lack always goes. ``top`` keeps its fraction of each label's rows, so that labels keep their
    proportions (the quota method: exact in all, each label within one row); a smaller ``top`` keeps some of the
    rows of a larger one. The note gives the probe's cross-validated accuracy on the real rows: how far to trust it.

    Args:
        train: the real training rows.
        threshold: keep rows whose label has at least this probability, 0 to 1.
        top: keep this fraction of the rows, the most probable first, ties by row order; above 0, at most 1.
        train_vectors: of ``train``, shape (m, d); encoded where left out.
        seed: of the probe and of the folds.

    Raises:
        ValueError: not exactly one of ``threshold`` and ``top``, or one out of range.
        ConfigError: the task has no labels.
    """

    train: Corpus
    threshold: float | None = None
    top: float | None = None
    train_vectors: Vectors | None = None
    seed: int = 0
    name: str = "agreement"

    def __post_init__(self) -> None:
        if (self.threshold is None) == (self.top is None):
            raise ValueError(f"threshold is {self.threshold!r} and top {self.top!r}; give exactly one of them")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold!r}; it must be from 0 to 1")
        if self.top is not None and not 0 < self.top <= 1:
            raise ValueError(f"top is {self.top!r}; it must be above 0, at most 1")
        if self.train.task != "classification":
            raise ConfigError(f"filter {self.name!r} needs labels; task {self.train.task!r} has none")

    def judge(self, rows: Candidates) -> Judgement:
        """``label less probable than P`` or ``not in the top P of its label``.

        Raises:
            TrainingError: the real rows are of one label only.
            ValueError: there are no vectors.
        """
        own = rows.needed_vectors(self.name)
        real = rows.embed(self.train.texts, self.train_vectors, "train_vectors")
        if real is None:
            raise ValueError(f"filter {self.name!r} needs vectors of the real rows; give encode or train_vectors")
        probability = self._probabilities(real, own, rows.corpus)
        known = ~np.isnan(probability)
        if self.threshold is not None:
            stays, reason = probability >= self.threshold, f"label less probable than {self.threshold:g}"
        else:
            stays = self._most_probable(probability, rows.corpus)
            reason = f"not in the top {self.top:.3g} of its label"
        reasons = tuple(
            None if kept else (reason if labelled else _UNKNOWN) for kept, labelled in zip(stays, known, strict=True)
        )
        return Judgement(reasons=reasons, note=self._trust(real))

    def _probabilities(self, real: Vectors, own: Vectors, corpus: Corpus) -> NDArray[np.float64]:
        """Of each row's own label, shape (n,); nan where the real rows lack it."""
        probe = fit_probe(real, self.train.targets, seed=derive_seed(self.seed, "label-agreement"))
        column = {label: i for i, label in enumerate(probe.labels)}
        codes = np.array([column.get(label, -1) for label in corpus.targets], dtype=np.int64)
        proba = probe.proba(own)
        out: NDArray[np.float64] = np.where(codes >= 0, proba[np.arange(len(codes)), codes], np.nan)
        return out

    def _most_probable(self, probability: NDArray[np.float64], corpus: Corpus) -> NDArray[np.bool_]:
        targets = np.array(corpus.targets)
        known = ~np.isnan(probability)
        sizes = dict(sorted(Counter(targets[known].tolist()).items()))
        wanted = apportion_rows(sizes, math.floor((self.top or 0.0) * int(known.sum()) + 0.5))
        stays = np.zeros(len(targets), dtype=bool)
        for label, count in wanted.items():
            members = np.flatnonzero(known & (targets == label))
            best = np.argsort(-probability[members], kind="stable")[:count]
            stays[members[best]] = True
        return stays

    def _trust(self, real: Vectors) -> str:
        train = self.train
        label, rows = max(train.label_counts().items(), key=lambda pair: pair[1])
        about = f"probe of {len(train)} real rows"
        try:
            proba = cross_validated_proba(
                real, train.targets, groups=train.groups, seed=derive_seed(self.seed, "label-agreement")
            )
        except TrainingError:  # too few real rows to hold some out
            return f"{about}, too few to cross-validate: nothing says how far to trust it"
        labels = np.array(train.labels)
        accuracy = float((labels[proba.argmax(axis=1)] == np.array(train.targets)).mean())
        worth = "" if accuracy * len(train) > rows else f": no better than always saying {label!r}, do not trust it"
        return f"{about}, cross-validated accuracy {accuracy:.3f} (largest label {rows / len(train):.3f}){worth}"


FILTERS: dict[str, type[Agreement | Dedupe | Degenerate | FewerPerCluster | Leak]] = {
    "agreement": Agreement,
    "dedupe": Dedupe,
    "degenerate": Degenerate,
    "fewer-per-cluster": FewerPerCluster,
    "leak": Leak,
}


@dataclass(frozen=True, slots=True)
class Keep:
    """A user's own function as a filter: for each row why it goes, None where it stays."""

    name: str
    reasons: Reasons

    @classmethod
    def load(cls, name: str) -> Keep:
        """The filter made of the function at ``module:Name``, called by that name.

        Raises:
            ConfigError: no such module or function, its module fails, or it cannot be called.
        """
        if ":" not in name:
            raise ConfigError(
                f"unknown filter {name!r}; {nearest_name(name, FILTERS)}, or module:Name of a function of your own"
            )
        table: dict[str, Reasons] = {}
        return cls(name, resolve_name(name, table, Kind(name="filter", takes=("corpus",))))

    def judge(self, rows: Candidates) -> Judgement:
        """What the function says of the rows.

        Raises:
            ConfigError: it failed, or did not give one reason (or None) a row.
        """
        try:
            reasons = tuple(self.reasons(rows.corpus))
        except CuveeError:
            raise
        except Exception as exc:
            raise ConfigError(
                f"filter {self.name!r} failed with {type(exc).__name__}: {exc}; mend the function, or leave it out"
            ) from exc
        try:
            check_reasons(self.name, reasons, len(rows.corpus))
        except ValueError as exc:
            raise ConfigError(str(exc)) from exc
        return Judgement(reasons=reasons)


def apply_filters(
    pool: Corpus, filters: Sequence[Filter], *, encode: Encode | None = None, vectors: Vectors | None = None
) -> Filtered:
    """Take from ``pool`` what each filter removes, one filter after the other.

    Vectors are made once, when a filter first wants them, of the rows left by then. From a ``Leak`` filter on,
    no row may be one of its held-out texts: that is checked after it and after each later step.

    Args:
        pool: the rows, usually synthetic.
        filters: in order; cheap ones that remove much belong first.
        encode: texts to vectors, for filters that compare meanings: an Encoder's ``encode``.
        vectors: of the rows of ``pool``, shape (n, d), where they are at hand.

    Raises:
        LeakError: a row is a held-out text after a ``Leak`` filter.
        ValueError: a filter that needs vectors has none; a filter's answer does not fit the rows.
    """
    rows = Candidates(pool, encode=encode, vectors=vectors)
    places = np.arange(len(pool), dtype=np.int64)
    steps: list[FilterStep] = []
    removed: list[Removed] = []
    guards: list[NoLeaks] = []
    for each in filters:
        said = _judge(each, rows)
        gone = [(row, reason) for row, reason in enumerate(said.reasons) if reason is not None]
        ids, texts = rows.corpus.ids, rows.corpus.texts
        removed += [Removed(id=ids[row], text=texts[row], filter=each.name, reason=reason) for row, reason in gone]
        before = len(rows.corpus)
        if gone:
            stays = np.array([reason is None for reason in said.reasons], dtype=bool)
            rows, places = rows.keep(stays), places[stays]
        steps.append(
            FilterStep(
                name=each.name, rows_before=before, removed=len(gone), rows_after=len(rows.corpus),
                reasons=count_reasons(said.reasons), note=said.note,
            )
        )  # fmt: skip
        if isinstance(each, Leak):
            guards.append(NoLeaks(each.held_out, each.sources))
        for guard in guards:
            guard.check(rows.corpus, when=f"after filter {each.name!r}")
    return Filtered(corpus=rows.corpus, rows=places, steps=tuple(steps), removed=tuple(removed))


def _judge(each: Filter, rows: Candidates) -> Judgement:
    if not len(rows.corpus):
        return Judgement(reasons=(), note="no rows left to judge")
    said = each.judge(rows)
    check_reasons(each.name, said.reasons, len(rows.corpus))
    return said
