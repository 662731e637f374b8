"""What the client costs over bare HTTP: requests a second as a share of the server's capacity, CPU and memory.

    python benchmarks/generate.py [--seconds 6] [--repeats 2] [--only cuvee]

One server, a process of its own on loopback, answers every request after a fixed time. Against it, one after the
other and each in a process of its own: bare sockets (HTTP written by hand), aiohttp without a journal, the openai SDK
if it is installed, and Cuvée with its ledger on disk; as many at once as the setting says, and once more with Cuvée
left to find the number by itself (up to 256). The capacity is what the latency allows (at once / latency), or what the
better of the two bare clients reaches if that is less. Each client's best round counts. CPU is that of the client's
process, per request; memory its peak. Two cores are enough; another job on them costs all clients alike.

    python benchmarks/generate.py --faults

Pools of two levels in two draws, of a dial with paraphrases, first from a server without faults, then with a tenth of
the requests answered 429 with Retry-After: 3, once; and the time from the end of an outage to the first request that
was waiting for it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import math
import multiprocessing
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from multiprocessing.connection import Connection
from pathlib import Path

SETTINGS = ((0.03, 64), (0.5, 256))
CLIENTS = ("sockets", "aiohttp", "openai", "cuvee", "cuvee adaptive")
PROMPT = "A list of news headlines about sports:\n1. Arsenal win the cup\n2. Rain stops the final\n3."
REPLY = json.dumps(
    {
        "id": "c-1", "object": "text_completion", "created": 1, "model": "tiny",
        "choices": [{"index": 0, "text": " A headline of some eight words stands here", "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 24, "completion_tokens": 9, "total_tokens": 33},
    }
).encode()  # fmt: skip


# --- the server -----------------------------------------------------------------------------------------
def serve(pipe: Connection, latency: float) -> None:
    """Answer for ever; the port goes through the pipe."""
    from aiohttp import web

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        await asyncio.sleep(latency)
        return web.Response(body=REPLY, content_type="application/json")

    async def main() -> None:
        runner = web.ServerRunner(web.Server(answer, access_log=None))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        pipe.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


# --- the clients ----------------------------------------------------------------------------------------
def body(number: int) -> bytes:
    """The request, as Cuvée words it."""
    return json.dumps(
        {"model": "tiny", "prompt": PROMPT, "temperature": 1.0, "top_p": 1.0, "max_tokens": 24, "seed": number}
    ).encode()


async def ask_sockets(port: int, count: int, at_once: int) -> None:
    """HTTP/1.1 by hand over kept connections."""
    numbers = iter(range(count))

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            text = body(number)
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n"
            writer.write(head.encode() + text)
            headers = await reader.readuntil(b"\r\n\r\n")
            length = int(headers.lower().partition(b"content-length:")[2].split(b"\r", 1)[0])
            json.loads(await reader.readexactly(length))
        writer.close()

    await asyncio.gather(*(work() for _ in range(at_once)))


async def ask_aiohttp(port: int, count: int, at_once: int) -> None:
    """A session as its documentation shows it."""
    import aiohttp

    numbers = iter(range(count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once)) as session:

        async def work() -> None:
            for number in numbers:
                async with session.post(f"http://127.0.0.1:{port}/v1/completions", data=body(number)) as response:
                    await response.json()

        await asyncio.gather(*(work() for _ in range(at_once)))


async def ask_openai(port: int, count: int, at_once: int) -> None:
    """The asynchronous client of the openai SDK."""
    import openai

    numbers = iter(range(count))
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none") as client:

        async def work() -> None:
            for number in numbers:
                await client.completions.create(
                    model="tiny", prompt=PROMPT, temperature=1.0, top_p=1.0, max_tokens=24, seed=number
                )

        await asyncio.gather(*(work() for _ in range(at_once)))


def ask_cuvee(port: int, count: int, at_once: int | None) -> None:
    """Cuvée's client, every answer journalled on disk."""
    from cuvee.generate.calls import Endpoint, Request, Sampling
    from cuvee.generate.client import LLMClient
    from cuvee.generate.ledger import Ledger

    endpoint = Endpoint(
        base_url=f"http://127.0.0.1:{port}/v1", model="tiny", api="completions", concurrency=at_once, check_model=False
    )
    sampling = Sampling(max_tokens=24)
    requests = [Request(prompt=PROMPT, sampling=sampling, seed=number) for number in range(count)]
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        with LLMClient(endpoint, ledger) as client:
            assert len(client.answer_requests(requests)) == count
        assert ledger.totals().requests == count


def run_client(name: str, port: int, count: int, at_once: int) -> None:
    """Ask so many requests, and print seconds, CPU seconds and the peak of memory in MB."""
    if name.startswith("cuvee"):
        from cuvee.generate.client import LLMClient  # noqa: F401 - loaded before the clock starts
    elif name != "sockets":
        importlib.import_module(name)
    start, cpu = time.perf_counter(), time.process_time()
    if name == "sockets":
        asyncio.run(ask_sockets(port, count, at_once))
    elif name == "aiohttp":
        asyncio.run(ask_aiohttp(port, count, at_once))
    elif name == "openai":
        asyncio.run(ask_openai(port, count, at_once))
    else:
        ask_cuvee(port, count, None if name == "cuvee adaptive" else at_once)
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([took, time.process_time() - cpu, peak]))


# --- the table ------------------------------------------------------------------------------------------
def measure(latency: float, at_once: int, seconds: float, repeats: int, clients: list[str]) -> None:
    """One setting: all clients against one server."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs, latency), daemon=True)
    server.start()
    port = ours.recv()
    count = int(seconds * at_once / latency)
    print(f"\n{latency * 1000:.0f} ms, {at_once} at once, {count} requests")
    costs: dict[str, list[list[float]]] = {name: [] for name in clients}
    for _ in range(repeats):
        for name in clients:
            command = [sys.executable, __file__, "--client", name, str(port), str(count), str(at_once)]
            costs[name].append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
    best = {name: count / min(took for took, _, _ in found) for name, found in costs.items()}
    capacity = min(at_once / latency, max([best[n] for n in ("sockets", "aiohttp") if n in best] or [math.inf]))
    print(f"{'client':<16}{'requests/s':>12}{'of capacity':>13}{'CPU ms/request':>16}{'peak MB':>9}")
    for name, found in costs.items():
        cpu, peak = min(c for _, c, _ in found), max(p for _, _, p in found)
        print(f"{name:<16}{best[name]:>12,.0f}{best[name] / capacity:>13.0%}{1000 * cpu / count:>16.2f}{peak:>9.0f}")
    server.kill()
    server.join()


# --- faults ---------------------------------------------------------------------------------------------
class Faults:
    """What the server does beside answering; ``seen`` are bodies, ``returned`` the first request after the outage."""

    def __init__(self) -> None:
        self.limited = False
        self.out: tuple[float, float] | None = None
        self.seen: set[bytes] = set()
        self.returned: float | None = None

    def status(self, text: bytes) -> int:
        """Of the reply to a request."""
        now, first = time.monotonic(), text not in self.seen
        self.seen.add(text)
        if self.out is not None and self.out[0] <= now < self.out[1]:
            return 503
        if self.out is not None and now >= self.out[1] and b'"max_tokens": 1,' not in text:
            self.returned = self.returned or now
        return 429 if self.limited and first and zlib.crc32(text) % 10 == 0 else 200


def measure_faults(latency: float = 0.1) -> None:
    """Print the ratio under limits, and what an outage costs after its end."""
    from aiohttp import web

    from cuvee.corpus import Corpus
    from cuvee.generate.calls import Endpoint
    from cuvee.generate.client import OpenedLLM
    from cuvee.generate.dials import ParaphraseDial
    from cuvee.generate.ledger import Ledger
    from cuvee.generate.pools import GenerationSpec, generate_pools

    faults, started, stop, ports = Faults(), threading.Event(), threading.Event(), []

    async def answer(request: web.BaseRequest) -> web.Response:
        text = await request.read()
        if (status := faults.status(text)) != 200:
            return web.Response(status=status, headers={"Retry-After": "3"} if status == 429 else {})
        await asyncio.sleep(latency)
        words = " ".join(f"{word:05d}" for word in random.Random(text).choices(range(99_999), k=6))
        choice = {"text": words, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 9}})

    async def host() -> None:
        runner = web.ServerRunner(web.Server(answer, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        ports.append(runner.addresses[0][1])
        started.set()
        await asyncio.to_thread(stop.wait)
        await runner.cleanup()

    server = threading.Thread(target=lambda: asyncio.run(host()))
    server.start()
    started.wait()
    labels = ("alpha", "beta")
    train = Corpus.from_rows([{"text": f"real {label} row {i}", "target": label} for label in labels for i in range(6)])
    endpoint = Endpoint(
        base_url=f"http://127.0.0.1:{ports[0]}/v1", model="m", api="completions", concurrency=16, check_model=False
    )

    def generate() -> float:
        begun = time.monotonic()
        faults.seen.clear()
        with Ledger() as ledger:
            generate_pools(
                train,
                GenerationSpec(blocks=(0, 1), rows_per_label=100, describe="texts", seed=1),
                ParaphraseDial(levels=[0, 2], sources=2),
                OpenedLLM(endpoint=endpoint),
                ledger,
            )
        return time.monotonic() - begun

    clean = generate()
    faults.limited = True
    limited = generate()
    faults.limited = False
    print(f"clean {clean:.1f} s; a tenth limited {limited:.1f} s: ratio {limited / clean:.2f}, of at most", end=" ")
    print(f"{2 + 4 / clean:.2f} (twice and 4 s)")
    now = time.monotonic()
    faults.out = (now + clean / 3, now + clean / 3 + 30)
    generate()
    assert faults.returned is not None
    print(f"an outage of 30 s: the first waiting request {faults.returned - faults.out[1]:.1f} s after its end")
    stop.set()
    server.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of work for each client, at the full capacity")
    parser.add_argument("--repeats", type=int, default=2, help="rounds over all clients; the best one counts")
    parser.add_argument("--only", nargs="+", choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--faults", action="store_true", help="limits and an outage, in place of the clients")
    parser.add_argument("--client", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        name, port, count, at_once = arguments.client
        run_client(name, int(port), int(count), int(at_once))
        return
    if arguments.faults:
        measure_faults()
        return
    clients = [name for name in CLIENTS if name in arguments.only]
    if "openai" in clients and importlib.util.find_spec("openai") is None:
        print("the openai SDK is not installed: left out (pip install openai)")
        clients.remove("openai")
    for latency, at_once in SETTINGS:
        measure(latency, at_once, arguments.seconds, arguments.repeats, clients)


if __name__ == "__main__":
    main()
