"""Keeping keys out of messages and files: what of an address is secret, and the variables that stand for it."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

# Shorter keys ("none", "EMPTY") are words, which an answer may hold.
MASK = "***"
LEAST_SECRET = 8
# What identities of models on this machine begin with: they are no addresses, and cost nothing.
LOCAL = ("gguf:", "hf:")
_OPEN_QUERY = ("api-version", "version")
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}", flags=re.ASCII)
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)//?([^\s'\"]*[^\s'\".,;:)])")  # a path has one slash of the two
_LOOPBACK = ("localhost", "[::1]")


def find_secrets(url: str, api_key: str | None) -> tuple[str, ...]:
    """What is secret in an address, its variables filled in, and the key; longest first."""
    found = {api_key or "", *(os.environ.get(name, "") for name in _VARIABLE.findall(url))}
    parts = _split(fill_variables(url))
    if parts is not None:
        userinfo = parts.netloc.rpartition("@")[0]
        user, _, password = userinfo.partition(":")
        found |= {userinfo, password or user, parts.fragment}
        if userinfo:  # as it is sent
            found.add(b64encode(unquote(f"{user}:{password}").encode()).decode())
        for name, equals, value in (piece.partition("=") for piece in parts.query.split("&")):
            if name not in _OPEN_QUERY:
                found |= {value, value.replace("+", " ")} if equals else {name}
    found |= {unquote(secret) for secret in found}
    return tuple(sorted((secret for secret in found if secret), key=lambda s: (-len(s), s)))


def mask_secrets(text: str, secrets: tuple[str, ...], *, least: int = 1) -> str:
    """The text with every secret of at least so many characters replaced, however it is percent-encoded."""
    pattern = _pattern(secrets, least)
    return text if pattern is None or pattern.search(text) is None else pattern.sub(MASK, text)


@lru_cache(maxsize=64)
def _pattern(secrets: tuple[str, ...], least: int) -> re.Pattern[str] | None:
    def spellings(letter: str) -> str:
        encoded = "".join(f"%{byte:02x}" for byte in letter.encode("utf-8", "surrogatepass"))
        either = re.sub("[a-f]", lambda found: f"[{found[0]}{found[0].upper()}]", encoded)
        return f"(?:{either}|{re.escape(letter)}{'|[+]' if letter == ' ' else ''})"

    each = ["".join(map(spellings, secret)) for secret in secrets if len(secret) >= least]
    return re.compile("|".join(each)) if each else None


def redact_url(url: str, api_key: str | None = None) -> str:
    """The address without user, password, query values (but a version's), variables and the key.

    The same whether its variables are set or not: it is what the ledger knows an endpoint by.
    """
    if url.startswith(LOCAL):
        return url
    url = _VARIABLE.sub(MASK, url)
    parts = _split(url)
    if parts is None:
        return MASK
    if parts.query or parts.fragment or "@" in parts.netloc:
        query = [(name, value if name in _OPEN_QUERY else MASK) for name, value in parse_qsl(parts.query)]
        host = parts.netloc.rpartition("@")[2]
        url = urlunsplit((parts.scheme, host, parts.path, urlencode(query, safe="*"), "")).removeprefix("//")
    url = mask_secrets(url, (api_key or "",), least=LEAST_SECRET)
    return "/".join(MASK if _holds(part, api_key) else part for part in url.split("/"))


def name_secrets(url: str, key_name: str | None = None) -> str:
    """The address with a variable, ``${NAME}``, in place of every secret that is written out in it.

    Args:
        url: as it was given.
        key_name: the variable that holds the key, which may stand in its path.
    """
    parts = _split(url)
    if parts is None:
        return MASK

    def named(value: str, name: str) -> str:
        return value if value in ("", MASK) or _VARIABLE.fullmatch(value) else f"${{{name}}}"

    def named_query(piece: str) -> str:
        name, equals, value = piece.partition("=")
        if name in _OPEN_QUERY:
            return piece
        variable = re.sub(r"\W", "_", name, flags=re.ASCII).upper()
        return f"{name}={named(value, f'LLM_{variable}')}" if equals else named(piece, "LLM_QUERY")

    userinfo, at, host = parts.netloc.rpartition("@")
    user, colon, password = userinfo.partition(":")
    user, password = named(user, "LLM_USER" if password else "LLM_TOKEN"), named(password, "LLM_PASSWORD")
    query = "&".join(map(named_query, parts.query.split("&")))
    variables = [*_VARIABLE.findall(url), *([key_name] if key_name else [])]
    held = (
        (part, [name for name in variables if _holds(part, os.environ.get(name))]) for part in parts.path.split("/")
    )
    path = "/".join(f"${{{names[0]}}}" if names else part for part, names in held)
    mark = "?" if query else ""
    scheme = f"{url.partition('://')[0]}://" if "://" in url else ""
    return f"{scheme}{user}{colon}{password}{at}{host}{path}{mark}{query}"


def mask_urls(text: str) -> str:
    """A message without the secrets of the addresses in it."""

    def named(found: re.Match[str]) -> str:
        url = f"{found[1]}//{found[2]}"
        safe = name_secrets(url)
        return found[0] if safe == url else safe

    return _ADDRESS.sub(named, text)


def fill_variables(url: str) -> str:
    """The address with ``${NAME}`` replaced by what the environment holds; what is not set stays.

    A value is percent-encoded, unless it is already; after ``?`` or ``&`` it is a piece of the query and stays.
    """

    def fill(found: re.Match[str]) -> str:
        value = os.environ.get(found[1])
        if value is None:
            return found[0]
        return value if url[found.start() - 1] in "?&" else quote(value, safe="%")

    return _VARIABLE.sub(fill, url)


def unset_variables(urls: Sequence[str]) -> tuple[str, ...]:
    """The environment variables that addresses name and that are not set."""
    return tuple(name for url in urls for name in _VARIABLE.findall(url) if not os.environ.get(name))


def spell_host(url: str) -> str:
    """The address with its host in one spelling: small letters, 127.0.0.1 for localhost and ::1."""
    parts = None if url.startswith(LOCAL) else _split(url)
    found = re.fullmatch(r"(.*@)?(.*?)(:\d+)?", parts.netloc) if parts is not None and parts.scheme else None
    if parts is None or found is None:
        return url
    host = found[2].lower()
    netloc = f"{found[1] or ''}{'127.0.0.1' if host in _LOOPBACK else host}{found[3] or ''}"
    return urlunsplit(parts._replace(netloc=netloc))


def join_url(base: str, path: str) -> str:
    """``base`` with ``path`` appended before its query."""
    address, mark, query = base.partition("?")
    return address.rstrip("/") + path + mark + query


def _holds(part: str, secret: str | None) -> bool:
    """Whether a piece of a path is a secret, or has a long one in it."""
    part, secret = unquote(part), unquote(secret or "")
    return bool(secret) and (part == secret or (len(secret) >= LEAST_SECRET and secret in part))


def _split(url: str) -> SplitResult | None:
    """The parts of an address, which may lack its scheme; None if it is no address at all."""
    try:
        return urlsplit(url if "://" in url else f"//{url}")
    except ValueError:
        return None
