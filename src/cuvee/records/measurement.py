"""Measured numbers with their intervals and provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cuvee.characters import to_html, visible, visible_lines

Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Codes = Ints  # of labels and groups; places of rows


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
