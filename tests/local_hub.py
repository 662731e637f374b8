"""A hub on loopback, played by a real HTTP server: it holds what it is sent, and answers as the real one does."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[str, str], tuple[int, dict | str] | None]


@dataclass
class Hub:
    """What the server was asked, and what it holds; ``kind`` is datasets or models."""

    repo: str = "someone/blend"
    kind: str = "datasets"
    answer: Answer = lambda _method, _path: None
    visibility: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    large: bool = False
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    port: int = 0

    @property
    def place(self) -> str:
        """Of the repository's page: models have none of the prefix that datasets have."""
        return f"/{self.repo}" if self.kind == "models" else f"/{self.kind}/{self.repo}"

    def reply(self, method: str, path: str, body: bytes) -> tuple[int, dict | str]:
        self.asked.append(f"{method} {path}")
        scripted = self.answer(method, path)
        if scripted is not None:
            return scripted
        known = {
            "/api/repos/create": self.create,
            "/api/validate-yaml": lambda _body: (200, {"errors": [], "warnings": []}),
            f"/api/{self.kind}/{self.repo}": self.describe,
            f"/api/{self.kind}/{self.repo}/preupload/main": self.choose_modes,
            f"/api/{self.kind}/{self.repo}/commit/main": self.commit,
            f"{self.place}.git/info/lfs/objects/batch": self.say_where,
        }
        if path.startswith("/store/"):
            self.stored[path.removeprefix("/store/")] = body
            return 200, {}
        return known[path](body) if path in known else (404, {"error": f"no {path}"})

    def create(self, body: bytes) -> tuple[int, dict]:
        told = json.loads(body)
        name = f"{told['organization']}/{told['name']}"
        if name in self.visibility:
            return 409, {"error": "You already created this repo"}
        self.visibility[name] = told["visibility"]
        return 200, {"url": f"http://127.0.0.1:{self.port}{self.place}"}

    def describe(self, _body: bytes) -> tuple[int, dict]:
        if self.repo not in self.visibility:
            return 404, {"error": "Repository not found"}
        return 200, {
            "id": self.repo,
            "private": self.visibility[self.repo] == "private",
            "sha": "0" * 40,
            "siblings": [],
        }

    def choose_modes(self, body: bytes) -> tuple[int, dict]:
        paths = [f["path"] for f in json.loads(body)["files"]]
        modes = {p: "lfs" if self.large and p.endswith((".parquet", ".safetensors")) else "regular" for p in paths}
        return 200, {"files": [{"path": p, "uploadMode": modes[p], "shouldIgnore": False} for p in paths]}

    def say_where(self, body: bytes) -> tuple[int, dict]:
        (item,) = json.loads(body)["objects"]
        upload = {"href": f"http://127.0.0.1:{self.port}/store/{item['oid']}"}
        return 200, {"objects": [item | {"actions": {"upload": upload}}]}

    def commit(self, body: bytes) -> tuple[int, dict]:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.stored[value["oid"]]
        return 200, {"commitUrl": f"http://127.0.0.1{self.place}/commit/1", "commitOid": "1" * 40}


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            body = self.read_chunks() if self.headers.get("Transfer-Encoding") else self.rfile.read(self.length)
            hub.tokens.add(self.headers.get("Authorization") or "")
            status, told = hub.reply(self.command, self.path.split("?")[0], body)
            data = (told if isinstance(told, str) else json.dumps(told)).encode()
            with suppress(BrokenPipeError, ConnectionResetError):  # the client gave up
                self.send(status, data)

        def send(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Type", "application/json")
            if status == 404 and b"Repository not found" in data:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            self.wfile.write(data)

        @property
        def length(self) -> int:
            return int(self.headers.get("Content-Length") or 0)

        def read_chunks(self) -> bytes:
            out = b""
            while size := int(self.rfile.readline(), 16):
                out += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return out

        do_GET = do_POST = do_PUT = handle_one

        def log_message(self, *_args: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
