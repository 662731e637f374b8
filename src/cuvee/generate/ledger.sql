-- The tables of a ledger.
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, request_json TEXT NOT NULL, text TEXT NOT NULL, finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, checksum TEXT
);
CREATE TABLE IF NOT EXISTS failures (
    key TEXT PRIMARY KEY, request_json TEXT NOT NULL, reason TEXT NOT NULL, tries INTEGER NOT NULL,
    message TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS sessions (
    number INTEGER PRIMARY KEY, endpoint TEXT NOT NULL, model TEXT NOT NULL, replayed INTEGER NOT NULL,
    retries INTEGER NOT NULL, unanswered INTEGER NOT NULL, notes TEXT NOT NULL, unverified TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS replicas (
    address TEXT NOT NULL, model TEXT NOT NULL, identity TEXT NOT NULL, PRIMARY KEY (address, model)
);
