"""One request to the endpoint and one reply, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

import aiohttp
from yarl import URL

from cuvee.errors import EndpointError, EndpointUnreachable, ModelNotFound
from cuvee.generate.calls import Answer, Endpoint, Request
from cuvee.generate.compatibility import (
    Compatibility,
    Refusal,
    blames_model,
    concerns_request,
    explain_refusal,
    missing_model,
    refused_key,
    serves,
)
from cuvee.generate.masking import LEAST_SECRET, fill_variables, join_url, mask_secrets, unset_variables
from cuvee.generate.retries import Trouble, retry_after_seconds

_PASSING = (408, 409, 425, 429)


class Exchange:
    """A session with an endpoint; an async context manager that keeps its connections until closed.

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
        self._worked = False

    async def open(self) -> None:
        """Connect as needed, and ask once whether the model is served.

        Raises:
            ModelNotFound, AuthenticationError: the endpoint says so.
            EndpointUnreachable: base_url is no URL.
        """
        if self._session is None:
            endpoint = self._endpoint
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
        if not self._model_checked:
            await self._check_model()
            self._model_checked = True

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Exchange:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def trust(self) -> None:
        """The endpoint is known to have answered such requests: what goes wrong now is no wrong set-up."""
        self._worked = True

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
            message = self._clean(reply)
            if status in _PASSING or status >= 500:
                reason = f"HTTP {status} {message}".strip()
                kind, limited = f"HTTP {status}", status == 429
                return Trouble(kind=kind, reason=reason, first=now, after=reply.retry_after, limited=limited)
            if not self._compatibility.adapt(request, form, status, message):
                return await self._refuse(request, path, status, message)

    async def is_back(self) -> bool:
        """Whether an address that was out replies again.

        Raises:
            ModelNotFound: it does, and serves another model now.
        """
        reply = await self._get_models()
        if reply is None or reply.status >= 500:
            return False
        served = model_owners(reply) if self._endpoint.check_model else None
        if served and not serves(list(served), self._endpoint.model):
            raise missing_model(self._endpoint, self._endpoint.model, list(served))
        return True

    async def _refuse(self, request: Request, path: str, status: int, message: str) -> Refusal:
        """A refusal of one request.

        Raises:
            AuthenticationError, ModelNotFound, EndpointError: all such requests are refused.
        """
        endpoint, own = self._endpoint, concerns_request(request, status, message)
        models: list[str] | None = None
        if own and self._worked and request.model is None:  # the model has answered, so it is there
            models = [endpoint.model]
        elif blames_model(status, message) and (served := await self._served_models()) is not None:
            models = list(served)
        error = explain_refusal(endpoint, request, path, status, message, models)
        if not own or isinstance(error, ModelNotFound):
            raise error
        return Refusal(reason=f"HTTP {status}", message=message, error=error)

    async def _post(self, path: str, body: bytes, now: float) -> Reply | Trouble:
        assert self._session is not None, "open() comes first"
        endpoint = self._endpoint
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
            reason = f"no answer within {endpoint.timeout_s:g} s"
            return Trouble(kind="no answer in time", reason=reason, first=now, timed_out=True, cut_off=True)
        except (aiohttp.ClientError, OSError) as exc:
            reason = self._mask(str(exc) or type(exc).__name__)
            return Trouble(kind="connection lost", reason=reason, first=now, cut_off=True)

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
            self._worked = True
            return self._without_secrets(answer)
        message = self._clean(reply)
        if self._worked:  # a proxy's page, or half a reply, among good ones
            kind = "no answer in the reply"
            return Trouble(kind=kind, reason=f"{kind} ({message!r})", first=now, cut_off=True)
        error = EndpointError(
            f"{self._endpoint.shown_url}{path} answered, but not as an OpenAI-compatible endpoint does "
            f"({message!r}); check base_url (it usually ends in /v1)"
        )
        return Refusal(reason="no answer in the reply", message=message, error=error, again=True)

    def _without_secrets(self, answer: Answer) -> Answer:
        text = mask_secrets(answer.text, self._secrets, least=LEAST_SECRET)
        if text is answer.text:
            return answer
        return Answer(
            text=text,
            finish_reason=answer.finish_reason,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
        )

    async def _check_model(self) -> None:
        served = await self._served_models(raise_unauthorised=True)
        if not served:
            return
        if not serves(list(served), self._endpoint.model):
            raise missing_model(self._endpoint, self._endpoint.model, list(served))
        self._compatibility.note_engine(next(iter(served.values())))

    async def _served_models(self, *, raise_unauthorised: bool = False) -> dict[str, str] | None:
        """What GET /models lists, with the owners; None where it does not answer so."""
        reply = await self._get_models()
        if reply is None:
            return None
        if raise_unauthorised and reply.status == 401:
            raise refused_key(self._endpoint, 401, self._clean(reply))
        return model_owners(reply)

    async def _get_models(self) -> Reply | None:
        assert self._session is not None, "open() comes first"
        timeout = aiohttp.ClientTimeout(total=min(10.0, self._endpoint.timeout_s))
        # no answer here says nothing yet: the request itself will meet the trouble, and name it
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._session.get(self._url("/models"), timeout=timeout, allow_redirects=False) as response:
                return Reply(response.status, await response.text("utf-8", errors="replace"))
        return None

    def _clean(self, reply: Reply) -> str:
        # masked before it is shortened, so that no half of a key is left at the end
        return read_message(reply, self._secrets)

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
    line = " ".join(mask_secrets(text, secrets).split())
    return line if len(line) <= LONGEST_MESSAGE else line[:LONGEST_MESSAGE] + "..."


def model_owners(reply: Reply) -> dict[str, str] | None:
    """The ids listed by GET /models with who owns each, "" if not said; None if the reply is no such list."""
    data = _json_object(reply.body).get("data")
    if reply.status != 200 or not isinstance(data, list):
        return None
    entries = [entry for entry in data if isinstance(entry, dict) and "id" in entry]
    return {str(entry["id"]): str(entry.get("owned_by") or "") for entry in entries}


def _json_object(body: str) -> Mapping[str, object]:
    try:
        data = json.loads(body)
        if "\\ud" in body.lower():  # only whole characters can be stored
            data = json.loads(_whole_characters(json.dumps(data, ensure_ascii=False)))
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _whole_characters(text: str) -> str:
    """Halves of surrogate pairs joined, or replaced: only whole characters can be stored."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
