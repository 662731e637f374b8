"""One request to the endpoint and one reply, over HTTP; and what the endpoint is found to refuse."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
from yarl import URL

from cuvee.errors import AuthenticationError, EndpointError, EndpointUnreachable, ModelNotFound
from cuvee.generate.calls import OMISSIBLE, Answer, Endpoint, Request
from cuvee.masking import LEAST_SECRET, fill_variables, join_url, mask_secrets, unset_variables

_PASSING = (408, 409, 425, 429)
_LOOK_S = 10.0
"""How long the list of models is waited for."""


# --- what comes of a request, beside an answer ---
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
        self._model_checked = not endpoint.check_model

    async def open(self) -> None:
        """Connect as needed, and ask once whether the model is served.

        Raises:
            ModelNotFound, AuthenticationError: the endpoint says so.
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
        if self._model_checked:
            return
        reply = await self._get_models()
        if reply.status == 401:
            raise refused_key(endpoint, 401, read_message(reply, self._secrets))
        if (served := list_models(reply)) and not serves(served, endpoint.model):
            raise missing_model(endpoint, endpoint.model, served)
        self._model_checked = True

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def is_up(self) -> bool:
        """Whether an address that was out replies again."""
        return 0 < (await self._get_models()).status < 500

    async def ask(self, request: Request) -> Answer | Trouble | Refusal:
        """The answer, what kept it from coming and may pass, or that the endpoint refuses this one request.

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
                text = await response.text("utf-8", errors="replace")
                headers = response.headers
                after = retry_after_seconds(headers.get("Retry-After"), headers.get("Date"))
                return Reply(response.status, text, after)
        except aiohttp.InvalidURL:
            # what was raised holds the URL, and with it what is secret
            raise self._no_url() from None
        except aiohttp.ClientConnectorError as exc:
            reason = self._mask(f"cannot connect ({exc.os_error.strerror or exc})")
            return Trouble(kind="cannot connect", reason=reason, first=now, refused=True)
        except TimeoutError:
            reason = f"no answer within {self._endpoint.timeout_s:g} s"
            return Trouble(kind="no answer in time", reason=reason, first=now, timed_out=True, cut_off=True)
        except (aiohttp.ClientError, OSError) as exc:
            reason = self._mask(str(exc) or type(exc).__name__)
            return Trouble(kind="connection lost", reason=reason, first=now, cut_off=True)

    async def _get_models(self) -> Reply:
        """What ``/models`` replies; status 0 if nothing: the request itself will meet the trouble, and name it."""
        assert self._session is not None, "open() comes first"
        timeout = aiohttp.ClientTimeout(total=min(_LOOK_S, self._endpoint.timeout_s))
        try:
            async with self._session.get(self._url("/models"), timeout=timeout, allow_redirects=False) as response:
                return Reply(response.status, await response.text("utf-8", errors="replace"))
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

    def _mask(self, text: str) -> str:
        return mask_secrets(text, self._secrets)


# --- reading what an OpenAI-compatible endpoint sends back. Pure ---
LONGEST_MESSAGE = 300


@dataclass(frozen=True, slots=True)
class Reply:
    """HTTP status, body, and the seconds to wait that it asks for."""

    status: int
    body: str
    retry_after: float | None = None


def parse_reply(reply: Reply) -> Answer | None:
    """The answer of a chat or completions reply; None if it is none."""
    data = _json_object(reply.body)
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return None
    choice = choices[0]
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if text is not None and not isinstance(text, str):
        return None
    usage = data.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Answer(
        text=text or "",
        finish_reason=str(choice.get("finish_reason") or ""),
        prompt_tokens=_count(counts.get("prompt_tokens")),
        completion_tokens=_count(counts.get("completion_tokens")),
    )


def error_status(reply: Reply) -> int:
    """The HTTP status, or the one that a reply with status 200 carries in its error (as gateways send it)."""
    if reply.status != 200 or '"error"' not in reply.body:
        return reply.status
    data = _json_object(reply.body)
    error = data.get("error")
    code = error.get("code") if isinstance(error, dict) and not data.get("choices") else None
    return code if isinstance(code, int) and 400 <= code < 600 else reply.status


def read_message(reply: Reply, secrets: tuple[str, ...] = ()) -> str:
    """What the server says is wrong, on one line, without secrets, shortened."""
    data = _json_object(reply.body)
    found: object = data.get("error", data.get("detail", data.get("message")))
    if isinstance(found, dict):
        found = found.get("message", found)
    text = reply.body if found is None else found if isinstance(found, str) else json.dumps(found)
    # masked before it is shortened, so that no half of a key is left at the end
    line = " ".join(mask_secrets(text, secrets).split())
    return line if len(line) <= LONGEST_MESSAGE else line[:LONGEST_MESSAGE] + "..."


def list_models(reply: Reply) -> list[str] | None:
    """The ids listed by GET /models; None if the reply is no such list."""
    data = _json_object(reply.body).get("data")
    if reply.status != 200 or not isinstance(data, list):
        return None
    return [str(entry["id"]) for entry in data if isinstance(entry, dict) and "id" in entry]


def retry_after_seconds(header: str | None, date: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or an HTTP date.

    Args:
        header: the header's value.
        date: the reply's Date header; a Retry-After date is measured against it, so clocks need not agree.
    """
    try:
        seconds = float(header or "")
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        then, now = _http_date(header), _http_date(date)
    return None if then is None else max(0.0, (then - (now or datetime.now(UTC))).total_seconds())


def _http_date(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _json_object(body: str) -> Mapping[str, object]:
    try:
        data = json.loads(body)
        if "\\ud" in body.lower():  # halves of surrogate pairs joined, or replaced: only whole characters can be stored
            text = json.dumps(data, ensure_ascii=False)
            data = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


# --- what the endpoint was found to refuse ---
_COMPACT_JSON = json.JSONEncoder(separators=(",", ":"))
PARAMETERS = ("max_tokens", "temperature", "top_p", "seed", "stop", "min_p", "top_k")
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
        self._notes: dict[str, None] = {}
        self.form = Form()
        self.worked = False
        """Whether the endpoint has answered such requests: what goes wrong then is no wrong set-up."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found, one sentence each."""
        return tuple(self._notes)

    def note(self, sentence: str) -> None:
        """Keep a fact, once."""
        self._notes.setdefault(sentence)

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
    """Whether ``model`` is listed, with or without a tag after a colon."""
    return any(model in (name, name.partition(":")[0]) or model.partition(":")[0] == name for name in served)
