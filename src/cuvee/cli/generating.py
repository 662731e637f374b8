"""``cuvee generate``: the pools of a study, or rows like those of a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from cuvee.cli import show
from cuvee.cli.app import (
    COLUMNS,
    ENDPOINT,
    IN_STUDY,
    Json,
    Label,
    Out,
    Seed,
    Text,
    app,
    is_study,
    load_rows,
    open_shown,
    refuse_options,
)
from cuvee.corpus import Corpus, write_corpus
from cuvee.errors import ConfigError, InputError
from cuvee.execute import Stages
from cuvee.generate import (
    Budget,
    EmbeddedLLM,
    Endpoint,
    Ledger,
    Pool,
    Sampling,
    SamplingDial,
    generate_corpus,
    write_quarantine,
)
from cuvee.generate.ledger import Session
from cuvee.generate.spending import Meter, list_notes
from cuvee.study.spending import retry_failed as retry_failed_of

_PLAIN = ("rows", "temperature", "describe", "max_tokens", "seed", "ledger", "quarantine", "concurrency")
_BUDGET = ("budget_requests", "budget_tokens")


@app.command()
def generate(
    ctx: typer.Context,
    target: Annotated[Path, typer.Argument(help="study.yaml or a run folder; or a file of real rows")],
    rows: Annotated[int, typer.Option("--rows", min=1, help="of each label, from a file of real rows")] = 12,
    temperature: Annotated[float, typer.Option("--temperature", min=0, max=5)] = 0.7,
    describe: Annotated[str, typer.Option("--describe", help="what the texts are: news headlines")] = "examples",
    base_url: Annotated[str | None, typer.Option("--base-url", help="an OpenAI-compatible endpoint")] = None,
    model: Annotated[str, typer.Option("--model", help="at the endpoint")] = "",
    api: Annotated[str, typer.Option("--api", help="chat or completions")] = "chat",
    api_key_env: Annotated[str | None, typer.Option("--api-key-env", help="variable that holds the key")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1)] = 48,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, help="most requests under way at once; adapts if not given")
    ] = None,
    budget_requests: Annotated[
        int | None, typer.Option("--budget-requests", min=0, help="most requests, of all runs with this ledger")
    ] = None,
    budget_tokens: Annotated[
        int | None, typer.Option("--budget-tokens", min=0, help="most tokens, of all runs with this ledger")
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(
            "--ledger",
            help="keeps every answer, always: a rerun, with more rows too, sends only what is missing "
            "[default: OUT.ledger.sqlite]",
            show_default=False,
        ),
    ] = None,
    quarantine: Annotated[
        Path | None,
        typer.Option(
            "--quarantine",
            help="rejected answers and failed requests, if there are any [default: OUT.quarantine.jsonl]",
            show_default=False,
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="ask again what failed for good in earlier runs")
    ] = False,
    out: Out = None,
    text: Text = None,
    label: Label = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Generate the pools of a study; or rows like those of a file, at one temperature."""
    if is_study(target):
        refuse_options(ctx, [*ENDPOINT, *COLUMNS, *_PLAIN, *_BUDGET], IN_STUDY)
        made = _generate_study(target, out, retry_failed)
    else:
        if base_url is None:
            refuse_options(ctx, ["model", "api", "api_key_env", "concurrency"], "it goes with --base-url")
        path = out or Path("synthetic.jsonl")
        files = Files(
            rows=path,
            ledger=ledger or path.with_suffix(".ledger.sqlite"),
            quarantine=quarantine or path.with_suffix(".quarantine.jsonl"),
        )
        asking = Asking(
            rows=rows, temperature=temperature, describe=describe, max_tokens=max_tokens, seed=seed, retry=retry_failed
        )
        bounds = Budget(requests=budget_requests, tokens=budget_tokens)
        bounded = budget_requests is not None or budget_tokens is not None
        real = load_rows(target, text, label)
        with ExitStack() as stack:
            endpoint = _endpoint(stack, base_url, model, api, api_key_env)
            endpoint = replace(endpoint, budget=bounds if bounded else None)
            if concurrency is not None:
                endpoint = replace(endpoint, concurrency=concurrency)
            made = _generate_rows(real, endpoint, asking, files)
    if json:
        show.show_json(made)
        return
    for name, found in made.items():
        show.out.print(
            f"{name}: {found['rows']} rows, {found['rejected']} answers rejected {found['note']}", markup=False
        )


Made = Mapping[str, Mapping[str, object]]


def _generate_study(target: Path, out: Path | None, retry: bool) -> Made:
    display = show.Display()
    with open_shown(target, out, display) as flow:
        if retry:
            number = retry_failed_of(flow.study)
            display.noted(f"{number} failed requests are asked again" if number else "no request has failed for good")
        return {
            level.key: {
                "rows": len(p.corpus),
                "rejected": len(p.rejected),
                "failed": len(p.failed),
                "note": p.note,
            }
            for level, p in flow.pools.items()
        }


# --- plain files ----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What is written."""

    rows: Path
    ledger: Path
    quarantine: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What is asked for; ``retry``: also what failed for good before."""

    rows: int
    temperature: float
    describe: str
    max_tokens: int
    seed: int
    retry: bool


def _generate_rows(real: Corpus, endpoint: Endpoint, asking: Asking, files: Files) -> Made:
    dial = SamplingDial(levels=[asking.temperature])
    display = show.Display()
    stages = Stages(display)
    if not files.ledger.parent.is_dir():
        raise InputError(f"{files.ledger}: its folder does not exist; make it, or give another with --ledger or --out")
    with display, stages.stage("generate") as progress, Ledger(files.ledger) as ledger:
        if asking.retry:
            ledger.forget_failures()
        before = ledger.sessions()
        progress.show(Meter(ledger, endpoint.prices))
        pool = generate_corpus(
            real,
            dial=dial,
            level=dial.levels[0].name,
            rows_per_label=asking.rows,
            endpoint=endpoint,
            ledger=ledger,
            sampling=Sampling(max_tokens=asking.max_tokens),
            describe=asking.describe,
            seed=asking.seed,
            progress=progress,
        )
        _note(display, pool, before, ledger.sessions()[len(before) :])
        spent, failed = ledger.totals(), ledger.failures()
    write_corpus(pool.corpus, files.rows)
    if pool.quarantine or files.quarantine.exists():  # what an earlier run left there is true no more
        write_quarantine([pool], files.quarantine)
    return {
        str(files.rows): {
            "rows": len(pool.corpus),
            "rejected": len(pool.rejected),
            "failed": len({q.request_key for q in pool.quarantine} & failed.keys()),
            "note": pool.note,
            "ledger": str(files.ledger),
            "quarantine": str(files.quarantine) if pool.quarantine else None,
            "requests": spent.requests,
            "prompt_tokens": spent.prompt_tokens,
            "completion_tokens": spent.completion_tokens,
        }
    }


def _note(display: show.Display, pool: Pool, before: Sequence[Session], now: Sequence[Session]) -> None:
    """What was found out about the endpoint, once a ledger; and how to ask again what failed."""
    told = {note for session in before for note in list_notes(session.notes, session.unverified)}
    for note in dict.fromkeys(note for session in now for note in list_notes(session.notes, session.unverified)):
        if note not in told:
            display.noted(note)
    if pool.accounting.failed:
        display.noted("failed requests are not asked again, unless with --retry-failed")


def _endpoint(stack: ExitStack, base_url: str | None, model: str, api: str, key_name: str | None) -> Endpoint:
    """The embedded LLM, or the endpoint that was named."""
    if base_url is None:
        return stack.enter_context(EmbeddedLLM()).endpoint
    if api not in ("chat", "completions"):
        raise ConfigError(f"--api is {api!r}; valid: chat, completions")
    key = os.environ.get(key_name) if key_name else None
    if key_name and not key:
        raise ConfigError(f"--api-key-env: the environment variable {key_name} is not set; export it")
    return Endpoint(
        base_url=base_url.rstrip("/"),
        model=model,
        api="chat" if api == "chat" else "completions",
        api_key=key,
        key_name=key_name or "",
    )
