"""Bytes that no HTTP server should send: an answer, a failure, or one line that names the endpoint."""

import gzip
import json
import socketserver
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuvee.errors import CuveeError
from cuvee.generate.calls import Answer, Endpoint, Failure, Request, Sampling
from cuvee.generate.client import LLMClient
from cuvee.generate.ledger import Ledger

BODY = json.dumps({"choices": [{"text": "a whole row", "finish_reason": "stop"}]}).encode()
EVENT = b'data: {"choices": [{"text": "a whole row", "finish_reason": "stop"}]}\n\n'
PACKED = gzip.compress(BODY, mtime=0)
LENGTH = b"content-length: %d\r\n" % len(BODY)


class RawServer(socketserver.ThreadingTCPServer):
    """Reads one request a connection, sends ``bytes`` and hangs up."""

    allow_reuse_address = daemon_threads = True
    bytes = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hangup)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


class Hangup(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.settimeout(1.0)
        try:
            self.request.recv(65_536)
            self.request.sendall(self.server.bytes)
        except OSError:
            pass  # the client has left


@pytest.fixture(scope="module")
def server():
    with RawServer() as made:
        yield made
        made.shutdown()


def ask(server, sent):
    """The text of the answer, or what is said in its place."""
    server.bytes = sent
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    endpoint = Endpoint(base_url=url, model="m", api="completions", give_up_s=0.2, timeout_s=0.3)
    try:
        with Ledger() as ledger, LLMClient(endpoint, ledger) as client:
            (found,) = client.answer_requests([Request(prompt="p", sampling=Sampling(), seed=1)])
    except CuveeError as exc:
        assert url in str(exc) and len(str(exc)) < 800
        return "error"
    assert isinstance(found, Answer | Failure)
    return found.text if isinstance(found, Answer) else "failure"


@pytest.mark.parametrize(
    ("sent", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n" + BODY, True),
        (b"HTTP/1.1 200 OK\r\n\r\n" + BODY, True),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n" + LENGTH + b"\r\n" + BODY, True),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + PACKED, True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), True),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + EVENT + b"data: [DONE]\n\n", True),
        (b"HTTP/1.1 200 OK\r\n" + LENGTH + b"\r\n" + BODY[:20], False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n" + BODY, False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n" + BODY, False),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n" + LENGTH + b"\r\n" + BODY, False),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + PACKED[:40], False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n" + BODY, False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False),
        (b"HTTP/1.1 302 Found\r\nlocation: http://example.invalid/\r\n\r\n", False),
        (b"HTTP/9.9 200 OK\r\n\r\n" + BODY, False),
        (b"HTTP/1.1 999 ?\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH_9.6\r\n", False),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n" + BODY, False),
        (b"", False),
    ],
)
def test_only_whole_answers_are_taken(server, sent, whole):
    assert (ask(server, sent) == "a whole row") == whole


HEADS = st.sampled_from(
    [b"content-length: 7", b"content-length: x", b"content-encoding: br", b"content-encoding: gzip", b"\x00: 1",
     b"transfer-encoding: chunked", b"content-type: text/event-stream", b"connection: close", b"retry-after: never",
     b"content-type: application/json; charset=utf-7", b"set-cookie: \xff", b" folded", b"no colon"]
)  # fmt: skip
STATUS = st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.0 200", b"HTTP/1.1 429 x", b"HTTP/1.1 503 x", b"HTTP/1.1 abc"])
BODIES = st.one_of(st.binary(max_size=40), st.just(BODY), st.just(EVENT), st.just(PACKED))


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(STATUS, st.lists(HEADS, max_size=3), BODIES, st.binary(max_size=4))
def test_no_bytes_raise(server, status, heads, body, end):
    ask(server, b"\r\n".join([status, *heads, b"", body]) + end)
