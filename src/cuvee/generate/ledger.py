"""The journal of every LLM answer: asked once, replayed for ever."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import TracebackType

from cuvee.errors import RunFolderError
from cuvee.generate.calls import Answer
from cuvee.records import Usage

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, request_json TEXT NOT NULL, text TEXT NOT NULL, finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL
)
"""
_INSERT = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)"
_SELECT = "SELECT text, finish_reason, prompt_tokens, completion_tokens FROM answers WHERE key = ?"


class Ledger:
    """Answers by request key in a SQLite file (WAL, synchronous=FULL), or in memory.

    ``record`` holds an answer, ``flush`` commits all held ones in one transaction: only then do they count as
    answered. A process killed at any instant loses what was not flushed and nothing else.

    Args:
        path: the file; None keeps the ledger in memory.

    Raises:
        RunFolderError: the file cannot be opened, is no ledger, or the disk is full.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._where = ":memory:" if path is None else str(path)
        self._held: dict[str, tuple[str, Answer]] = {}
        self._sent = Usage()
        try:
            # the client may run its event loop in another thread (notebooks); never in two at once
            self._database = sqlite3.connect(self._where, timeout=30, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute(_TABLE)
            self._database.execute(_SELECT, ("",))
        except sqlite3.Error as exc:
            raise self._refusal(exc) from exc

    def lookup(self, key: str) -> Answer | None:
        """The committed answer to the request with this key; counted as replayed."""
        row = self._database.execute(_SELECT, (key,)).fetchone()
        if row is None:
            return None
        self._sent = self._sent.plus(Usage(replayed=1))
        text, finish_reason, prompt_tokens, completion_tokens = row
        return Answer(
            text=text,
            finish_reason=finish_reason,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            replayed=True,
        )

    def record(self, key: str, request_json: str, answer: Answer) -> int:
        """Hold an answer for the next flush; returns how many are held."""
        self._held[key] = (request_json, answer)
        return len(self._held)

    def flush(self) -> None:
        """Commit what is held.

        Raises:
            RunFolderError: the disk is full or failing; what was committed before stays.
        """
        if not self._held:
            return
        rows = [
            (key, text, a.text, a.finish_reason, a.prompt_tokens, a.completion_tokens)
            for key, (text, a) in self._held.items()
        ]
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(_INSERT, rows)
            self._database.execute("COMMIT")
        except sqlite3.Error as exc:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise self._refusal(exc) from exc
        for _, answer in self._held.values():
            spent = Usage(requests=1, prompt_tokens=answer.prompt_tokens, completion_tokens=answer.completion_tokens)
            self._sent = self._sent.plus(spent)
        self._held.clear()

    def counts(self) -> Usage:
        """Answers committed and replayed since this ledger was opened, and the tokens of the committed ones."""
        return self._sent

    def totals(self) -> Usage:
        """All answers the ledger holds, as requests, and their tokens."""
        query = "SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) FROM answers"
        requests, prompt_tokens, completion_tokens = self._database.execute(query).fetchone()
        return Usage(requests=requests, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)

    def close(self) -> None:
        """Flush and close the file."""
        try:
            self.flush()
        finally:
            self._database.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refusal(self, exc: sqlite3.Error) -> RunFolderError:
        reason = str(exc)
        if "full" in reason or "disk I/O" in reason:
            return RunFolderError(
                f"{self._where}: the disk is full or failing ({reason}); free some space and run the same command "
                "again, all answers so far are kept"
            )
        if "unable to open" in reason:
            return RunFolderError(f"{self._where}: cannot be opened; does its folder exist and may you write there?")
        if "locked" in reason or "readonly" in reason:
            return RunFolderError(f"{self._where}: {reason}; is another process writing, or is the file read-only?")
        return RunFolderError(f"{self._where}: is not a ledger ({reason}); move the file away")
