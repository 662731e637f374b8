"""Workers that one function is handed to, wherever they are: what measuring knows of processes and clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Crew(Protocol):
    """Applies one function to many items."""

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """``work(item)`` of each item, in the order of the items.

        Args:
            work: carried to each worker once; the same object again finds the workers ready.
            items: each carried to one worker.

        Raises:
            CuveeError: the work on an item was lost, or it raised one.
        """
