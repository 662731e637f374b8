"""Which request goes next: neighbours one after the other through one lane."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from cuvee.generate.calls import Request


class Lanes:
    """Requests cut into one run for each lane; a lane that is done takes over the end of the longest run.

    An endpoint that keeps the prompts it has computed (llama.cpp, one a slot) frees the slot of a lane just
    when that lane sends its next request, which begins like the last one. So neighbours in a run find
    their common beginning computed, which from 16 slots on is most of the work. Where an endpoint has several replicas
    each begins with a zone of its own, of neighbouring runs, and takes from those of others when its own are done.

    Args:
        requests: in an order that has like ones stand together.
        lanes: how many runs to cut them into; :meth:`open` adds more.
        zones: how many replicas there are.
    """

    def __init__(self, requests: Sequence[Request], lanes: int, zones: int = 1) -> None:
        length = max(1, -(-len(requests) // lanes))
        self._runs = [deque(requests[start : start + length]) for start in range(0, len(requests), length)]
        self._zones = [lane * zones // len(self._runs) for lane in range(len(self._runs))]
        self._closed = list(range(len(self._runs)))[::-1]
        self.left = len(requests)

    @property
    def count(self) -> int:
        """How many lanes there are: no more than requests."""
        return len(self._runs)

    def open(self, zone: int = 0) -> int:
        """A lane that nobody uses: of the zone if there is one, else any, else one that splits the longest run."""
        if self._closed:
            own = (i for i in range(len(self._closed) - 1, -1, -1) if self._zones[self._closed[i]] == zone)
            return self._closed.pop(next(own, -1))
        longest = max(self._runs, key=len, default=deque[Request]())
        kept = len(longest) - len(longest) // 2
        run = deque([longest.pop() for _ in range(len(longest) - kept)][::-1])
        self._runs.append(run)
        self._zones.append(zone)
        return len(self._runs) - 1

    def close(self, lane: int) -> None:
        """Nobody uses the lane any more; what is left of its run waits for others."""
        self._closed.append(lane)

    def take(self, lane: int) -> Request | None:
        """The next request of a lane, or from the end of the longest run, of its zone first; None if all are taken."""
        if self.left == 0:
            return None
        self.left -= 1
        if self._runs[lane]:
            return self._runs[lane].popleft()
        zone = self._zones[lane]
        own = max((run for run, of in zip(self._runs, self._zones, strict=True) if of == zone), key=len)
        return (own or max(self._runs, key=len)).pop()
