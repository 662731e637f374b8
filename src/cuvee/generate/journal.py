"""Committing answers to the ledger while the client goes on asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from cuvee.generate.calls import Answer
from cuvee.generate.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer as the ledger takes it, and who waits for its commit."""

    key: str
    request_json: str
    answer: Answer
    committed: asyncio.Future[None]


class Journal:
    """Groups answers into commits; a context manager that on leaving commits whatever is left.

    A commit lasts as long as the disk needs to make it durable, some milliseconds. Meanwhile the loop goes on, and the
    answers that come are the next commit: one thread, one commit at a time. Only that thread uses the ledger
    until the block is left.

    Args:
        ledger: where answers go.
        gather_s: how long to wait for more answers before a commit, in seconds; asked before each. A commit costs as
            much CPU as sending a request, so some patience pays where answers are slow anyway.
        of: the endpoint and model that answer.
    """

    def __init__(self, ledger: Ledger, gather_s: Callable[[], float], of: tuple[str, str]) -> None:
        self._ledger = ledger
        self._of = of
        self._gather_s = gather_s
        self._held: list[Entry] = []
        self._writer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._failed = False

    async def __aenter__(self) -> Journal:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.cancel()
        self._thread.shutdown()  # waits for a commit under way
        entries, self._held = self._held, []
        if not self._failed:
            self._commit(entries)

    async def keep(self, key: str, request_json: str, answer: Answer) -> None:
        """Return when the answer is committed.

        Raises:
            RunFolderError: the ledger cannot be written.
        """
        committed = asyncio.get_running_loop().create_future()
        self._held.append(Entry(key, request_json, answer, committed))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await committed

    async def _write(self) -> None:
        while self._held and not self._failed:
            await asyncio.sleep(self._gather_s())  # whoever has an answer in hand by then joins
            entries, self._held = self._held, []
            commit = asyncio.wrap_future(self._thread.submit(self._commit, entries))
            await asyncio.wait([commit])  # which, unlike await, leaves the commit alone if this task is cancelled
            error = commit.exception()
            self._failed = error is not None
            for entry in entries:
                if entry.committed.done():
                    continue
                if error is None:
                    entry.committed.set_result(None)
                else:
                    entry.committed.set_exception(error)

    def _commit(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._ledger.record(entry.key, entry.request_json, entry.answer, self._of)
        self._ledger.flush()
