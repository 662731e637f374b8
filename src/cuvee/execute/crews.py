"""A crew of an executor's workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, cast

from cuvee.errors import ConfigError
from cuvee.execute.protocol import Executor, Lost

T = TypeVar("T")
R = TypeVar("R")


class _Numbered(Generic[T, R]):
    """The work on an item that carries its number, so that results can be put in order."""

    def __init__(self, work: Callable[[T], R]) -> None:
        self.work = work

    def __call__(self, item: tuple[int, T]) -> R:
        return self.work(item[1])


class ExecutorCrew:
    """Hands work to an executor, and gives results in the order of the items.

    Args:
        executor: open; it stays so.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._known: object = None

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """``work(item)`` of each item, in the order of the items; what comes early waits for its turn.

        Raises:
            ConfigError: a worker was ended on an item, too often or by its limits.
        """
        if not isinstance(self._known, _Numbered) or self._known.work is not work:
            self._known = _Numbered(work)
        numbered = cast("_Numbered[T, R]", self._known)
        early: dict[int, R] = {}
        turn = 0
        for (number, _), result in self._executor.run_all(numbered, enumerate(items)):
            if isinstance(result, Lost):
                raise ConfigError(f"a worker was lost: {result.reason}")
            early[number] = result
            while turn in early:
                yield early.pop(turn)
                turn += 1
