"""Labels as classes: those that may be one label written twice, and two sets of them that do not meet."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from cuvee.corpus.content import fold_text
from cuvee.errors import InputError, InputWarning

_SHOWN = 5


def warn_of_variants(labels: Iterable[str], where: str) -> None:
    """Warn of labels that differ by case, white space or unseen characters alone: each is a class of its own."""
    variants: dict[str, list[str]] = {}
    for label in labels:
        variants.setdefault("".join(fold_text(label).split()), []).append(label)
    same = [_listed(found) for found in variants.values() if len(found) > 1]
    if same:
        said = "; ".join(same[:_SHOWN])
        warnings.warn(
            f"{where}: labels that differ by case or blanks alone are classes of their own: {said}; write each in one "
            "way if they are one class",
            InputWarning,
            stacklevel=2,
        )


def compare_labels(
    known: Iterable[str], found: Iterable[str], *, known_name: str, found_name: str, needed: bool = True
) -> None:
    """Warn of labels of one set of rows, ``found``, that another one, ``known``, lacks. Rows without labels are none.

    Raises:
        InputError: both have labels, and no label in common, where they are ``needed`` for what is done.
    """
    ours, theirs = ({label for label in labels if label} for labels in (known, found))
    unknown = sorted(theirs - ours)
    if not ours or not unknown:
        return
    said = f"{found_name}: {{}} {_listed(unknown)}, and {known_name} has {_listed(sorted(ours))}"
    if needed and not ours & theirs:
        raise InputError(f"{said.format('has the labels')}: they have none in common; write labels in one way in both")
    warnings.warn(
        f"{said.format('some labels are unknown,')}; rename them if they are the same", InputWarning, stacklevel=2
    )


def _listed(labels: list[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(repr(label[:40]) for label in labels[:_SHOWN]) + more
