"""The journal of every LLM answer: asked once, replayed for ever. Failures are kept until they are forgotten."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from cuvee.databases import ANSWERS_LOST, Row, check_database, make_database, open_reading, repair_database, tell_damage
from cuvee.errors import RunFolderError
from cuvee.fingerprint import hash_value
from cuvee.generate.calls import Answer, Endpoint, Failure
from cuvee.generate.masking import spell_host
from cuvee.records import Usage

# --- what a ledger holds besides answers and failures ---
KnownAs = tuple[str, str]
"""Identity of an endpoint and its model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a client met from its first request to its end, beside answers and failures.

    ``replayed`` answers were taken from the ledger, ``retries`` sent again after trouble that passed; ``unanswered``
    requests were sent and cut off. ``notes`` were found out about the endpoint, ``unverified`` parameters it may have
    ignored.
    """

    endpoint: str
    model: str
    replayed: int = 0
    retries: int = 0
    unanswered: int = 0
    notes: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally(Usage):
    """Answers of one model at one endpoint that ended for one reason, and their tokens."""

    endpoint: str
    model: str
    finish_reason: str


# --- the tables of a ledger, in SQL ---
ANSWERS = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, request_json TEXT NOT NULL, text TEXT NOT NULL, finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, checksum TEXT
)
"""
FAILURES = """
CREATE TABLE IF NOT EXISTS failures (
    key TEXT PRIMARY KEY, request_json TEXT NOT NULL, reason TEXT NOT NULL, tries INTEGER NOT NULL,
    message TEXT NOT NULL
)
"""
SESSIONS = """
CREATE TABLE IF NOT EXISTS sessions (
    number INTEGER PRIMARY KEY, endpoint TEXT NOT NULL, model TEXT NOT NULL, replayed INTEGER NOT NULL,
    retries INTEGER NOT NULL, unanswered INTEGER NOT NULL, notes TEXT NOT NULL, unverified TEXT NOT NULL
)
"""
REPLICAS = """
CREATE TABLE IF NOT EXISTS replicas (
    address TEXT NOT NULL, model TEXT NOT NULL, identity TEXT NOT NULL, PRIMARY KEY (address, model)
)
"""
MET = """
SELECT endpoint, model, replayed, retries, unanswered, notes, unverified FROM sessions ORDER BY number
"""
SCHEMA = (ANSWERS, FAILURES, SESSIONS, REPLICAS)
NOTE = "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
INSERT = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)"
SELECT = "SELECT * FROM answers WHERE key = ?"  # of an earlier version, and only looked at: without checksums
# what failed and was then answered (asked for again by another process, say) did not fail
FAILED = "SELECT key, reason, message, tries FROM failures WHERE key NOT IN (SELECT key FROM answers) ORDER BY key"
TALLIES = """
SELECT coalesce(json_extract(request_json, '$.endpoint'), ''), coalesce(json_extract(request_json, '$.body.model'), ''),
       finish_reason, count(*), sum(prompt_tokens), sum(completion_tokens)
FROM answers GROUP BY 1, 2, 3 ORDER BY 2, 3, 1
"""
ENDPOINTS = """
SELECT DISTINCT json_extract(request_json, '$.endpoint') FROM answers WHERE json_valid(request_json)
AND json_extract(request_json, '$.body.model') = ? AND json_extract(request_json, '$.endpoint') IS NOT NULL
"""
ANY = """
SELECT 1 FROM answers WHERE json_valid(request_json) AND json_extract(request_json, '$.endpoint') = ?
AND json_extract(request_json, '$.body.model') = ? LIMIT 1
"""


# --- the journal of every LLM answer: asked once, replayed for ever. Failures are kept until they a ---
PAGES_A_CHECKPOINT = 8000
"""Of 4 kB in the write-ahead log before it goes into the file, for which all commits wait."""
_UNKNOWN = ("", "")
_UNCHECKED = 6
"""Columns of ``answers`` as earlier versions made it, without a checksum."""


def check_ledger(path: Path) -> None:
    """See that a ledger, where there is one, is whole.

    Raises:
        RunFolderError: it is damaged.
    """
    check_database(path, ANSWERS_LOST)


def repair_ledger(path: Path) -> str | None:
    """Keep every answer of a damaged ledger that can still be read; see :func:`~cuvee.databases.repair_database`."""

    def fix(table: str, row: Row) -> Row | None:
        if table != "answers":
            return None if any(isinstance(value, str) and "\ufffd" in value for value in row) else row
        *answer, checksum = row
        return row if checksum in (None, _checksum(answer)) else None

    return repair_database(path, SCHEMA, fix)


def _checksum(answer: Sequence[object]) -> str:
    """Of a row of ``answers``: all that anything is made of."""
    return hash_value(answer)[:16]


class Ledger:
    """Answers by request key in a SQLite file (WAL, synchronous=FULL), or in memory.

    ``record`` holds an answer, ``flush`` commits all held ones in one transaction: only then do they count as
    answered. A process killed at any instant loses what was not flushed and nothing else.

    Args:
        path: the file; None keeps the ledger in memory.
        readonly: to look at a ledger, which another process may be writing; nothing is made or changed.

    Raises:
        RunFolderError: the file cannot be opened, is no ledger, or the disk is full.
    """

    def __init__(self, path: Path | None = None, *, readonly: bool = False) -> None:
        self._where = ":memory:" if path is None else str(path)
        self._held: dict[str, tuple[str, Answer, KnownAs]] = {}
        self._sent: dict[KnownAs, Usage] = {}
        self._met: dict[Callable[[], Session], int | None] = {}
        try:
            # the client may run its event loop in another thread (notebooks); never in two at once
            if readonly and path is not None:
                self._database = open_reading(path, timeout=30)
            else:
                if path is not None:
                    make_database(path, SCHEMA)
                self._database = sqlite3.connect(self._where, timeout=30, isolation_level=None, check_same_thread=False)
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=FULL")
                self._database.execute(f"PRAGMA wal_autocheckpoint={PAGES_A_CHECKPOINT}")
                self._make_tables()
            self._database.execute(SELECT, ("",))
        except sqlite3.Error as exc:
            raise self._refusal(exc) from exc

    def _make_tables(self) -> None:
        """Make what a ledger of an earlier version lacks."""
        for table in SCHEMA:
            self._database.execute(table)
        if len(self._database.execute("PRAGMA table_info(answers)").fetchall()) == _UNCHECKED:
            self._database.execute("ALTER TABLE answers ADD COLUMN checksum TEXT")

    def lookup(self, key: str, of: KnownAs = _UNKNOWN) -> Answer | None:
        """The committed answer to the request with this key; counted as replayed, ``of`` that endpoint and model."""
        with self._telling():
            row = self._database.execute(SELECT, (key,)).fetchone()
        if row is None:
            return None
        if row[_UNCHECKED:] not in ((), (None,), (_checksum(row[:_UNCHECKED]),)):
            raise tell_damage(self._where, f"the checksum of answer {key[:12]} is wrong", ANSWERS_LOST)
        self._count(of, Usage(replayed=1))
        text, finish_reason, prompt_tokens, completion_tokens = row[2:_UNCHECKED]
        return Answer(
            text=text,
            finish_reason=finish_reason,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            replayed=True,
        )

    def record(self, key: str, request_json: str, answer: Answer, of: KnownAs = _UNKNOWN) -> int:
        """Hold an answer ``of`` that endpoint and model for the next flush; returns how many are held."""
        self._held[key] = (request_json, answer, of)
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
            for key, (text, a, _) in self._held.items()
        ]
        with self._transaction():
            self._database.executemany(INSERT, [(*row, _checksum(row)) for row in rows])
            for tell in self._met:
                self._write_session(tell)
        for _, answer, of in self._held.values():
            tokens = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens}
            self._count(of, Usage(requests=1, **tokens))
        self._held.clear()

    def _count(self, of: KnownAs, usage: Usage) -> None:
        self._sent[of] = self._sent.get(of, Usage()).plus(usage)

    def counts(self, of: KnownAs | None = None) -> Usage:
        """Answers committed and replayed since this ledger was opened, and the tokens of the committed ones.

        Args:
            of: only of that endpoint and model; None is of all.
        """
        if of is not None:
            return self._sent.get(of, Usage())
        total = Usage()
        for usage in self.counts_by().values():
            total = total.plus(usage)
        return total

    def counts_by(self) -> dict[KnownAs, Usage]:
        """:meth:`counts` of each endpoint and model; may be called from any thread."""
        return dict(self._sent)

    def totals(self) -> Usage:
        """All answers the ledger holds, as requests, and their tokens."""
        query = "SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) FROM answers"
        with self._telling():
            requests, prompt_tokens, completion_tokens = self._database.execute(query).fetchone()
        return Usage(requests=requests, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)

    def tallies(self) -> tuple[Tally, ...]:
        """All answers the ledger holds, counted by model and by how they ended.

        Raises:
            RunFolderError: a request in it is no JSON.
        """
        with self._telling():
            rows = self._database.execute(TALLIES).fetchall()
        return tuple(
            Tally(
                endpoint=endpoint,
                model=model,
                finish_reason=reason,
                requests=n,
                prompt_tokens=prompt,
                completion_tokens=completion,
            )
            for endpoint, model, reason, n, prompt, completion in rows
        )

    def holds(self, key: str) -> bool:
        """Whether there is a committed answer to the request with this key; not counted as replayed."""
        with self._telling():
            return self._database.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone() is not None

    def has_answers(self, endpoint: Endpoint) -> bool:
        """Whether this endpoint has ever answered a request to this model."""
        with self._telling():
            return self._database.execute(ANY, (endpoint.identity, endpoint.model)).fetchone() is not None

    def answered(self, model: str) -> tuple[str, ...]:
        """Identities of the endpoints that have ever answered a request to this model."""
        with self._telling():
            return tuple(identity for (identity,) in self._database.execute(ENDPOINTS, (model,)))

    # --- replicas ---
    def identities(self, addresses: Sequence[str], model: str) -> dict[str, str]:
        """Address -> the identity that answers of this model there go by; the oldest first, unknown ones left out.

        An address that is known only in another spelling of its host comes after those known as they are.
        """
        query = "SELECT address, identity FROM replicas WHERE model = ? ORDER BY rowid"
        with self._telling():
            rows = self._database.execute(query, (model,)).fetchall()
        found = {address: identity for address, identity in rows if address in addresses}
        for known, identity in rows:
            for address in addresses:
                if spell_host(known) == spell_host(address):
                    found.setdefault(address, identity)
        return found

    def record_identity(self, addresses: Sequence[str], model: str, identity: str) -> None:
        """Commit that answers of this model at these addresses go by one identity.

        Raises:
            RunFolderError: the ledger cannot be written.
        """
        with self._transaction():
            rows = [(address, model, identity) for address in addresses]
            self._database.executemany("INSERT OR IGNORE INTO replicas VALUES (?, ?, ?)", rows)

    # --- sessions ---
    def begin_session(self, tell: Callable[[], Session]) -> None:
        """Commit with the answers what their client met so far, so that it is known if the process is killed."""
        self._met[tell] = None

    def record_session(self, tell: Callable[[], Session]) -> None:
        """Commit what a client met until its end.

        Raises:
            RunFolderError: the disk is full or failing; what was committed before stays.
        """
        with self._transaction():
            self._write_session(tell)
        self._met.pop(tell)

    def _write_session(self, tell: Callable[[], Session]) -> None:
        session = tell()
        row = (
            *(self._met.get(tell), session.endpoint, session.model, session.replayed, session.retries),
            *(session.unanswered, *(json.dumps(list(texts)) for texts in (session.notes, session.unverified))),
        )
        self._met[tell] = self._database.execute(NOTE, row).lastrowid

    def sessions(self) -> tuple[Session, ...]:
        """What each client met, in order; of a process that was killed, until its last commit."""
        with self._telling():
            rows = self._database.execute(MET).fetchall() if self._has_table("sessions") else []
            return tuple(
                Session(
                    endpoint=endpoint,
                    model=model,
                    replayed=replayed,
                    retries=retries,
                    unanswered=unanswered,
                    notes=tuple(json.loads(notes)),
                    unverified=tuple(json.loads(unverified)),
                )
                for endpoint, model, replayed, retries, unanswered, notes, unverified in rows
            )

    # --- failures ---
    def record_failure(self, key: str, request_json: str, failure: Failure) -> None:
        """Commit that a request failed for good; a later failure of the same request takes its place.

        Raises:
            RunFolderError: the disk is full or failing; what was committed before stays.
        """
        row = (key, request_json, failure.reason, failure.tries, failure.message)
        with self._transaction():
            self._database.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)", row)

    def failures(self) -> dict[str, Failure]:
        """Request key -> failure, of all requests that failed for good and have no answer."""
        with self._telling():
            rows = self._database.execute(FAILED).fetchall() if self._has_table("failures") else []
        return {
            key: Failure(reason=reason, message=message, tries=tries, replayed=True)
            for key, reason, message, tries in rows
        }

    def forget_failures(self, keys: Collection[str] | None = None) -> int:
        """Forget failures, so that the next run asks again; all, or those of these requests.

        Returns:
            How many were forgotten.

        Raises:
            RunFolderError: the ledger cannot be written.
        """
        known = self.failures()
        chosen = [key for key in known if keys is None or key in keys]
        if not chosen:
            return 0
        with self._transaction():
            self._database.executemany("DELETE FROM failures WHERE key = ?", [(key,) for key in chosen])
        return len(chosen)

    def _has_table(self, name: str) -> bool:
        """A ledger made by an earlier version, opened to be looked at, may lack one."""
        return self._database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is not None

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise self._refusal(exc) from exc
        except ValueError as exc:  # JSON that is none
            raise tell_damage(self._where, exc, ANSWERS_LOST) from exc

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except sqlite3.Error as exc:
            raise self._refusal(exc) from exc
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

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
        if "no such table" in reason or "not a database" in reason:
            return tell_damage(self._where, f"is not a ledger, or its beginning is broken: {reason}", ANSWERS_LOST)
        return tell_damage(self._where, reason, ANSWERS_LOST)


# --- what the ledger knows an endpoint by, however many replicas it has, in whatever order ---
def settle_identity(endpoint: Endpoint, ledger: Ledger) -> Endpoint:
    """The endpoint under the identity by which the ledger knows this model at any of its addresses.

    Request keys hold the identity, so adding, removing or reordering replicas re-sends nothing: the ledger keeps for
    each address and model the identity that its answers go by. That is, in this order: what the ledger has written
    down for one of the addresses, the oldest first; the address under which it holds answers of the model; the
    first address in alphabetical order. ``localhost``, 127.0.0.1, ::1 and capitals in a host's name are spellings of
    one address. An identity that was given (of a GGUF file, say) stays as it is.

    Args:
        endpoint: with all its replicas.
        ledger: where the identity is looked up, and written down for each address.

    Raises:
        RunFolderError: the ledger cannot be written.
    """
    addresses = endpoint.addresses
    spelled = set(map(spell_host, addresses))
    if spell_host(endpoint.identity) not in spelled:
        return endpoint
    known = ledger.identities(addresses, endpoint.model)
    if known:
        identity = next(iter(known.values()))
    else:
        answered = ledger.answered(endpoint.model)
        alike = (one for one in answered if spell_host(one) in spelled)
        identity = min(alike, key=lambda one: (one not in addresses, one), default=endpoint.identity)
    if new := [address for address in addresses if address not in known]:
        ledger.record_identity(new, endpoint.model, identity)
    return replace(endpoint, identity=identity)
