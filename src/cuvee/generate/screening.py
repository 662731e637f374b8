"""What keeps a usable text from becoming a row: texts that are there already, and what callers say. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from cuvee.corpus import normalise_text
from cuvee.generate.near_copies import NearCopies, count_shingles, shingles_of
from cuvee.generate.parsing import COPY_OF_TRAINING, DUPLICATE, NEAR_COPY, NEAR_DUPLICATE, WRONG_LABEL

Refuse = Callable[[Sequence[str]], Sequence[str | None]]
"""``refuse(texts)``: for each text why it may not become a row, or None."""
Agrees = Callable[[Sequence[str], Sequence[str]], Sequence[bool]]
"""``agrees(texts, labels)``: for each text whether it has its label."""


class Screen:
    """What callers say of texts, asked once for each.

    Args:
        refuse: None refuses nothing.
        agrees: None checks nothing.
    """

    def __init__(self, refuse: Refuse | None, agrees: Agrees | None) -> None:
        self._refuse = refuse
        self._agrees = agrees
        self._refused: dict[str, str | None] = {}
        self._right: dict[tuple[str, str], bool] = {}

    def look(self, usable: Iterable[tuple[str, str]]) -> None:
        """Ask for all new ones of these texts with their labels, in one call each."""
        pairs = list(dict.fromkeys(usable))
        texts = [text for text in dict.fromkeys(text for text, _ in pairs) if text not in self._refused]
        if self._refuse is not None and texts:
            self._refused.update(zip(texts, self._refuse(texts), strict=True))
        fresh = [pair for pair in pairs if pair not in self._right]
        if self._agrees is not None and fresh:
            said = self._agrees([text for text, _ in fresh], [label for _, label in fresh])
            self._right.update(zip(fresh, map(bool, said), strict=True))

    def objection(self, text: str, label: str) -> str | None:
        """Why the text may not become a row of this label."""
        if (refused := self._refused.get(text)) is not None:
            return refused
        return None if self._right.get((text, label), True) else WRONG_LABEL


class Known:
    """Texts that are there already: those of the training rows, and of the rows taken so far.

    Args:
        training: texts of the training rows.
        near_duplicate: Jaccard similarity from which texts count as nearly the same; None skips that test.

    Raises:
        ValueError: ``near_duplicate`` out of range.
    """

    def __init__(self, training: Sequence[str], near_duplicate: float | None) -> None:
        self._training = {normalise_text(text) for text in training}
        self._taken: set[str] = set()
        self._threshold = near_duplicate
        self._shingles: dict[str, frozenset[str]] = {}
        if near_duplicate is not None:
            real = [shingles_of(text) for text in sorted(self._training)]
            self._near_training = NearCopies(near_duplicate, count_shingles(real))
            for shingles in real:
                self._near_training.add(shingles)
            self._near_taken = NearCopies(near_duplicate, {})
            self._counted = 0

    def begin(self, texts: Iterable[str]) -> None:
        """Forget the rows taken; ``texts`` are those that may be asked about."""
        self._taken = set()
        if self._threshold is not None:
            for text in texts:
                if text not in self._shingles:
                    self._shingles[text] = shingles_of(text)
            self._near_taken.clear()
            if len(self._shingles) > 2 * self._counted:  # what is common shows again only in many more texts
                self._near_taken = NearCopies(self._threshold, count_shingles(self._shingles.values()))
                self._counted = len(self._shingles)

    def is_training(self, text: str) -> bool:
        """Whether a training row has this text."""
        return normalise_text(text) in self._training

    def add(self, text: str) -> None:
        """Take a row."""
        self._taken.add(normalise_text(text))
        if self._threshold is not None:
            self._near_taken.add(self._shingles[text])

    def objection(self, text: str) -> str | None:
        """What it repeats, if anything."""
        normal = normalise_text(text)
        if normal in self._training:
            return COPY_OF_TRAINING
        if normal in self._taken:
            return DUPLICATE
        if self._threshold is not None:
            if self._near_training.holds(self._shingles[text]):
                return NEAR_COPY
            if self._near_taken.holds(self._shingles[text]):
                return NEAR_DUPLICATE
        return None
