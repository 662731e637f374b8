"""``cuvee status``, ``watch`` and ``ledger``: a run folder is looked at while its study runs, and not changed."""

from __future__ import annotations

import secrets
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from cuvee.cli import console, show
from cuvee.cli.options import Tell, expand_options, may_trust
from cuvee.errors import ConfigError, CuveeError, InputError
from cuvee.records.measurement import write_seconds

if TYPE_CHECKING:
    from cuvee.study.status import RunStatus

_HOST = "127.0.0.1"
_LISTED = 8  # notes
RunArgument = Annotated[Path, Argument(help="a run folder")]


@may_trust
def status(run: RunArgument, tell: Tell) -> None:
    """Show how a study goes on while another process runs it; nothing is locked or changed."""
    from cuvee.study.status import read_status

    found = read_status(run)
    table = show.tabulate_numbers(f"{run}: {tell_state(found)}", list_status(found))
    tell(found, table, *show.list_failed(found.failed, run), *map(console.note, found.notes[-_LISTED:]))


def tell_state(found: RunStatus) -> str:
    """How a run stands, in words."""
    if found.state == "running":
        return f"running, process {found.process}, last written {found.age_s:.0f} s ago"
    return "finished" if found.state == "finished" else "stopped; the same command goes on with it"


def list_status(found: RunStatus) -> list[tuple[str, str] | None]:
    """The progress of a run: names and numbers, None between groups."""
    done = f"{found.done}{'' if found.total is None else f' of {found.total}'}"
    rows: list[tuple[str, str] | None] = [(f"stage {found.stage}, {found.unit}", done)]
    if found.stage_s is not None and found.done and found.total is not None:
        left = found.stage_s * (found.total - found.done) / found.done
        rows.append((f"time left of {found.stage}, about", write_seconds(left)))
    rows += [None, ("draws", found.draws or "chosen once the first trials are timed")]
    rows += [("trials finished", f"{found.trials.done}"), ("trials failed", f"{found.trials.failed}")]
    rows += [] if found.generation is None else [None, *found.generation.list_rows()]
    for name, account in found.others.items():
        rows += [None, *((f"{name.replace('.', ' ')}: {what}", number) for what, number in account.list_rows())]
    rows += [None, *((f"seconds of {stage}", f"{seconds:.1f}") for stage, seconds in found.seconds.items())]
    return rows + ([] if found.stage_s is None else [(f"seconds of {found.stage} so far", f"{found.stage_s:.1f}")])


@expand_options
def watch(
    run: RunArgument,
    port: Annotated[int, Option(min=0, max=65535, help="of this machine; 0: any that is free")] = 0,
) -> None:
    """Serve the page of a study on this machine while it runs: its progress and scores, then its report."""
    from cuvee.study.status import read_status

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
    from cuvee.study.status import gather_progress, read_status

    found, report = read_status(run), run / "report.html"
    if found.state == "finished" and report.is_file():
        return report.read_bytes()
    rows = [row for row in list_status(found) if row] + [("note", note) for note in found.notes[-3:]]
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
            headers = {
                "Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(content)),
                "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
                "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
            }  # fmt: skip
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # the browser left
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing: the address holds the token."""

    return Handler


@may_trust
def ledger(
    run: Annotated[Path, Argument(help="a run folder, or its ledger.sqlite")],
    tell: Tell,
    price_prompt: Annotated[float | None, Option(min=0, help="price of a million tokens of prompts")] = None,
    price_completion: Annotated[float | None, Option(min=0, help="price of a million tokens of answers")] = None,
) -> None:
    """Count the answers in a ledger, their tokens and cost, and the requests that failed for good."""
    from cuvee.generate.ledger import Ledger, check_ledger, summarise
    from cuvee.records import Prices
    from cuvee.store import LEDGER, list_parts

    prices = None
    if price_prompt is not None or price_completion is not None:  # the same for all models; one that is not given is 0
        prices = Prices(prompt_per_million=price_prompt or 0.0, completion_per_million=price_completion or 0.0)
    refused = InputError(f"{run}: no ledger; give a run folder in which something was generated, or its {LEDGER}")
    if not run.is_file():
        from cuvee.study.status import account_folder

        for part in list_parts(run):
            check_ledger(part / LEDGER)
        found = account_folder(run, prices)
        if found is None:
            raise refused
    else:
        with run.open("rb") as stream:
            is_database = stream.read(6) == b"SQLite"
        if not is_database and run.suffix != Path(LEDGER).suffix:  # one that is called a ledger is a damaged one
            raise refused
        with Ledger(run, readonly=True) as opened:
            check_ledger(run)
            found = summarise(opened, prices=prices)
    tell(found, show.tabulate_numbers(str(run), found.list_rows()))
