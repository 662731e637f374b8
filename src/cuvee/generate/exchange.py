"""One request to the endpoint and one reply, over HTTP; and what the endpoint is found to refuse."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import aiohttp
from yarl import URL

from cuvee.errors import AuthenticationError, EndpointError, EndpointUnreachable, ModelNotFound
from cuvee.generate.calls import OMISSIBLE, Answer, Endpoint, Request
from cuvee.generate.replies import Reply, error_status, list_models, parse_reply, read_body, read_message, wait_seconds
from cuvee.masking import LEAST_SECRET, fill_variables, join_url, mask_secrets, unset_variables

_PASSING = (408, 409, 425, 429)
# What a 429 says that no waiting mends.
_USED_UP = re.compile(r"insufficient_quota|exceeded your current quota|(check|see) your (plan|billing)", re.IGNORECASE)
_LOOK_S = 10.0  # how long the list of models is waited for


# --- outcomes of a request other than an answer ---
@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A failure that may pass.

    ``kind`` is the same for all of a kind. ``first`` is when this request was first sent (monotonic seconds), ``sent``
    when it was last sent, if that was later, ``after`` what the server asked to wait, ``limited`` a 429, ``refused`` a
    connection that was not made, ``timed_out`` no reply in time, ``cut_off`` that the request was sent and may have
    been worked on. ``failures`` counts the request's own: the endpoint answered another request in between.
    """

    kind: str
    reason: str
    first: float
    sent: float | None = None
    after: float | None = None
    limited: bool = False
    refused: bool = False
    timed_out: bool = False
    cut_off: bool = False
    failures: int = 1

    def since(self, earlier: Trouble, answered: float) -> Trouble:
        """This trouble, as the continuation of an earlier one.

        Args:
            earlier: of the same request.
            answered: when the latest request was sent that the endpoint answered.
        """
        own = answered > (earlier.sent or earlier.first) and not self.limited
        return replace(self, first=earlier.first, sent=self.first, failures=earlier.failures + own)


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


class Exchange:
    """A session with an endpoint, which keeps its connections until it is closed.

    Args:
        endpoint: where to ask.
        compatibility: what is learned of it.
    """

    def __init__(self, endpoint: Endpoint, compatibility: Compatibility) -> None:
        self._endpoint = endpoint
        self._compatibility = compatibility
        self._secrets = endpoint.secrets
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}
        self._looked = endpoint.identity.startswith("gguf:")

    async def open(self) -> None:
        """Connect as needed; note once if the endpoint lists other models than this one: requests tell if it is served.

        Raises:
            EndpointUnreachable: base_url is no URL.
        """
        endpoint = self._endpoint
        if self._session is None:
            headers = {"Content-Type": "application/json"}
            if endpoint.api_key is not None:
                headers["Authorization"] = f"Bearer {endpoint.api_key}"
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=endpoint.most_at_once + 1),
                timeout=aiohttp.ClientTimeout(total=endpoint.timeout_s, sock_connect=min(10.0, endpoint.timeout_s)),
                headers=headers,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        for _ in range(3):  # connections that the endpoint closed while nobody looked are noticed and dropped
            await asyncio.sleep(0)
        if not self._looked:
            self._looked = True
            served = list_models(await self._get_models())
            if served and not serves(served, endpoint.model):
                self._compatibility.note(f"{missing_model(endpoint, endpoint.model, served)}; it is asked all the same")

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def is_up(self) -> bool:
        """Whether an address that was out replies again."""
        return 0 < (await self._get_models()).status < 500

    async def ask(self, request: Request) -> Answer | Trouble | Refusal:
        """Send a request: its answer, a trouble that may pass, or the refusal of this one request.

        Raises:
            EndpointUnreachable: base_url is no URL.
            AuthenticationError, ModelNotFound, EndpointError: the endpoint refuses all such requests.
        """
        path = "/chat/completions" if request.prompt is None else "/completions"
        while True:
            form = self._compatibility.form
            now = time.monotonic()
            reply = await self._post(path, self._compatibility.body(request, form), now)
            if isinstance(reply, Trouble):
                return reply
            status = error_status(reply)
            if status == 200:
                return self._read(path, reply, now)
            message = read_message(reply, self._secrets)
            if status == 429 and _USED_UP.search(message):
                raise EndpointError(
                    f"{self._endpoint.shown_url}: the quota is used up (HTTP 429 {message}); nothing that was answered "
                    "is lost; raise the quota and run the same command again"
                )
            if status in _PASSING or status >= 500:
                reason = f"HTTP {status} {message}".strip()
                kind, limited = f"HTTP {status}", status == 429
                return Trouble(kind=kind, reason=reason, first=now, after=reply.retry_after, limited=limited)
            if not self._compatibility.adapt(request, form, status, message):
                return await self._refuse(request, path, status, message)

    async def _refuse(self, request: Request, path: str, status: int, message: str) -> Refusal:
        """A refusal of one request.

        Raises:
            AuthenticationError, ModelNotFound, EndpointError: all such requests are refused.
        """
        endpoint, own = self._endpoint, concerns_request(request, status, message)
        models: list[str] | None = None
        if own and self._compatibility.worked and request.model is None:  # the model has answered, so it is there
            models = [endpoint.model]
        elif blames_model(status, message):
            models = list_models(await self._get_models())
        error = explain_refusal(endpoint, request, path, status, message, models)
        if not own or isinstance(error, ModelNotFound):
            raise error
        return Refusal(reason=f"HTTP {status}", message=message, error=error)

    async def _post(self, path: str, body: bytes, now: float) -> Reply | Trouble:
        assert self._session is not None, "open() comes first"
        try:
            async with self._session.post(self._url(path), data=body, allow_redirects=False) as response:
                text = read_body(await response.read(), response.charset)
                return Reply(response.status, text, wait_seconds(response.headers))
        except aiohttp.InvalidURL:
            # what was raised holds the URL, and with it what is secret
            raise self._no_url() from None
        except aiohttp.ClientConnectorError as exc:
            reason = mask_secrets(f"cannot connect ({exc.os_error.strerror or exc})", self._secrets)
            return Trouble(kind="cannot connect", reason=reason, first=now, refused=True)
        except TimeoutError:
            reason = f"no answer within {self._endpoint.timeout_s:g} s"
            return Trouble(kind="no answer in time", reason=reason, first=now, timed_out=True, cut_off=True)
        except (aiohttp.ClientError, OSError) as exc:
            reason = mask_secrets(str(exc) or type(exc).__name__, self._secrets)
            return Trouble(kind="connection lost", reason=reason, first=now, cut_off=True)

    async def _get_models(self) -> Reply:
        """What ``/models`` replies; status 0 if nothing: the request itself will meet the trouble, and name it."""
        assert self._session is not None, "open() comes first"
        timeout = aiohttp.ClientTimeout(total=min(_LOOK_S, self._endpoint.timeout_s))
        try:
            async with self._session.get(self._url("/models"), timeout=timeout, allow_redirects=False) as response:
                return Reply(response.status, read_body(await response.read(), response.charset))
        except (aiohttp.ClientError, OSError):
            return Reply(0, "")

    def _url(self, path: str) -> URL:
        if path not in self._urls:
            for name in unset_variables([self._endpoint.base_url]):
                raise EndpointUnreachable(f"base_url: the environment variable {name} is not set; export it")
            try:
                url = URL(fill_variables(join_url(self._endpoint.base_url, path)))
            except ValueError:
                raise self._no_url() from None
            # there is one Authorization header, and the key is for it
            self._urls[path] = url if self._endpoint.api_key is None or not url.absolute else url.with_user(None)
        return self._urls[path]

    def _no_url(self) -> EndpointUnreachable:
        return EndpointUnreachable(f"{self._endpoint.shown_url} is no URL; give one such as http://host/v1")

    def _read(self, path: str, reply: Reply, now: float) -> Answer | Trouble | Refusal:
        answer = parse_reply(reply)
        if answer is not None:
            self._compatibility.worked = True
            return replace(answer, text=mask_secrets(answer.text, self._secrets, least=LEAST_SECRET))
        kind, message = "no answer in the reply", read_message(reply, self._secrets)
        if self._compatibility.worked:  # a proxy's page, or half a reply, among good ones
            return Trouble(kind=kind, reason=f"{kind} ({message!r})", first=now, cut_off=True)
        error = EndpointError(
            f"{self._endpoint.shown_url}{path} answered, but not as an OpenAI-compatible endpoint does "
            f"({message!r}); check base_url (it usually ends in /v1)"
        )
        return Refusal(reason=kind, message=message, error=error, again=True)


# --- what the endpoint was found to refuse ---
_COMPACT_JSON = json.JSONEncoder(separators=(",", ":"))
PARAMETERS = ("max_tokens", "top_p", "temperature", "seed", "stop", "min_p", "top_k")
_WORDS = ("seed", "stop")  # parameters whose names are words that a message may hold for other reasons
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
        notes: takes what is found, one sentence each.
    """

    def __init__(self, endpoint: Endpoint, notes: dict[str, None]) -> None:
        self._endpoint = endpoint
        self._notes = notes
        self.form = Form()
        self.worked = False
        """Whether the endpoint has answered such requests: what goes wrong then is no wrong set-up."""

    def note(self, sentence: str) -> None:
        """Keep a fact, once."""
        self._notes.setdefault(sentence)

    def body(self, request: Request, form: Form) -> bytes:
        """The request as it is sent."""
        payload = request.payload(self._endpoint.model)
        for name in self._endpoint.omit:
            payload.pop(name, None)
        payload.update(self._endpoint.extra_body)
        if self._endpoint.system == "merge" and request.messages:
            texts = [content for _, content in request.messages]
            payload["messages"] = [{"role": "user", "content": "\n\n".join(texts)}]
        if not form.structured:
            payload.pop("response_format", None)
        if form.limit_name != "max_tokens" and "max_tokens" in payload:
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
    """A pattern for a parameter's name; a common word must stand in quotes or next to a word like "parameter"."""
    if parameter not in _WORDS:
        return rf"(?<![\w.-]){parameter}(?![\w-])"
    kind = r"(?i:parameters?|arguments?|fields?|property|supplied)"
    return rf"[\"'`]{parameter}[\"'`]|{kind}\W+{parameter}\b|\b{parameter}\W+({kind}|is not|must|should)"


def remedy(parameter: str) -> str:
    """What to do about a parameter that is refused."""
    if parameter == "max_tokens":
        return "change max_tokens, or shorten the prompts"
    if parameter in OMISSIBLE:
        return f"change it, or leave it out: --omit {parameter}, or omit: [{parameter}] of the generator"
    return f"leave {parameter} out (None): it is no part of OpenAI's protocol"


# --- turning what an endpoint refuses into an error that says what to do ---
_OF_ONE_REQUEST = (400, 413, 422)
_NO_SYSTEM = re.compile(r"system.{0,20}(role|message|prompt|instruction)|role.{0,20}system", re.IGNORECASE)
_FILTERED = re.compile(r"content[ _-](filter|management|policy)|moderation|input was flagged", re.IGNORECASE)


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
    """The error for a status that is not 200 and that another try would not change.

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
    parameter = find_parameter(message, request) if status in (400, 422) else None
    if parameter is None and blames_model(status, message):
        model = request.model or endpoint.model
        if served is not None and not serves(served, model):
            return missing_model(endpoint, model, served)
        if served is None and "model" in message.casefold():
            return ModelNotFound(f"{where} does not serve model {model!r}: {message}")
    if status == 404:
        return EndpointError(f"{where}{path} does not exist (404 {message}); check api; base_url usually ends in /v1")
    if 300 <= status < 400:
        return EndpointError(f"{where}{path} redirects (HTTP {status}), which is not followed; check base_url")
    if parameter is not None:
        return EndpointError(f"{where}{path} refuses {parameter!r}: HTTP {status} {message}; {remedy(parameter)}")
    more = ""
    if _NO_SYSTEM.search(message):
        more = "; put the system message into the user's: --system merge, or system: merge of the generator"
    elif status in (400, 422) and not blames_length(message):
        more = "; a parameter is set with --extra NAME=VALUE (extra_body of the generator) or left out with --omit NAME"
    if endpoint.identity.startswith("gguf:") and blames_length(message):
        more = "; give the embedded LLM more room: generator.context in study.yaml"
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
    """Whether ``model`` is listed, with or without what precedes its name and a tag after a colon."""
    return any(model in (name, name.partition(":")[0]) or model.partition(":")[0] == name for name in served) or any(
        name.casefold().endswith(f"/{model.casefold()}") for name in served
    )
