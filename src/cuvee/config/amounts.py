"""How much synthetic data: ``3x``, ``all`` or rows a label, and the shares that they come to."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

Amount = int | str
"""``3x`` (rows for each real one), ``all``, or a whole number of rows a label."""


def read_amount(amount: Amount, rows_per_label: int) -> float | None:
    """Synthetic rows for each real one; None is all rows of the pool.

    Args:
        amount: as it was given.
        rows_per_label: real rows of a label.
    """
    if amount == "all":
        return None
    return float(amount.removesuffix("x")) if isinstance(amount, str) else amount / rows_per_label


def write_amount(share: float) -> Amount:
    """A share as an amount, exact to the last digit."""
    return f"{amount_of(share)!r}x"


def amount_of(share: float) -> float:
    """Synthetic rows for each real one at a share below 1."""
    return share / (1.0 - share)


def share_of(amount: float) -> float:
    """The share of an amount, freed of what rounding adds on the way there and back."""
    return round(amount / (1.0 + amount), 12)


def check_amounts(value: object) -> tuple[Amount, ...]:
    """The amounts that were given, one or several.

    Raises:
        ValueError: one is no amount, or one is given twice.
    """
    given = value if isinstance(value, list | tuple) else [value]
    for each in given:
        is_count = isinstance(each, int) and not isinstance(each, bool) and each > 0
        is_ratio = isinstance(each, str) and re.fullmatch(r"\d+(\.\d+)?x", each) and float(each[:-1]) > 0
        if not (is_count or is_ratio or each == "all"):
            raise ValueError(f"amounts has {each!r}; give 3x (rows for each real one), rows a label as 50, or all")
    if not given or len(set(map(str, given))) < len(given):
        raise ValueError(f"give a list of different amounts such as [1x, 3x, 10x, all], not {value!r}")
    return tuple(given)


Amounts = Annotated[tuple[Amount, ...], BeforeValidator(check_amounts)]
DEFAULT_SHARES = (0.2, 0.5, 0.75)
FILE_AMOUNTS: tuple[Amount, ...] = ("0.3x", "1x", "3x", "10x", "30x", "100x", "300x", "1000x", "all")
