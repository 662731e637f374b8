"""The journal of LLM answers: each request is sent once, and its answer reused. Failures are kept until forgotten."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cuvee.databases import ANSWERS_LOST, check_database, make_database, open_reading, tell_damage
from cuvee.errors import RunFolderError
from cuvee.fingerprint import hash_value
from cuvee.generate.calls import Answer, Endpoint, Failure
from cuvee.masking import spell_host
from cuvee.records import Prices, Usage
from cuvee.records.generation import GenerationAccount


# --- what a ledger holds besides answers and failures ---
@dataclass(slots=True, kw_only=True)
class Met:
    """What clients met, apart from answers and failures.

    ``replayed`` answers were taken from the ledger, ``retries`` sent again after trouble that passed; ``unanswered``
    requests were sent and cut off. ``notes`` were found out about the endpoint, one sentence each, in order.
    """

    replayed: int = 0
    retries: int = 0
    unanswered: int = 0
    notes: dict[str, None] = field(default_factory=dict)


# --- in SQL ---
SCHEMA = Path(__file__).with_name("ledger.sql").read_text(encoding="ascii")
NOTE = "INSERT OR REPLACE INTO sessions VALUES (?, '', '', ?, ?, ?, ?, '[]')"  # earlier versions filled the others
MET = "SELECT replayed, retries, unanswered, notes FROM sessions ORDER BY number"
INSERT = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)"
SELECT = "SELECT * FROM answers WHERE key = ?"
# what failed and was then answered (asked for again by another process, say) did not fail
FAILED = "SELECT key, reason, message, tries FROM failures WHERE key NOT IN (SELECT key FROM answers) ORDER BY key"
COUNTS = """
SELECT coalesce(json_extract(request_json, '$.endpoint'), ''), coalesce(json_extract(request_json, '$.body.model'), ''),
       finish_reason, count(*), sum(prompt_tokens), sum(completion_tokens)
FROM answers GROUP BY 1, 2, 3 ORDER BY 2, 3, 1
"""
ENDPOINTS = """
SELECT DISTINCT json_extract(request_json, '$.endpoint') FROM answers WHERE json_valid(request_json)
AND json_extract(request_json, '$.body.model') = ? AND json_extract(request_json, '$.endpoint') IS NOT NULL
"""


# --- the journal itself ---
# Of 4 kB in the write-ahead log before it goes into the file, for which all commits wait.
PAGES_A_CHECKPOINT = 8000
_ANSWERED = ("text", "finish_reason", "prompt_tokens", "completion_tokens")  # what the table has of an answer


def check_ledger(path: Path) -> None:
    """See that a ledger, where there is one, is whole.

    Raises:
        RunFolderError: it is damaged.
    """
    check_database(path, ANSWERS_LOST)


def _as_usage(counts: Sequence[int]) -> Usage:
    requests, prompt_tokens, completion_tokens = counts
    return Usage(requests=requests, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


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
        self._held: dict[str, tuple[str, Answer]] = {}
        self._sent = Usage()
        self.met = Met()
        """What clients of this ledger met since it was opened; committed with the answers, and at the end."""
        self._session: int | None = None
        try:
            # the client may run its event loop in another thread (notebooks); never in two at once
            if readonly and path is not None:
                self._database = open_reading(path, timeout=30)
            else:
                if path is not None:
                    make_database(path, SCHEMA)
                self._database = sqlite3.connect(self._where, timeout=30, isolation_level=None, check_same_thread=False)
                if path is None:
                    self._database.executescript(SCHEMA)
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=FULL")
                self._database.execute(f"PRAGMA wal_autocheckpoint={PAGES_A_CHECKPOINT}")
            self._database.execute(SELECT, ("",))
        except sqlite3.Error as exc:
            raise self._refusal(exc) from exc

    def lookup(self, key: str) -> Answer | None:
        """The committed answer to the request with this key; it is counted as replayed."""
        if not (rows := self._read(SELECT, key)):
            return None
        (*row, checksum) = rows[0]
        if checksum != _checksum(row):
            raise tell_damage(self._where, f"the checksum of answer {key[:12]} is wrong", ANSWERS_LOST)
        self._sent, self.met.replayed = self._sent + Usage(replayed=1), self.met.replayed + 1
        return Answer(**dict(zip(_ANSWERED, row[2:], strict=True)), replayed=True)

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
        rows = [(key, text, *(getattr(a, name) for name in _ANSWERED)) for key, (text, a) in self._held.items()]
        with self._transaction():
            self._database.executemany(INSERT, [(*row, _checksum(row)) for row in rows])
            self._write_met()
        for _, answer in self._held.values():
            self._sent += answer.usage
        self._held.clear()

    def counts(self) -> Usage:
        """Answers committed and replayed since this ledger was opened, and the tokens of the committed ones.

        May be called from any thread.
        """
        return self._sent

    def totals(self) -> Usage:
        """All answers the ledger holds, as requests, and their tokens."""
        query = "SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) FROM answers"
        return _as_usage(self._read(query)[0])

    def count_answers(self) -> Mapping[tuple[str, str, str], Usage]:
        """All answers the ledger holds, by endpoint, model, and how they ended.

        Raises:
            RunFolderError: a request in it is no JSON.
        """
        return {(endpoint, model, end): _as_usage(counts) for endpoint, model, end, *counts in self._read(COUNTS)}

    def holds(self, key: str) -> bool:
        """Whether there is a committed answer to the request with this key; not counted as replayed."""
        return bool(self._read("SELECT 1 FROM answers WHERE key = ?", key))

    def answered(self, model: str) -> tuple[str, ...]:
        """Identities of the endpoints that have ever answered a request to this model."""
        return tuple(identity for (identity,) in self._read(ENDPOINTS, model))

    # --- replicas ---
    def identities(self, model: str) -> list[tuple[str, str]]:
        """Addresses, each with the identity that answers of this model there go by; the oldest first."""
        return self._read("SELECT address, identity FROM replicas WHERE model = ? ORDER BY rowid", model)

    def record_identity(self, addresses: Sequence[str], model: str, identity: str) -> None:
        """Commit that answers of this model at these addresses go by one identity.

        Raises:
            RunFolderError: the ledger cannot be written.
        """
        with self._transaction():
            rows = [(address, model, identity) for address in addresses]
            self._database.executemany("INSERT OR IGNORE INTO replicas VALUES (?, ?, ?)", rows)

    # --- what clients met ---
    def _write_met(self) -> None:
        met = self.met
        row = (self._session, met.replayed, met.retries, met.unanswered, json.dumps(list(met.notes)))
        self._session = self._database.execute(NOTE, row).lastrowid

    def read_met(self) -> Met:
        """What clients met in all, as far as it is committed: of a process that was killed, until its last commit."""
        found = Met()
        for replayed, retries, unanswered, notes in self._read(MET):
            with self._telling():
                found.notes |= dict.fromkeys(json.loads(notes))
            found.replayed, found.retries = found.replayed + replayed, found.retries + retries
            found.unanswered += unanswered
        return found

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
        return {
            key: Failure(reason=reason, message=message, tries=tries, replayed=True)
            for key, reason, message, tries in self._read(FAILED)
        }

    def forget_failures(self) -> int:
        """Forget all failures, so that the next run asks again; returns how many there were.

        Raises:
            RunFolderError: the ledger cannot be written.
        """
        number = len(self.failures())
        with self._transaction():
            self._database.execute("DELETE FROM failures")
        return number

    def _read(self, query: str, *given: str) -> list[tuple[Any, ...]]:
        with self._telling():
            return self._database.execute(query, given).fetchall()

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
        """Flush, commit what clients met, and close the file."""
        try:
            self.flush()
            if self.met != Met():
                with self._transaction():
                    self._write_met()
        finally:
            self._database.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _refusal(self, exc: sqlite3.Error) -> RunFolderError:
        reason = str(exc)
        if any(mark in reason for mark in ("unable to open", "locked", "readonly")):
            return RunFolderError(
                f"{self._where}: {reason}; does its folder exist, may you write there, and does no other process?"
            )
        if "no such table" in reason or "not a database" in reason:
            return tell_damage(self._where, f"is not a ledger, or its beginning is broken: {reason}", ANSWERS_LOST)
        return tell_damage(self._where, exc, ANSWERS_LOST)


# --- the identity of an endpoint, which does not depend on its replicas and their order ---
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
    spelled = set(map(spell_host, endpoint.addresses))
    if spell_host(endpoint.identity) not in spelled:
        return endpoint
    kept = ledger.identities(endpoint.model)
    known = [identity for address, identity in kept if spell_host(address) in spelled]
    if not known:
        known = sorted(one for one in ledger.answered(endpoint.model) if spell_host(one) in spelled)
    identity = next(iter(known), endpoint.identity)
    if new := [address for address in endpoint.addresses if address not in dict(kept)]:
        ledger.record_identity(new, endpoint.model, identity)
    return replace(endpoint, identity=identity)


# --- what ledgers' answers cost ---
def summarise(*ledgers: Ledger, prices: Prices | None = None) -> GenerationAccount:
    """Count the answers, tokens and failures of a ledger, or of several together.

    Each answer was paid for once, however often it was used.

    Args:
        ledgers: to be counted.
        prices: of all that was answered; None leaves the cost open.
    """
    total, by_model, by_ending = Usage(), Counter[str](), Counter[str]()
    for (endpoint, model, ending), usage in (pair for ledger in ledgers for pair in ledger.count_answers().items()):
        total += usage
        by_model[f"{model or 'an unnamed model'} at {endpoint}"] += usage.requests
        by_ending[ending or "no reason given"] += usage.requests
    failed = Counter(failure.reason for ledger in ledgers for failure in ledger.failures().values())
    met = [ledger.read_met() for ledger in ledgers]
    return GenerationAccount(
        requests=total.requests,
        prompt_tokens=total.prompt_tokens,
        completion_tokens=total.completion_tokens,
        cost=None if prices is None else prices.cost(total.prompt_tokens, total.completion_tokens),
        currency="" if prices is None else prices.currency,
        by_model=dict(sorted(by_model.items())),
        by_ending=dict(sorted(by_ending.items())),
        failed=dict(sorted(failed.items())),
        replayed=sum(each.replayed for each in met),
        retries=sum(each.retries for each in met),
        unanswered=sum(each.unanswered for each in met),
        notes=tuple(dict.fromkeys(note for each in met for note in each.notes)),
    )


def tell_spending(ledger: Ledger, prices: Prices | None = None, part: str = "") -> Callable[[], str]:
    """What says, while a ledger is written and from any thread, what is spent: ``4,567+890 tokens, 0.0123 USD``.

    The tokens are those of prompts and of answers, with what was in the ledger before.

    Args:
        ledger: whose totals count.
        prices: None leaves the cost out.
        part: what the numbers are of, where that is not all: ``fold 2``.
    """
    before = ledger.totals() - ledger.counts()

    def tell() -> str:
        total = before + ledger.counts()
        said = f"{total.prompt_tokens:,}+{total.completion_tokens:,} tokens"
        if prices is not None:
            said += f", {prices.cost(total.prompt_tokens, total.completion_tokens):.4f} {prices.currency}"
        return f"{part}: {said}" if part else said

    return tell
