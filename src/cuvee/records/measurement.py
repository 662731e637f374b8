"""Measured numbers with their intervals and provenance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cuvee.characters import to_html, visible, visible_lines

Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Codes = Ints  # of labels and groups; places of rows
Family = Literal["semantic", "lexical", "shift", "quality"]  # of metrics
Progress = Callable[[int, int], None]  # called with (units done, all units)


class Shown:
    """A value that Python and a notebook show as ``print`` does, with control characters as escapes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return visible_lines(str(self))

    def _repr_html_(self) -> str:
        return f"<pre>{to_html(str(self))}</pre>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95% interval and what it was computed with.

    ``low`` and ``high`` are None where no valid interval is known; ``interval`` names the method.
    ``p_value`` is set for tests. ``settings`` holds tau, q, kernel and the like.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int
    interval: str = ""
    p_value: float | None = None
    settings: Mapping[str, str | int | float] = field(default_factory=dict)

    def write_interval(self, form: str = ".4g", between: str = ", ") -> str:
        """``LOW, HIGH``; empty where no interval is known."""
        return "" if self.low is None or self.high is None else f"{self.low:{form}}{between}{self.high:{form}}"

    def write_cells(self, *, tested: bool) -> list[str]:
        """The cells of a row: value and interval, and the p-value where a table has ``tested`` numbers."""
        p_value = "" if self.p_value is None else f"{self.p_value:.3g}"
        return [f"{self.value:.4g}", self.write_interval(between=" to "), *([p_value] if tested else [])]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Finding(Shown):
    """One plain sentence about data or a result.

    Attributes:
        id: of the rule; stays the same across releases.
        sentence: what was found, with its number and its yardstick.
        remedy: what to do; empty where nothing is to be done.
        value: the number; None where the sentence has none.
        yardstick: what the number is held against: of the real rows, or of another pool; None without any.
        source: where the threshold comes from.
        severity: what findings are ordered by, from 0; the worst comes first. Good news has 0.
    """

    id: str
    sentence: str
    remedy: str = ""
    value: float | None = None
    yardstick: float | None = None
    source: str = ""
    severity: float = 0.0

    def __str__(self) -> str:
        return f"{self.sentence} {self.remedy}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Measurement(Shown):
    """All numbers of one corpus, under their names in the METRICS table, with their provenance.

    ``normalisation`` is what was done to vectors before anything else; numbers with another do not compare.
    ``findings`` say what they mean, worst first; there are none where nothing was looked for.
    """

    name: str
    fingerprint: str
    against: str | None
    n: int
    encoder: str
    encoder_hash: str
    seed: int
    values: Mapping[str, Estimate]
    normalisation: str = "rows of length 1"
    findings: tuple[Finding, ...] = ()

    def __str__(self) -> str:
        head = f"{self.name}  n={self.n}  encoder={self.encoder}"
        return "\n".join([*(f"- {found}" for found in self.findings), head, *value_lines(self.values)])

    def _repr_html_(self) -> str:
        table = value_table(f"{self.name} (n={self.n}, encoder {self.encoder})", self.values)
        return html_list(self.findings) + table


def value_lines(values: Mapping[str, Estimate]) -> list[str]:
    """One aligned line a number."""
    width = max((len(k) for k in values), default=0)
    return [f"  {k:<{width}}  {v.value:>10.4g}  {_interval(v)}".rstrip() for k, v in values.items()]


def value_table(caption: str, values: Mapping[str, Estimate]) -> str:
    """An HTML table of numbers."""
    rows = [[name, f"{e.value:.4g}", _interval(e)] for name, e in values.items()]
    return html_table(caption, ["metric", "value", "95%"], rows)


# The numbers that tell most, and what they are called where corpora stand side by side.
MAIN = {
    "vendi_q1": "Vendi q=1", "dcscore_tau0.1": "DCScore tau=0.1", "distinct_2": "distinct 2-grams",
    "near_duplicate_rate": "near copies", "mean_words": "words", "mmd": "shift MMD", "label_agreement": "label agrees",
    "leakage": "leaks",
}  # fmt: skip


def write_seconds(value: float) -> str:
    """``8.2 s``, ``3 min 20 s``, or ``2.5 hours``."""
    if value < 60:
        return f"{value:.1f} s"
    if value >= 7200:
        return f"{value / 3600:.1f} hours"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds:02d} s"


def html_list(items: Iterable[object]) -> str:
    """An HTML list of what is printed; empty without items."""
    lines = "".join(f"<li>{to_html(str(item))}</li>" for item in items)
    return f"<ul>{lines}</ul>" if lines else ""


def text_table(rows: Sequence[Sequence[str]], *, widest: int = 1_000) -> list[str]:
    """Aligned lines, one a row; longer cells are cut."""
    told = [[visible(cell) for cell in row] for row in rows]
    shown = [[cell if len(cell) <= widest else f"{cell[: widest - 3]}..." for cell in row] for row in told]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in shown]


def html_table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table of plain text."""
    lines = ["".join(f"<th>{to_html(cell)}</th>" for cell in heads)]
    lines += ["".join(f"<td>{to_html(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><caption>{to_html(caption)}</caption>{body}</table>"


def _interval(estimate: Estimate) -> str:
    if found := estimate.write_interval():
        return f"[{found}]"
    return "" if estimate.p_value is None else f"p = {estimate.p_value:.3g}"


# --- examples one by one, comparisons, and the page of a measurement ---
@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleScores:
    """How much each of n examples is like the others, in the order of the corpus.

    Attributes:
        ids: of the examples.
        uniqueness: shape (n,), ``1 / sum_j k(i, j)`` with k = exp((cos - 1) / tau): the example's own term of
            DCScore, which is their sum. 1: nothing is like it; 1/n: all rows are the same.
        nearest: shape (n,), row of the most similar other example, one of equals; -1 where there is only one row.
        nearest_cosine: shape (n,), its cosine; nan where there is only one row.
        cluster: shape (n,), the first row of the cluster that the example is in, where a cosine of at least 0.95
            links two rows; its own row where nothing is so near.
        tau: of the kernel.
    """

    ids: tuple[str, ...]
    uniqueness: Floats
    nearest: NDArray[np.int64]
    nearest_cosine: Floats
    cluster: NDArray[np.int64]
    tau: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Diversity over a range of one parameter: tau (DCScore) or q (order), with intervals."""

    name: str
    parameter: str
    points: tuple[tuple[float, Estimate], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetMap:
    """Points of a map of examples; ``origin`` is ``real`` or ``synthetic``, ``group`` a level or label.

    Attributes:
        x, y: shape (points,).
        explained: fraction of the vectors' variance that both axes hold; None where that means nothing.
        rows: examples that the points were drawn from; None where not known.
        seed: of the draw.
        grouping: what ``group`` is: ``label``, ``level``.
    """

    x: Floats
    y: Floats
    origin: tuple[str, ...]
    group: tuple[str, ...]
    text: tuple[str, ...]
    explained: float | None = None
    rows: int | None = None
    seed: int | None = None
    grouping: str = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """One example shown to a reader, with its scores and its nearest other example."""

    id: str
    text: str
    target: str
    uniqueness: float
    nearest_text: str
    nearest_cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRank:
    """Where a pool stands among others before anything is trained: its score, and the numbers that it is made of."""

    name: str
    score: float
    numbers: Mapping[str, float]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Pools by what they should gain, the best first.

    Attributes:
        advised: the two or three to train with.
        rows: of each pool that the numbers are of.
        lacking: real rows that are much more like another real row than like any row of any pool, the worst first.
        lacking_share: of all real rows that lack in this way.
    """

    pools: tuple[PoolRank, ...]
    advised: tuple[str, ...]
    rows: int
    lacking: tuple[str, ...]
    lacking_share: float

    @property
    def finding(self) -> Finding:
        """What to train with."""
        best, last = self.pools[0], self.pools[-1]
        rest = f"; {last.name} ranks last ({last.reason})" if last.name not in self.advised else ""
        return Finding(
            id="ranking", sentence=f"{best.name} ranks first of {len(self.pools)} pools ({best.reason}){rest}.",
            remedy=f"Train with {' and '.join(self.advised)} first.", value=best.score, yardstick=last.score,
            source="scores of real pools with known gains", severity=1.0,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Comparison(Shown):
    """Corpora measured so that their numbers compare: equal rows, matched lengths, one encoder.

    Attributes:
        names: of the corpora, in the order given.
        rows: rows of each in the comparison.
        draws: rarefaction draws that numbers are the mean of; 1 where all rows were compared.
        words: lexical numbers are of the first ``words`` words of each text; None where nothing was cut.
        values: metric -> one estimate a corpus; None where it is not defined for that corpus.
        differences: metric -> one estimate a corpus, that corpus less the first one; None for the first itself.
        length_difference: largest standardised difference of mean word counts between two corpora, as compared;
            None where lengths are not known.
        notes: what could not be matched, and what was forced.
        encoder, encoder_hash: of the vectors.
        fingerprints: of the corpora that rows were drawn from.
        against: fingerprint of the real rows that shift is measured to.
        seed: of the draws; None where the numbers were measured before.
        findings: of all corpora, worst first; the ranking before them.
        ranking: of the corpora as pools for the real rows; None without real rows, or with fewer than two pools.
    """

    names: tuple[str, ...]
    rows: int
    draws: int
    words: int | None
    values: Mapping[str, tuple[Estimate | None, ...]]
    differences: Mapping[str, tuple[Estimate | None, ...]]
    length_difference: float | None
    notes: tuple[str, ...] = ()
    encoder: str = ""
    encoder_hash: str = ""
    fingerprints: tuple[str, ...] = ()
    against: str | None = None
    seed: int | None = None
    findings: tuple[Finding, ...] = ()
    ranking: Ranking | None = None

    def __str__(self) -> str:
        found = [f"- {finding}" for finding in self.findings]
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([*found, self.caption, *text_table(self.table), *notes])

    def _repr_html_(self) -> str:
        heads, *rows = self.table
        return html_list(self.findings) + html_table(self.caption, heads, rows) + html_list(self.notes)

    @property
    def caption(self) -> str:
        """Which corpora, and how they were compared."""
        parts = [f"n={self.rows} each", f"encoder={self.encoder}"]
        if self.draws > 1:
            parts.append(f"mean of {self.draws} draws")
        if self.words is not None:
            parts.append(f"lexical diversity of the first {self.words} words")
        return f"{', '.join(self.names)}  {'  '.join(parts)}"

    @property
    def table(self) -> list[list[str]]:
        """Heads, then a row a metric: each corpus, and each less the first one."""
        rows = [["metric", *self.names, *(f"{name} - {self.names[0]}" for name in self.names[1:])]]
        for metric, estimates in self.values.items():
            differences = (_show(e, sign="+") for e in self.differences[metric][1:])
            rows.append([metric, *map(_show, estimates), *differences])
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricNote:
    """What a reader must know of a metric: its family, what it is, and how to read it."""

    family: Family
    description: str
    better: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementPage:
    """Everything that the page of one measured corpus shows; only ``measurement`` is needed.

    Attributes:
        taus: DCScore over tau.
        orders: diversity over the order q: Vendi.
        by_label: label, or another part that ``by`` names (such as a level) -> its numbers.
        by: what the keys of ``by_label`` are.
        notes: metric -> how to read it.
        against_name, against_rows: of the real corpus that shift is measured to.
        settings: what was chosen, in words: file, columns, device.
        reproduce: commands or code that give these numbers again.
        version: of the package that measured.
    """

    measurement: Measurement
    taus: Profile | None = None
    orders: tuple[Profile, ...] = ()
    by_label: Mapping[str, Measurement] = field(default_factory=dict)
    map: DatasetMap | None = None
    redundant: tuple[SampleRow, ...] = ()
    novel: tuple[SampleRow, ...] = ()
    by: str = "label"
    notes: Mapping[str, MetricNote] = field(default_factory=dict)
    against_name: str = ""
    against_rows: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    reproduce: str = ""
    version: str = ""


def _show(estimate: Estimate | None, sign: str = "") -> str:
    """``value [low, high]``, or the p-value of a test; empty where there is no number."""
    if estimate is None:
        return ""
    value = f"{estimate.value:{sign}.4g}"
    if found := estimate.write_interval(f"{sign}.4g"):
        return f"{value} [{found}]"
    return value if estimate.p_value is None else f"{value} (p = {estimate.p_value:.3g})"
