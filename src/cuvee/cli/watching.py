"""``cuvee watch``: the page of a run folder, served to this machine alone while its study runs."""

from __future__ import annotations

import secrets
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from cuvee.cli import console
from cuvee.cli.options import expand_options
from cuvee.cli.stages import list_status, tell_state
from cuvee.errors import ConfigError, CuveeError
from cuvee.study.status import gather_progress, read_status

_HOST = "127.0.0.1"


@expand_options
def watch(
    run: Annotated[Path, Argument(help="a run folder")],
    port: Annotated[int, Option(min=0, max=65535, help="of this machine; 0: any that is free")] = 0,
) -> None:
    """Serve the page of a study on this machine while it runs: its progress and scores, then its report."""
    read_status(run)  # refuses what is no run folder
    address = f"/{secrets.token_urlsafe(24)}/"
    try:
        server = ThreadingHTTPServer((_HOST, port), _make_handler(run, address))
    except OSError as exc:
        raise ConfigError(f"--port {port}: cannot be used ({exc}); leave it out for any that is free") from exc
    with server, suppress(KeyboardInterrupt):
        console.out.print(f"http://{_HOST}:{server.server_port}{address}", soft_wrap=True, highlight=False)
        console.err.print("open it in a browser of this machine; Ctrl-C ends it", style="dim")
        server.serve_forever()


def write_page(run: Path) -> bytes:
    """The report of a finished study, else its progress.

    Raises:
        CuveeError: the run folder cannot be read.
    """
    from cuvee.report.study_page import render_progress  # charts take long to load

    found, report = read_status(run), run / "report.html"
    if found.state == "finished" and report.is_file():
        return report.read_bytes()
    rows = [row for row in list_status(found) if row[0]] + [("note", note) for note in found.notes[-3:]]
    return render_progress(gather_progress(run), tell_state(found), rows).encode()


def _make_handler(run: Path, address: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers GET of the one address that there is; no part of it names a file."""

        def do_GET(self) -> None:
            if not secrets.compare_digest(self.path.encode("utf-8", "replace"), address.encode()):
                self.send_error(404)
                return
            try:
                content = write_page(run)
            except (CuveeError, OSError) as exc:
                self.send_error(503, explain=str(exc))
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            for name, value in (("Cache-Control", "no-store"), ("Referrer-Policy", "no-referrer")):
                self.send_header(name, value)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("X-Frame-Options", "DENY")
            self.end_headers()
            with suppress(ConnectionError):  # the browser left
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing: the address holds the token."""

    return Handler
