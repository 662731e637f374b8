"""Which request goes next: neighbours one after the other through one lane."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from cuvee.generate.calls import Request


class Lanes:
    """Requests cut into one run for each lane; a lane that is done takes over the end of the longest run.

    An endpoint that keeps the prompts it has computed (llama.cpp, one a slot) frees the slot of a lane just
    when that lane sends its next request, which begins like the last one. So neighbours in a run find
    their common beginning computed, which from 16 slots on is most of the work.

    Args:
        requests: in an order that has like ones stand together.
        lanes: how many runs to cut them into; :meth:`open` adds more.
    """

    def __init__(self, requests: Sequence[Request], lanes: int) -> None:
        length = max(1, -(-len(requests) // lanes))
        self._runs = [deque(requests[start : start + length]) for start in range(0, len(requests), length)]
        self._closed = list(range(len(self._runs)))[::-1]
        self.left = len(requests)

    @property
    def count(self) -> int:
        """How many lanes there are: no more than requests."""
        return len(self._runs)

    def open(self) -> int:
        """A lane that nobody uses: one with its run left if there is one, else one that splits the longest run."""
        if self._closed:
            return self._closed.pop()
        longest = max(self._runs, key=len, default=deque[Request]())
        kept = len(longest) - len(longest) // 2
        run = deque([longest.pop() for _ in range(len(longest) - kept)][::-1])
        self._runs.append(run)
        return len(self._runs) - 1

    def close(self, lane: int) -> None:
        """Nobody uses the lane any more; what is left of its run waits for others."""
        self._closed.append(lane)

    def take(self, lane: int) -> Request | None:
        """The next request of a lane; None when all are taken."""
        if self.left == 0:
            return None
        self.left -= 1
        if self._runs[lane]:
            return self._runs[lane].popleft()
        return max(self._runs, key=len).pop()
