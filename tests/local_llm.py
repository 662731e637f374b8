"""A real OpenAI-compatible server on loopback with deterministic answers and scripted troubles."""

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from cuvee.generate.calls import Endpoint

WORDS = (
    "amber birch cedar delta ember frost grove harbor island jungle kernel lagoon meadow nectar orchid pebble "
    "quartz ripple saffron timber umber valley willow xenon yonder zephyr anchor beacon copper dagger"
).split()

Script = Callable[[int, web.Request, dict], Awaitable[web.StreamResponse | None]]


def write_text(body: dict, words: int = 5, vocabulary: int = len(WORDS)) -> str:
    """Words that depend on the prompt, the seed and the temperature, and on nothing else."""
    asked = json.dumps([body.get("prompt"), body.get("messages"), body["seed"], body["temperature"]])
    digest = hashlib.sha256(asked.encode()).digest()
    return " ".join(WORDS[b % vocabulary] for b in digest[:words])


class LocalLLM:
    """Serves in a thread, under any path whose request ``guard`` lets pass.

    ``script`` may answer the n-th POST otherwise; ``text`` makes the words.
    """

    def __init__(self) -> None:
        self.script: Script | None = None
        self.guard: Callable[[web.Request], bool] = lambda _request: True
        self.text: Callable[[dict], str] = write_text
        self.finish_reason = "stop"
        self.models: list[str] | None = ["tiny"]
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.most_at_once = 0
        self._at_once = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def endpoint(self, **settings) -> Endpoint:
        given = {"api": "completions", "give_up_s": 10.0, "timeout_s": 5.0, "identity": "local", **settings}
        return Endpoint(base_url=f"http://127.0.0.1:{self.port}/v1", model=given.pop("model", "tiny"), **given)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run())
        self._loop.close()

    async def _run(self) -> None:
        self._stop = asyncio.Event()

        @web.middleware
        async def check(request: web.Request, handler: Callable) -> web.StreamResponse:
            if self.guard(request):
                return await handler(request)
            return web.json_response({"error": f"no key in {request.raw_path} {dict(request.headers)}"}, status=401)

        app = web.Application(middlewares=[check])
        app.router.add_post("/{before:.*}v1/completions", self._answer)
        app.router.add_post("/{before:.*}v1/chat/completions", self._answer)
        app.router.add_get("/{before:.*}v1/models", self._list)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _list(self, _request: web.Request) -> web.Response:
        if self.models is None:
            return web.Response(status=404)
        return web.json_response({"data": [{"id": name} for name in self.models]})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        number = len(self.bodies)
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.times.append(time.monotonic())
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self.script is not None:
                other = await self.script(number, request, body)
                if other is not None:
                    return other
            await asyncio.sleep(0.001 * (number % 3))
            return web.json_response(self.reply(body))
        finally:
            self._at_once -= 1

    def reply(self, body: dict) -> dict:
        text = self.text(body)
        choice = {"text": text} if "prompt" in body else {"message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 7, "completion_tokens": 5}
        return {"choices": [{**choice, "finish_reason": self.finish_reason}], "usage": usage}
