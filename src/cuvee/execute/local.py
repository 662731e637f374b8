"""Work in this process, one item after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cuvee.execute.protocol import R, T


class LocalExecutor:
    """Runs items one after another here: linear algebra below already uses every core."""

    def run_all(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
        """Each item with its result, in order."""
        for item in items:
            yield item, work(item)
