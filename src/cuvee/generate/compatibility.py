"""What an endpoint was found to refuse, and what it may ignore without saying so."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cuvee.errors import AuthenticationError, EndpointError, ModelNotFound
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


# --- turning what an endpoint refuses into an error that says what to do ---
_OF_ONE_REQUEST = (400, 413, 422)
_FILTERED = re.compile(r"content[ _-](filter|management|policy)|moderation|input was flagged", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that the endpoint will not answer, though it may well answer others.

    ``reason`` is the same for all refusals of a kind, ``message`` what the endpoint says; ``error`` is for a set-up
    in which nothing is answered. ``again`` says that it is worth another try once something else has been answered.
    """

    reason: str
    message: str
    error: EndpointError
    again: bool = False


def concerns_request(request: Request, status: int, message: str) -> bool:
    """Whether a refusal may be due to this one request (too long, filtered, malformed), and not to all like it.

    A parameter that is named is one of all requests: of the same level at least.
    """
    if status == 403:
        return _FILTERED.search(message) is not None
    if status not in _OF_ONE_REQUEST:
        return False
    parameter = find_parameter(message, request)
    return parameter is None or (parameter == "max_tokens" and blames_length(message))


def explain_refusal(
    endpoint: Endpoint, request: Request, path: str, status: int, message: str, served: Sequence[str] | None
) -> EndpointError:
    """The error for a status that is neither 200 nor worth another try.

    Args:
        endpoint: who refused.
        request: what was asked.
        path: after ``base_url``.
        status: of the reply.
        message: what the endpoint says, without secrets.
        served: its models; None where it does not list them.
    """
    where = endpoint.shown_url
    if status in (401, 403):
        return refused_key(endpoint, status, message)
    if blames_model(status, message):
        model = request.model or endpoint.model
        if served is not None and not serves(served, model):
            return missing_model(endpoint, model, served)
        if served is None and "model" in message.casefold():
            return ModelNotFound(f"{where} does not serve model {model!r}: {message}")
    if status == 404:
        return EndpointError(
            f"{where}{path} does not exist (404 {message}); check base_url (it usually ends in /v1) "
            "and api: chat or completions"
        )
    if 300 <= status < 400:
        return EndpointError(f"{where}{path} redirects (HTTP {status}), which is not followed; check base_url")
    parameter = find_parameter(message, request) if status in (400, 422) else None
    if parameter is not None:
        return EndpointError(
            f"{where}{path} refuses the parameter {parameter!r}: HTTP {status} {message}; {remedy(parameter)}"
        )
    more = ""
    if endpoint.identity.startswith("gguf:") and blames_length(message):
        more = "; give the embedded LLM more room: --context-size, or generator.context in study.yaml"
    return EndpointError(f"{where}{path} refused the request: HTTP {status} {message}{more}")


def blames_model(status: int, message: str) -> bool:
    """Whether a refusal may be due to the model's name."""
    words = message.casefold()
    return status == 404 or ("model" in words and "not" in words and "support" not in words)


def refused_key(endpoint: Endpoint, status: int, message: str) -> AuthenticationError:
    """The error for 401 and 403."""
    where = f"the key in ${endpoint.key_name}" if endpoint.key_name else "the API key"
    what = "check" if endpoint.api_key else "no key was sent: set"
    return AuthenticationError(f"{endpoint.shown_url} answered {status} ({message}); {what} {where}")


def missing_model(endpoint: Endpoint, model: str, served: Sequence[str]) -> ModelNotFound:
    """The error for a model that is not among those served."""
    names = ", ".join(served[:12]) + (f" and {len(served) - 12} more" if len(served) > 12 else "")
    return ModelNotFound(f"{endpoint.shown_url} does not serve model {model!r}; it serves: {names or 'none'}")


def serves(served: Sequence[str], model: str) -> bool:
    """Whether ``model`` is listed, with or without a tag after a colon."""
    return any(model in (name, name.partition(":")[0]) or model.partition(":")[0] == name for name in served)
