"""Turning what an endpoint refuses into an error that says what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cuvee.errors import AuthenticationError, EndpointError, ModelNotFound
from cuvee.generate.calls import Endpoint, Request
from cuvee.generate.compatibility import blames_length, find_parameter, remedy

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
