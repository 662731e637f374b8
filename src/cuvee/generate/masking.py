"""Keeping keys out of messages and files."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit, urlunsplit

MASK = "***"
LEAST_SECRET = 8
"""Shorter keys ("none", "EMPTY") are words, which an answer may hold."""
_OPEN_QUERY = ("api-version", "version")


def find_secrets(url: str, api_key: str | None) -> tuple[str, ...]:
    """The key, the user and password of a URL and its query values, also as a URL spells them; longest first."""
    found = {api_key or ""}
    parts = _split(url)
    if parts is not None:
        userinfo = parts.netloc.rpartition("@")[0]
        found.update({userinfo, userinfo.partition(":")[2]})
        found.update(value for name, value in parse_qsl(parts.query) if name not in _OPEN_QUERY)
    found.update({quote(secret, safe="") for secret in found})
    return tuple(sorted((secret for secret in found if secret), key=lambda s: (-len(s), s)))


def mask_secrets(text: str, secrets: tuple[str, ...], *, least: int = 1) -> str:
    """The text with every secret of at least so many characters replaced."""
    for secret in secrets:
        if len(secret) >= least and secret in text:
            text = text.replace(secret, MASK)
    return text


def redact_url(url: str, api_key: str | None = None) -> str:
    """The URL without user, password, query values (but a version's) and key."""
    parts = _split(url)
    if parts is not None and (parts.query or "@" in parts.netloc):
        query = [(name, value if name in _OPEN_QUERY else MASK) for name, value in parse_qsl(parts.query)]
        host = parts.netloc.rpartition("@")[2]
        url = urlunsplit((parts.scheme, host, parts.path, urlencode(query, safe="*"), ""))
    return url.replace(api_key, MASK) if api_key and len(api_key) >= LEAST_SECRET else url


def join_url(base: str, path: str) -> str:
    """``base`` with ``path`` appended before its query."""
    address, mark, query = base.partition("?")
    return address.rstrip("/") + path + mark + query


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None
