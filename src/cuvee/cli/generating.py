"""``cuvee generate``: the pools of a study, or rows like those of a file."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, get_args

import typer

from cuvee.cli import console
from cuvee.cli.console import Display
from cuvee.cli.options import (
    COLUMNS,
    ENDPOINT,
    IN_STUDY,
    GuardCells,
    Json,
    Label,
    Out,
    Seed,
    Text,
    check_guard,
    check_output,
    choose_name,
    is_study,
    may_trust,
    open_shown,
    refuse_options,
)
from cuvee.cli.plain_rows import HF, Asking, Files, Made, generate_rows, open_llm
from cuvee.config import parse_target
from cuvee.corpus import Task, load_corpus
from cuvee.generate import AcceptanceRules, Budget, GenerationSpec, Sampling
from cuvee.generate.composition import count_rejected
from cuvee.generate.embedded import LONG_TEXTS, SHORT_TEXTS
from cuvee.generate.strata import KINDS
from cuvee.generate.templates import load_prompts
from cuvee.study.spending import retry_failed as retry_failed_of
from cuvee.study.writing import read_sources

_PLAIN = (
    *("rows", "temperature", "describe", "max_tokens", "seed", "ledger", "quarantine", "concurrency"),
    *("target", "tolerance", "context_size", "task", "kind", "context", "sources", "sources_column", "prompts"),
    *("near_duplicate", "guard_cells"),
)
_BUDGET = ("budget_requests", "budget_tokens")


@may_trust
def generate(
    ctx: typer.Context,
    data: Annotated[Path, typer.Argument(help="study.yaml or a run folder; or a file of real rows")],
    rows: Annotated[int, typer.Option(min=1, help="of each label, passage or context, from a file of real rows")] = 12,
    temperature: Annotated[float, typer.Option(min=0, max=5)] = 0.7,
    describe: Annotated[str, typer.Option(help="what the texts are: news headlines")] = "examples",
    base_url: Annotated[
        list[str] | None,
        typer.Option(help="an OpenAI-compatible endpoint; again for each replica of the same model"),
    ] = None,
    model: Annotated[
        str,
        typer.Option(help="at the endpoint; without one FILE.gguf, or hf:PATH, hf:NAME for transformers"),
    ] = "",
    api: Annotated[
        str | None,
        typer.Option(help="chat or completions [default: chat, with hf: completions]", show_default=False),
    ] = None,
    api_key_env: Annotated[str | None, typer.Option(help="variable that holds the key")] = None,
    max_tokens: Annotated[int, typer.Option(min=1)] = 48,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="most requests under way at once; adapts if not given")
    ] = None,
    budget_requests: Annotated[
        int | None, typer.Option(min=0, help="most requests, of all runs with this ledger")
    ] = None,
    budget_tokens: Annotated[int | None, typer.Option(min=0, help="most tokens, of all runs with this ledger")] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(
            help="keeps every answer, always: a rerun, with more rows too, sends only what is missing "
            "[default: OUT.ledger.sqlite]",
            show_default=False,
        ),
    ] = None,
    quarantine: Annotated[
        Path | None,
        typer.Option(
            help="rejected answers and failed requests, if there are any [default: OUT.quarantine.jsonl]",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="search the temperature for a measured diversity: vendi=12")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="how far off --target is near enough; 5% if not given")
    ] = None,
    task: Annotated[str, typer.Option(help="classification, generation or retrieval")] = "classification",
    kind: Annotated[str | None, typer.Option(help=f"what is written: {', '.join(KINDS)}")] = None,
    context: Annotated[str | None, typer.Option(help="column of what questions are asked about")] = None,
    sources: Annotated[Path | None, typer.Option(help="file of passages or contexts to write about")] = None,
    sources_column: Annotated[
        str | None, typer.Option(help="of --sources: which column; a usual name if not given")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="folder of prompts of your own")] = None,
    near_duplicate: Annotated[
        float | None,
        typer.Option(min=0.5, max=1, help="Jaccard similarity from which a text repeats another"),
    ] = None,
    context_size: Annotated[
        int | None,
        typer.Option(min=64, help="tokens of prompt and answer that the embedded LLM has room for"),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="ask again what failed for good in earlier runs")
    ] = False,
    out: Out = None,
    guard_cells: GuardCells = False,
    text: Text = None,
    label: Label = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Generate the pools of a study; or rows like those of a file, at one temperature."""
    if is_study(data):
        refuse_options(ctx, [*ENDPOINT, *COLUMNS, *_PLAIN, *_BUDGET], IN_STUDY)
        made = _generate_study(data, out, retry_failed)
    else:
        _check_options(ctx, bool(base_url), model, target, has_sources=sources is not None)
        if task != "generation":
            refuse_options(ctx, ["context"], f"it is for --task generation, this one is {task}")
        path = out or Path("synthetic.jsonl")
        check_output(path)
        check_guard(ctx, path.suffix)
        files = Files(
            rows=path,
            guard_cells=guard_cells,
            ledger=ledger or path.with_suffix(".ledger.sqlite"),
            quarantine=quarantine or path.with_suffix(".quarantine.jsonl"),
        )
        real = load_corpus(
            data, text=text, label=label, context=context, task=choose_name(task, get_args(Task), "--task")
        )
        wanted = None if target is None else parse_target(target, tolerance=tolerance)
        spec = GenerationSpec(
            rows_per_label=rows,
            sampling=Sampling(max_tokens=max_tokens),
            describe=describe,
            seed=seed,
            kind=None if kind is None else choose_name(kind, KINDS, "--kind"),
            sources=None if sources is None else read_sources(sources, sources_column, option="--sources-column"),
            prompts=load_prompts(prompts),
            rules=AcceptanceRules(near_duplicate=near_duplicate),
        )
        asking = Asking(spec=spec, temperature=temperature, retry=retry_failed, target=wanted)
        bounds = Budget(requests=budget_requests, tokens=budget_tokens)
        bounded = budget_requests is not None or budget_tokens is not None
        with ExitStack() as stack:
            room = SHORT_TEXTS if task == "classification" else LONG_TEXTS
            room = replace(room, context=context_size) if context_size is not None else room
            llm = open_llm(stack, base_url or [], model, api, api_key_env, room=room)
            endpoint = replace(llm.endpoint, budget=bounds if bounded else None)
            if concurrency is not None:
                endpoint = replace(endpoint, concurrency=concurrency)
            made = generate_rows(real, replace(llm, endpoint=endpoint), asking, files)
    if json:
        console.show_json(made)
        return
    for name, found in made.items():
        console.out.print(f"{name}: {found['rows']} rows, {found['rejected']} answers rejected {found['note']}")


def _generate_study(target: Path, out: Path | None, retry: bool) -> Made:
    display = Display()
    with open_shown(target, out, display) as flow:
        if retry:
            number = sum(retry_failed_of(part.study) for part in flow.parts)
            display.noted(f"{number} failed requests are asked again" if number else "no request has failed for good")
        folds = [""] if len(flow.parts) == 1 else [f"fold {k + 1}: " for k in range(len(flow.parts))]
        _ = flow.pools  # of all parts, each told as it is made
        return {
            f"{fold}{level.key}": {
                "rows": len(p.corpus),
                "rejected": sum(count_rejected(p.rejected).values()),
                "failed": len(p.failed),
                "note": p.note,
            }
            for fold, part in zip(folds, flow.parts, strict=True)
            for level, p in part.pools.items()
        }


def _check_options(
    ctx: typer.Context, has_endpoint: bool, model: str, target: str | None, *, has_sources: bool
) -> None:
    """Refuse options that would have no effect."""
    if not has_sources:
        refuse_options(ctx, ["sources_column"], "it goes with --sources")
    if model.startswith(HF) or has_endpoint:
        refuse_options(ctx, ["context_size"], "it is for the embedded LLM")
    if model.startswith(HF):
        refuse_options(ctx, ["base_url", "api_key_env", "concurrency", *_BUDGET], f"{model} needs no endpoint")
    elif not has_endpoint:
        if not model.endswith(".gguf"):
            refuse_options(ctx, ["model"], "it goes with --base-url, or is FILE.gguf or hf:NAME")
        refuse_options(ctx, ["api", "api_key_env", "concurrency"], "it goes with --base-url, or with --model hf:...")
    if target is None:
        refuse_options(ctx, ["tolerance"], "it goes with --target")
    else:
        refuse_options(ctx, ["temperature"], "--target searches the temperature")
