"""What an endpoint was found to refuse, and what it may ignore without saying so."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

from cuvee.generate.calls import OMISSIBLE, Endpoint, Request

_COMPACT_JSON = json.JSONEncoder(separators=(",", ":"))
PARAMETERS = ("max_tokens", "temperature", "top_p", "seed", "stop", "min_p", "top_k")
_EXTRAS = ("seed", "min_p", "top_k")
_HONEST = ("vllm", "llamacpp", "sglang")
"""Engines, by the owner of the models they list, that heed every parameter in ``_EXTRAS``."""
_WORDS = ("seed", "stop")
"""Parameters whose names are words that a message may hold for other reasons."""
_LENGTH = re.compile(r"context (length|size|window)|prompt|messages|input (tokens|length)", re.IGNORECASE)
_NO_SCHEMA = re.compile(r"response_format|json_schema|structured output|unsupported|not support", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How requests are worded: with ``response_format`` or without, and what the token limit is called."""

    structured: bool = True
    limit_name: str = "max_tokens"


class Compatibility:
    """What is known of one endpoint, learned from what it refuses.

    Args:
        endpoint: whose ``omit`` is heeded.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._engine = "llamacpp" if endpoint.identity.startswith("gguf:") else ""
        self._notes: list[str] = []
        self._extras: set[str] = set()
        self.form = Form()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found, one sentence each."""
        return tuple(self._notes)

    @property
    def unverified(self) -> tuple[str, ...]:
        """Parameters asked for that the endpoint may have ignored."""
        return tuple(name for name in _EXTRAS if name in self._extras and self._engine not in _HONEST)

    def note(self, sentence: str) -> None:
        """Keep a fact, once."""
        if sentence not in self._notes:
            self._notes.append(sentence)

    def note_engine(self, owner: str) -> None:
        """The owner of the served model, as ``/models`` names it."""
        if owner.casefold() in _HONEST:
            self._engine = owner.casefold()
            self.note(f"the endpoint is {owner}: seed, min_p and top_k are heeded")

    def note_asked(self, request: Request) -> None:
        """Take in what a request asks for."""
        if "seed" not in self._endpoint.omit:
            self._extras.add("seed")
        if request.sampling.min_p is not None:
            self._extras.add("min_p")
        if request.sampling.top_k is not None:
            self._extras.add("top_k")

    def body(self, request: Request, form: Form) -> bytes:
        """The request as it is sent."""
        payload = request.payload(self._endpoint.model)
        for name in self._endpoint.omit:
            payload.pop(name, None)
        if not form.structured:
            payload.pop("response_format", None)
        if form.limit_name != "max_tokens":
            payload[form.limit_name] = payload.pop("max_tokens")
        return _COMPACT_JSON.encode(payload).encode()

    def adapt(self, request: Request, form: Form, status: int, message: str) -> bool:
        """Whether a request refused in this form is to be sent again in the form that is now in use.

        Args:
            request: what was refused.
            form: how it was worded.
            status: of the refusal.
            message: what the endpoint says.
        """
        if status not in (400, 422):
            return False
        if "max_completion_tokens" in message and form.limit_name == "max_tokens" and not blames_length(message):
            self.form = replace(self.form, limit_name="max_completion_tokens")
            self.note("max_tokens is refused: sent as max_completion_tokens")
            return True
        if request.schema is not None and form.structured and _NO_SCHEMA.search(message):
            if find_parameter(message, request) is not None and not re.search("response_format|json_schema", message):
                return False
            if self.form.structured:
                self.form = replace(self.form, structured=False)
                self.note(
                    "structured output: response_format is refused, so the prompt alone asks for JSON "
                    f"(HTTP {status} {message})"
                )
            return True
        return False


def find_parameter(message: str, request: Request) -> str | None:
    """The parameter of the request that a refusal names."""
    sent = request.payload("")
    for name in PARAMETERS:
        if name in sent and re.search(_named(name), message):
            return name
    return None


def blames_length(message: str) -> bool:
    """Whether a refusal says that a prompt is too long, which may name max_tokens too."""
    return _LENGTH.search(message) is not None


def _named(parameter: str) -> str:
    """A pattern for a parameter's name; one that is a word has to stand in quotes, or beside what says parameter."""
    if parameter not in _WORDS:
        return rf"(?<![\w.-]){parameter}(?![\w-])"
    kind = r"(?i:parameters?|arguments?|fields?|property|supplied)"
    return rf"[\"'`]{parameter}[\"'`]|{kind}\W+{parameter}\b|\b{parameter}\W+({kind}|is not|must|should)"


def remedy(parameter: str) -> str:
    """What to do about a parameter that is refused."""
    if parameter == "max_tokens":
        return "change max_tokens, or shorten the prompts"
    if parameter in OMISSIBLE:
        return f"change it, or leave it out with Endpoint(omit=({parameter!r},))"
    return f"leave {parameter} out (None): it is no part of OpenAI's protocol"
