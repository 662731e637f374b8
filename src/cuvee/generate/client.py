"""Asks an OpenAI-compatible endpoint many questions at once, and journals every answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import aiohttp

from cuvee.errors import AuthenticationError, EndpointError, EndpointUnreachable, ModelNotFound
from cuvee.generate.calls import Answer, Endpoint, Request, request_json, request_key
from cuvee.generate.ledger import Ledger
from cuvee.generate.replies import Reply, model_names, parse_reply, read_message
from cuvee.generate.retries import Patience, Trouble, retry_after_seconds

T = TypeVar("T")


class Lanes:
    """Requests cut into one run for each lane; a lane that is done takes over the end of the longest run.

    An endpoint that keeps the prompts it has computed (llama.cpp, one a slot) frees the slot of a lane just
    when that lane sends its next request, which begins like the last one. So neighbours in a run find
    their common beginning computed, which from 16 slots on is most of the work.
    """

    def __init__(self, requests: Sequence[Request], lanes: int) -> None:
        length = max(1, -(-len(requests) // lanes))
        self._runs = [deque(requests[start : start + length]) for start in range(0, len(requests), length)]

    @property
    def count(self) -> int:
        """How many lanes there are: no more than requests."""
        return len(self._runs)

    def take(self, lane: int) -> Request | None:
        """The next request of a lane; None when all are taken."""
        if self._runs[lane]:
            return self._runs[lane].popleft()
        longest = max(self._runs, key=len)
        return longest.pop() if longest else None


class LLMClient:
    """Answers requests from the ledger, else from the endpoint; a context manager.

    Whatever has been answered is committed to the ledger before an exception, Ctrl-C included, leaves
    :meth:`answer_requests`.

    Args:
        endpoint: where to ask.
        ledger: what was asked before, and where new answers go.
    """

    def __init__(self, endpoint: Endpoint, ledger: Ledger) -> None:
        self._endpoint = endpoint
        self._ledger = ledger
        self._patience = Patience(endpoint)
        self._runner = asyncio.Runner()
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[object] | None = None
        self._committing: asyncio.Task[None] | None = None
        self._model_checked = not endpoint.check_model

    def __enter__(self) -> LLMClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._run(session.close())
        self._call(self._runner.close)

    def answer_requests(
        self, requests: Sequence[Request], on_answer: Callable[[Request, Answer], None] | None = None
    ) -> list[Answer]:
        """The answers, in the order of the requests; equal requests are sent once.

        Args:
            requests: ``endpoint.concurrency`` at a time; neighbours go one after the other through one lane.
            on_answer: called with each one as it arrives, or is found in the ledger.

        Raises:
            EndpointUnreachable: no usable answer for ``give_up_s`` seconds, or a refused connection at the start.
            AuthenticationError, ModelNotFound, EndpointError: the endpoint refuses.
            RunFolderError: the ledger cannot be written.
        """
        tell = on_answer or _tell_nobody
        answers: dict[Request, Answer] = {}
        for request in dict.fromkeys(requests):
            known = self._ledger.lookup(request_key(self._endpoint, request))
            if known is not None:
                answers[request] = known
                tell(request, known)
        missing = [r for r in dict.fromkeys(requests) if r not in answers]
        if missing:
            answers.update(self._run(self._send_all(missing, tell)))
        return [answers[r] for r in requests]

    def _run(self, work: Coroutine[None, None, T]) -> T:
        return self._call(lambda: self._runner.run(work))

    def _call(self, job: Callable[[], T]) -> T:
        """Do a job of this client's loop here, or in a thread where the caller (a notebook) is inside a loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return job()
        with ThreadPoolExecutor(max_workers=1) as pool:
            future = pool.submit(job)
            try:
                return future.result()
            except BaseException:
                if self._task is not None:
                    self._task.get_loop().call_soon_threadsafe(self._task.cancel)
                raise

    async def _send_all(
        self, requests: Sequence[Request], tell: Callable[[Request, Answer], None]
    ) -> dict[Request, Answer]:
        self._task = asyncio.current_task()
        session = self._open_session()
        if not self._model_checked:
            await self._check_model(session)
            self._model_checked = True
        lanes = Lanes(requests, self._endpoint.concurrency)
        answers: dict[Request, Answer] = {}

        async def work(lane: int) -> None:
            while (request := lanes.take(lane)) is not None:
                answer = await self._ask(session, request)
                key = request_key(self._endpoint, request)
                self._ledger.record(key, request_json(self._endpoint, request), answer)
                await self._commit()  # a lane asks nothing more before its answer is safe
                answers[request] = answer
                tell(request, answer)

        tasks = [asyncio.create_task(work(lane)) for lane in range(lanes.count)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._ledger.flush()
        return answers

    async def _commit(self) -> None:
        """Return when all answers held so far are journalled; lanes that come together share one commit."""
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._flush_soon())
        await asyncio.shield(self._committing)

    async def _flush_soon(self) -> None:
        await asyncio.sleep(0)  # whoever has an answer in hand by now joins
        self._committing = None
        self._ledger.flush()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            endpoint = self._endpoint
            headers = {} if endpoint.api_key is None else {"Authorization": f"Bearer {endpoint.api_key}"}
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=endpoint.concurrency + 1),
                timeout=aiohttp.ClientTimeout(total=endpoint.timeout_s, sock_connect=min(10.0, endpoint.timeout_s)),
                headers=headers,
            )
        return self._session

    # --- one request ---
    async def _ask(self, session: aiohttp.ClientSession, request: Request) -> Answer:
        trouble: Trouble | None = None
        tries = 0
        while True:
            outcome = await self._try_once(session, request)
            if isinstance(outcome, Answer):
                self._patience.note_success()
                return outcome
            trouble = outcome if trouble is None else outcome.since(trouble)
            # only this lane waits: the others go on, and take over the rest of its requests
            await asyncio.sleep(self._patience.wait_seconds(trouble, tries))
            tries += 1

    async def _try_once(self, session: aiohttp.ClientSession, request: Request) -> Answer | Trouble:
        path = "/chat/completions" if request.prompt is None else "/completions"
        now = time.monotonic()
        try:
            body = request.payload(self._endpoint.model)
            async with session.post(self._endpoint.base_url + path, json=body, allow_redirects=False) as response:
                reply = Reply(response.status, await response.text(errors="replace"))
                after = retry_after_seconds(response.headers.get("Retry-After"), response.headers.get("Date"))
        except aiohttp.InvalidURL as exc:
            raise EndpointUnreachable(f"{self._endpoint.base_url} is no URL; give one such as http://host/v1") from exc
        except aiohttp.ClientConnectorError as exc:
            return Trouble(reason=f"cannot connect ({exc.os_error.strerror or exc})", first=now, refused=True)
        except TimeoutError:
            return Trouble(reason=f"no answer within {self._endpoint.timeout_s:g} s", first=now)
        except (aiohttp.ClientError, OSError) as exc:
            return Trouble(reason=str(exc) or type(exc).__name__, first=now)
        if reply.status == 429 or reply.status in (408, 409, 425) or reply.status >= 500:
            message = f"HTTP {reply.status} {self._clean(read_message(reply))}".strip()
            return Trouble(reason=message, first=now, after=after, limited=reply.status == 429)
        if reply.status != 200:
            raise await self._refusal(session, path, reply)
        return self._read(path, reply)

    def _read(self, path: str, reply: Reply) -> Answer:
        answer = parse_reply(reply)
        if answer is None:
            raise EndpointError(
                f"{self._endpoint.base_url}{path} answered, but not as an OpenAI-compatible endpoint does "
                f"({self._clean(read_message(reply))!r}); check base_url (it usually ends in /v1)"
            )
        return answer

    # --- refusals ---
    async def _refusal(self, session: aiohttp.ClientSession, path: str, reply: Reply) -> EndpointError:
        endpoint = self._endpoint
        message = self._clean(read_message(reply))
        if reply.status in (401, 403):
            return self._unauthorised(reply.status, message)
        about_model = "model" in message.casefold()
        if reply.status == 404 or (about_model and "not" in message.casefold()):
            served = await self._served_models(session)
            if served is not None and not _serves(served, endpoint.model):
                return self._model_not_found(served)
            if about_model and served is None:
                return ModelNotFound(f"{endpoint.base_url} does not serve model {endpoint.model!r}: {message}")
        if reply.status == 404:
            return EndpointError(
                f"{endpoint.base_url}{path} does not exist (404 {message}); check base_url (it usually ends in /v1) "
                "and api: chat or completions"
            )
        return EndpointError(f"{endpoint.base_url}{path} refused the request: HTTP {reply.status} {message}")

    def _unauthorised(self, status: int, message: str) -> AuthenticationError:
        endpoint = self._endpoint
        where = f"the key in ${endpoint.key_name}" if endpoint.key_name else "the API key"
        what = "check" if endpoint.api_key else "no key was sent: set"
        return AuthenticationError(f"{endpoint.base_url} answered {status} ({message}); {what} {where}")

    def _model_not_found(self, served: Sequence[str]) -> ModelNotFound:
        names = ", ".join(served[:12]) + (f" and {len(served) - 12} more" if len(served) > 12 else "")
        return ModelNotFound(
            f"{self._endpoint.base_url} does not serve model {self._endpoint.model!r}; it serves: {names or 'none'}"
        )

    async def _check_model(self, session: aiohttp.ClientSession) -> None:
        served = await self._served_models(session, raise_unauthorised=True)
        if served and not _serves(served, self._endpoint.model):
            raise self._model_not_found(served)

    async def _served_models(
        self, session: aiohttp.ClientSession, *, raise_unauthorised: bool = False
    ) -> list[str] | None:
        """What GET /models lists; None where it does not answer so."""
        reply = None
        timeout = aiohttp.ClientTimeout(total=min(10.0, self._endpoint.timeout_s))
        # no answer here says nothing yet: the request itself will meet the trouble, and name it
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with session.get(f"{self._endpoint.base_url}/models", timeout=timeout) as response:
                reply = Reply(response.status, await response.text(errors="replace"))
        if reply is None:
            return None
        if raise_unauthorised and reply.status == 401:
            raise self._unauthorised(401, self._clean(read_message(reply)))
        return model_names(reply)

    def _clean(self, message: str) -> str:
        key = self._endpoint.api_key
        return message.replace(key, "***") if key else message


def _tell_nobody(request: Request, answer: Answer) -> None:
    del request, answer


def _serves(served: Sequence[str], model: str) -> bool:
    """Whether ``model`` is listed, with or without a tag after a colon."""
    return any(model in (name, name.partition(":")[0]) or model.partition(":")[0] == name for name in served)
