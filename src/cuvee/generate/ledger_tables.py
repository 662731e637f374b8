"""The tables of a ledger, in SQL."""

from __future__ import annotations

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
