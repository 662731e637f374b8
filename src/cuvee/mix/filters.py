"""Filters of a pool: each says which rows go and why, and every removed row is listed."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cuvee import defects
from cuvee.characters import to_html
from cuvee.corpus import Corpus, first_same, normalise_text, row_sources, written_from
from cuvee.errors import ConfigError, CuveeError, LeakError, TrainingError
from cuvee.fingerprint import derive_seed
from cuvee.mix.blend import apportion_rows
from cuvee.mix.candidates import Candidates, Encode, Filter, FilterVerdict
from cuvee.probe import cross_validated_proba, fit_probe
from cuvee.records import Finding, Rejected, Shown, Vectors
from cuvee.registry import Kind, nearest_name, resolve_name
from cuvee.similarity import SLACK, find_near_duplicates, near_repeats, nearest_neighbours

Reasons = Callable[[Corpus], Sequence[str | None]]
Needed = Callable[[Corpus], NDArray[np.bool_]]  # which rows of a corpus anything takes, shape (n,)
_YARDSTICK = 100  # real rows that are scored beside a pool
_UNKNOWN = "has a label the real rows lack"
FILTERS = ("agreement", "dedupe", "degenerate", "fewer-per-cluster", "judge", "leak", "pairs", "reader")


# --- what came of a sequence of filters ---------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class FilterStep:
    """What one filter did; ``reasons`` counts the removed rows by reason, the most frequent first."""

    name: str
    rows_before: int
    removed: int
    rows_after: int
    reasons: Mapping[str, int]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """One row that a filter removed."""

    id: str
    text: str
    filter: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Filtered(Shown):
    """What is left of a pool, and where every other row went.

    Attributes:
        corpus: the rows that stay, in the order of the pool.
        rows: their places in the pool, shape (n,).
        steps: one a filter, in order.
        removed: each removed row once, step by step.
    """

    corpus: Corpus
    rows: NDArray[np.int64]
    steps: tuple[FilterStep, ...]
    removed: tuple[Removed, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """How many rows were removed and why most often; or that nothing was wrong."""
        before = len(self.corpus) + len(self.removed)
        if not self.removed:
            return (Finding(id="nothing-wrong", sentence=f"Nothing wrong was found: all {before:,} rows are kept."),)
        reasons = Counter(f"{row.filter}: {row.reason}" for row in self.removed)
        (most, count), rate = reasons.most_common(1)[0], len(self.removed) / before
        sentence = f"{len(self.removed):,} of {before:,} rows were removed, most by {most} ({count:,})."
        remedy = "--removed FILE lists them."
        return (Finding(id="removed", sentence=sentence, remedy=remedy, value=rate, severity=rate),)

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        """The removed rows as a stored pool lists them: the row's id, and the reason with the filter's name."""
        return tuple(Rejected(slot=r.id, reason=f"{r.filter}: {r.reason}", text=r.text) for r in self.removed)

    def __str__(self) -> str:
        width = max((len(s.name) for s in self.steps), default=0)
        lines = [f"Filtered: {len(self.corpus)} of {len(self.corpus) + len(self.removed)} rows left"]
        for step in self.steps:
            why = ", ".join(f"{count} {reason}" for reason, count in step.reasons.items())
            lines.append(f"  {step.name:<{width}}  {step.rows_before:>7} -> {step.rows_after:<7} {why}".rstrip())
            if step.note:
                lines.append(f"  {'':<{width}}  {step.note}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{to_html(str(self))}</pre>{self.corpus._repr_html_()}"


# --- filters --------------------------------------------------------------------------------------
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

    def judge(self, rows: Candidates) -> FilterVerdict:
        """The first reason that applies, in the words of ``DegenerateReason``; ``completion: REASON`` of a target."""
        found = defects.degenerate_rows(rows.corpus, reference=self.reference or None, prompts=self.prompts or None)
        return FilterVerdict(reasons=tuple(found))


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Removes rows whose answer repeats what it answers, is too long, or does not stand in its context.

    Args:
        grounded: least share of an answer's content words that stand in the row's context, or in its text where it
            has none (see ``cuvee.defects.grounded_share``), 0 to 1; None: any.
        longest: the most words of an answer; None: any.
    """

    grounded: float | None = None
    longest: int | None = None
    name: str = "pairs"

    def judge(self, rows: Candidates) -> FilterVerdict:
        """``answer repeats what it answers``, ``answer too long`` or ``answer not grounded``."""
        corpus, longest = rows.corpus, math.inf if self.longest is None else self.longest
        parts = zip(corpus.texts, corpus.targets, corpus.contexts, strict=True)
        reasons = [defects.pair_reason(*part, longest) for part in parts]
        if self.grounded is not None:
            _fill(reasons, np.flatnonzero(defects.grounded_shares(corpus) < self.grounded), defects.UNGROUNDED)
        return FilterVerdict(
            reasons=tuple(reasons), note="" if self.longest is None else f"at most {self.longest} words"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """Keeps the rows that something outside scores high enough: a reader that answers again, a judge.

    Args:
        score: a number for each row of a corpus, shape (n,); nan where there is none, and such rows go.
        least: the lowest number that stays.
        what: what the number is, for messages.
        real: real rows, of which a sample is scored too: its mean says how far to trust the score.
        name: of the filter.
    """

    score: Callable[[Corpus], NDArray[np.float64]]
    least: float
    what: str
    real: Corpus
    name: str

    def judge(self, rows: Candidates) -> FilterVerdict:
        """``WHAT below LEAST``, or ``no WHAT``."""
        found, real = self.score(rows.corpus), self.score(self.real.take(np.arange(min(len(self.real), _YARDSTICK))))
        low = f"{self.what} below {self.least:g}"
        reasons = tuple(None if x >= self.least else f"no {self.what}" if np.isnan(x) else low for x in found)
        note = f"mean {self.what} {np.nanmean(found):.2f}; of {len(real)} real rows {np.nanmean(real):.2f}"
        return FilterVerdict(reasons=reasons, note=f"{note}, of which {(real >= self.least).mean():.0%} would stay")


@dataclass(frozen=True, kw_only=True, eq=False)
class Leak:
    """Removes rows that repeat a held-out text more closely than real rows do (see ``cuvee.defects.LeakFinder``).

    Where there is nothing to make vectors with, leaks are found by their words alone, and the note says so.

    Args:
        held_out: validation and test texts.
        reference: real training texts, which set how near a neighbour may be.
        sources: contexts or passages of held-out rows that no training row has: rows about one of them go too.
        names: what held-out rows are called that no training row is called (see ``cuvee.corpus.row_names``): rows
            that name one as the row that they were written from go too.
        whole: also test the rows that are left as a set (see ``cuvee.defects.SetLeakFinder``), where there are
            vectors of held-out and of real training rows.
    """

    held_out: Sequence[str]
    reference: Sequence[str] = ()
    sources: Sequence[str] = ()
    names: Collection[str] = frozenset()
    whole: bool = True
    name: str = "leak"

    def judge(self, rows: Candidates) -> FilterVerdict:
        """``leaks held-out data (KIND)``, KIND one of ``exact``, ``reordered``, ``overlap``, ``nearest``, ``source``,
        ``seed row``.

        Raises:
            LeakError: the rows that are left leak as a set.
        """
        if not self.held_out:
            return FilterVerdict(reasons=(None,) * len(rows.corpus), note="no held-out texts were given")
        held_out_vectors, reference_vectors = rows.embed(self.held_out), rows.embed(self.reference)
        finder = defects.LeakFinder(
            self.held_out,
            reference=self.reference,
            held_out_vectors=held_out_vectors,
            reference_vectors=reference_vectors,
        )
        texts = rows.corpus.texts
        known = {normalise_text(source) for source in self.sources}
        about = [source is not None and normalise_text(source) in known for source in row_sources(rows.corpus)]
        reasons: list[str | None] = [
            "leaks held-out data (seed row)" if seeded else "leaks held-out data (source)" if of_source else None
            for of_source, seeded in zip(about, written_from(rows.corpus, self.names), strict=True)
        ]
        whole = None
        if self.whole and held_out_vectors is not None and reference_vectors is not None:
            whole = defects.SetLeakFinder(held_out_vectors, reference_vectors)
        everything: list[tuple[slice, Vectors | None]] = [(slice(0, len(texts)), None)]
        for part, vectors in everything if held_out_vectors is None else rows.vector_batches(self.name):
            for leak in finder.find(texts[part], vectors).found:
                row = part.start + leak.row
                reasons[row] = reasons[row] or f"leaks held-out data ({leak.reason})"
            if whole is not None and vectors is not None:
                whole.add(vectors[[reason is None for reason in reasons[part]]])
        found = None if whole is None else whole.find()
        if found is not None and found.alarm:
            raise LeakError(self._tell(found, [t for t, why in zip(texts, reasons, strict=True) if why is None]))
        parts = [f"{len(self.held_out)} held-out texts"]
        threshold, baseline = finder.limits
        parts.append("by words alone" if threshold is None else f"neighbours above cosine {threshold:.3f}")
        if baseline is not None:
            parts.append(f"{baseline:.1%} of the real rows leak by the same rules")
        return FilterVerdict(reasons=tuple(reasons), note="; ".join(parts))

    def _tell(self, found: defects.SetLeak, texts: Sequence[str]) -> str:
        """The share of a set that leaks, examples, and what to do."""
        pairs = "; ".join(f"{texts[row]!r} beside held-out {self.held_out[real]!r}" for row, real in found.examples[:3])
        return (
            f"the rows look as if they had been written from held-out rows, though no single row repeats one: of "
            f"{found.near} rows whose nearest real row is held out, {found.rate:.1%} lie much nearer to it than to any "
            f"other real row, where {found.baseline:.1%} of real rows do (p = {found.p_value:.2g}); for example "
            f"{pairs}. If they are versions of real rows, split by the source row (data.group, with group under "
            "pools), or make them from training rows alone; if they are not, turn this test off (whole: false of the "
            "filter leak in study.yaml, --no-set-test of cuvee select)"
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

    Raises:
        ValueError: ``near`` out of range.
    """

    against: Sequence[str] = ()
    near: float | None = None
    name: str = "dedupe"

    def __post_init__(self) -> None:
        if self.near is not None and not 0 < self.near <= 1:
            raise ValueError(f"near is {self.near!r}; give a cosine above 0, at most 1, or None")

    def judge(self, rows: Candidates) -> FilterVerdict:
        """``repeats ...`` for exact repeats, ``near-duplicate of ...`` for the others.

        Raises:
            ValueError: ``near`` is given and there are no vectors.
        """
        reasons = _exact_repeats(rows.corpus, self.against)
        if self.near is None:
            return FilterVerdict(reasons=tuple(reasons))
        unit = rows.vectors(self.name)
        if self.against:
            others = rows.embed(self.against)
            assert others is not None  # the rows were encoded above
            close = nearest_neighbours(unit, others).cosine >= np.float32(self.near - SLACK)
            _fill(reasons, np.flatnonzero(close), "near-duplicate of a given text")
        left = np.flatnonzero([reason is None for reason in reasons])
        _fill(reasons, left[near_repeats(unit[left], self.near)], "near-duplicate of an earlier row")
        return FilterVerdict(reasons=tuple(reasons), note=f"near-duplicates: cosine of at least {self.near:g}")


@dataclass(frozen=True, kw_only=True)
class FewerPerCluster:
    """Keeps the first ``limit`` rows of each family of rows.

    A family is a group of the corpus (all paraphrases of one source; a row without a group is alone), or with
    ``threshold`` a cluster of rows linked by a cosine of at least that. The rows that a smaller limit keeps are
    among those that a larger one keeps.
    """

    limit: int
    threshold: float | None = None
    name: str = "fewer-per-cluster"

    def judge(self, rows: Candidates) -> FilterVerdict:
        """``not among the first N of its group`` (or ``cluster``).

        Raises:
            ValueError: ``threshold`` is given and there are no vectors.
        """
        families: list[str] | list[int] = rows.corpus.groups
        what, note = "group", ""
        if self.threshold is not None:
            families = find_near_duplicates(rows.vectors(self.name), self.threshold).tolist()
            what, note = "cluster", f"clusters: rows linked by a cosine of at least {self.threshold:g}"
        seen: Counter[str | int] = Counter()
        reasons: list[str | None] = []
        for family in families:
            seen[family] += 1
            reasons.append(f"not among the first {self.limit} of its {what}" if seen[family] > self.limit else None)
        counts = f"{len(seen)} {what}s, the largest of {max(seen.values(), default=0)} rows"
        return FilterVerdict(reasons=tuple(reasons), note=f"{counts}; {note}" if note else counts)


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

    return [reason(row, first) for row, first in enumerate(first_same(keys).tolist())]


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
        seed: of the probe and of the folds.

    Raises:
        ValueError: not exactly one of ``threshold`` and ``top``, or one out of range.
        ConfigError: the task has no labels.
    """

    train: Corpus
    threshold: float | None = None
    top: float | None = None
    seed: int = 0
    name: str = "agreement"

    def __post_init__(self) -> None:
        given = [value for value in (self.threshold, self.top) if value is not None]
        if len(given) != 1 or not 0 <= given[0] <= 1 or self.top == 0:
            raise ValueError(
                f"threshold is {self.threshold!r} and top {self.top!r}; give exactly one of them, to 1 and top above 0"
            )
        if self.train.task != "classification":
            raise ConfigError(f"filter {self.name!r} needs labels; task {self.train.task!r} has none")

    def judge(self, rows: Candidates) -> FilterVerdict:
        """``label less probable than P`` or ``not in the top P of its label``.

        Raises:
            TrainingError: the real rows are of one label only.
            ValueError: there are no vectors.
        """
        own = rows.vectors(self.name)
        real = rows.embed(self.train.texts)
        assert real is not None  # the rows were encoded above
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
        return FilterVerdict(reasons=reasons, note=self._trust(real))

    def _probabilities(self, real: Vectors, own: Vectors, corpus: Corpus) -> NDArray[np.float64]:
        """Of each row's own label, shape (n,); nan where the real rows lack it."""
        probe = fit_probe(real, self.train.targets)
        column = {label: i for i, label in enumerate(probe.labels)}
        codes = np.array([column.get(label, -1) for label in corpus.targets], dtype=np.int64)
        proba = probe.proba(own)
        return np.asarray(np.where(codes >= 0, proba[np.arange(len(codes)), codes], np.nan))

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
        known: dict[str, Reasons] = {}
        return cls(name, resolve_name(name, known, Kind(name="filter", takes=("corpus",))))

    def judge(self, rows: Candidates) -> FilterVerdict:
        """What the function says of the rows.

        Raises:
            ConfigError: it failed.
        """
        try:
            return FilterVerdict(reasons=tuple(self.reasons(rows.corpus)))
        except CuveeError:
            raise
        except Exception as exc:
            raise ConfigError(
                f"filter {self.name!r} failed with {type(exc).__name__}: {exc}; mend the function, or leave it out"
            ) from exc


def row_wise(filters: Sequence[Filter]) -> Sequence[Filter]:
    """The last filters of a sequence, as far as each judges a row by its vector, whatever the other rows are."""
    first = len(filters)
    while first and isinstance(each := filters[first - 1], Leak | Agreement) and getattr(each, "top", None) is None:
        first -= 1
    return filters[first:]


def _judge_needed(rows: Candidates, filters: Sequence[Filter], needed: Needed) -> list[FilterVerdict]:
    """What row-wise filters say one after the other, by the vectors of rows that are needed alone.

    Rows that are needed in place of removed ones come in further rounds. Before, leaks by words are found among all.
    """
    count, stays = len(rows.corpus), len(filters)
    by, judged = np.full(count, stays), np.zeros(count, dtype=bool)  # the filter that removed each row
    reasons: list[str | None] = [None] * count
    notes = [""] * stays
    for turn in itertools.count():
        places = np.flatnonzero(by == stays)
        if turn:
            places = places[needed(rows.corpus.take(places)) & ~judged[places]]
            judged[places] = True
            if not len(places):
                break
        part = rows.keep(np.isin(np.arange(count), places)) if turn else Candidates(rows.corpus.take(places), None)
        for number, each in enumerate(filters):
            if not len(places) or (turn == 0 and not isinstance(each, Leak)):
                continue
            # a few rows in place of removed ones are no set of their own
            said = (replace(each, whole=False) if turn > 1 and isinstance(each, Leak) else each).judge(part)
            _check_reasons(each.name, said.reasons, len(places))
            notes[number] = said.note if turn < 2 else notes[number]
            for place, reason in zip(places.tolist(), said.reasons, strict=True):
                if reason is not None:
                    reasons[place], by[place] = reason, number
            kept = by[places] == stays
            part, places = part.keep(kept), places[kept]
    told = f"compared by vectors: {judged.sum()} of {count} rows, which are all that blends can hold"
    return [
        FilterVerdict(
            reasons=tuple(reasons[row] if by[row] == number else None for row in np.flatnonzero(by >= number)),
            note=f"{notes[number]}; {told}" if notes[number] else told,
        )
        for number in range(stays)
    ]


def apply_filters(
    pool: Corpus, filters: Sequence[Filter], *, encode: Encode | None = None, needed: Needed | None = None
) -> Filtered:
    """Take from ``pool`` what each filter removes, one filter after the other.

    Vectors are made once, when a filter first wants them, of the rows left by then. From a ``Leak`` filter on,
    no row may be one of its held-out texts: that is checked after it and after each later step. With ``needed`` the
    last filters that judge row by row (see :func:`row_wise`) make vectors only of the rows that are needed of those
    left; rows that are not needed stay, though nobody compared their meaning.

    Args:
        pool: the rows, usually synthetic.
        filters: in order; cheap ones that remove much belong first.
        encode: texts to vectors, for filters that compare meanings: an Encoder's ``encode``.
        needed: which rows of those left anything takes; None: all. What is removed may only add to them.

    Raises:
        LeakError: a row is a held-out text after a ``Leak`` filter.
        ConfigError: a filter's answer does not fit the rows.
        ValueError: a filter that needs vectors has none.
    """
    rows = Candidates(pool, encode)
    places = np.arange(len(pool), dtype=np.int64)
    steps: list[FilterStep] = []
    removed: list[Removed] = []
    guards: list[defects.NoLeaks] = []
    ahead: list[FilterVerdict] = []
    last = () if needed is None else row_wise(filters)
    for number, each in enumerate(filters, start=len(last) - len(filters)):
        said = FilterVerdict(reasons=(), note="no rows left to judge")
        if before := len(rows.corpus):
            if number == 0 and needed is not None:
                ahead = _judge_needed(rows, last, needed)
            said = ahead[number] if ahead else each.judge(rows)
            _check_reasons(each.name, said.reasons, before)
        gone = [(row, reason) for row, reason in enumerate(said.reasons) if reason is not None]
        ids, texts = rows.corpus.ids, rows.corpus.texts
        removed += [Removed(id=ids[row], text=texts[row], filter=each.name, reason=reason) for row, reason in gone]
        if gone:
            stays = np.array([reason is None for reason in said.reasons], dtype=bool)
            rows, places = rows.keep(stays), places[stays]
        counts = sorted(Counter(reason for _, reason in gone).items(), key=lambda pair: (-pair[1], pair[0]))
        steps.append(
            FilterStep(
                name=each.name, rows_before=before, removed=len(gone), rows_after=len(rows.corpus),
                reasons=dict(counts), note=said.note,
            )
        )  # fmt: skip
        if isinstance(each, Leak):
            guards.append(defects.NoLeaks(each.held_out, each.sources, each.names))
        for guard in guards:
            guard.check(rows.corpus, when=f"after filter {each.name!r}")
    return Filtered(corpus=rows.corpus, rows=places, steps=tuple(steps), removed=tuple(removed))


def _check_reasons(name: str, reasons: Sequence[str | None], rows: int) -> None:
    if len(reasons) != rows:
        raise ConfigError(f"filter {name!r} gave {len(reasons)} reasons for {rows} rows")
    for reason in reasons:
        if reason is not None and not (isinstance(reason, str) and reason.strip()):
            raise ConfigError(f"filter {name!r} gave the reason {reason!r}; it must be some text, or None to keep")
