"""``cuvee generate``, ``prompts`` and ``doctor``: rows that an LLM writes, what it is asked, and whether it answers."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from typer import Argument, Option

from cuvee._version import __version__
from cuvee.cli import console, options
from cuvee.cli.options import Columns, GuardCells, Out, Tell, check_pairs, may_trust, refuse_options
from cuvee.config.dials import parse_target
from cuvee.config.generators import EmbeddedGenerator, EndpointGenerator, LanguageModel, TransformersGenerator
from cuvee.config.opening import open_model
from cuvee.corpus import Corpus, replace_text, write_corpus
from cuvee.encoders import DEFAULT_ENCODER, find_minilm, resolve_encoder
from cuvee.errors import ConfigError, CuveeError, InputError, MissingDependency
from cuvee.execute import StageCounter, Stages
from cuvee.generate.calls import Api, Failure, Request, Sampling
from cuvee.generate.client import OpenedLLM
from cuvee.generate.dials import SamplingDial
from cuvee.generate.filling import AcceptanceRules
from cuvee.generate.ledger import Ledger, check_ledger, tell_spending
from cuvee.generate.parsing import Kind
from cuvee.generate.pools import GenerationSpec, Pool, count_rejected, generate_pools, write_quarantine
from cuvee.generate.prompts import SUFFIX, load_prompts
from cuvee.generate.targets import generate_to_target
from cuvee.model_files import find_smollm2
from cuvee.similarity.backends import find_accelerator
from cuvee.store import StoredPool, hold_file
from cuvee.study.generation import make_score, matched_rows, note_findings, retry_failed
from cuvee.study.prepare import read_sources

TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)  # where ``--target`` looks
_LEDGER = "keeps every answer: a rerun, with more rows too, sends only what is missing [default: OUT.ledger.sqlite]"
_QUARANTINE = "rejected answers and failed requests, if there are any [default: OUT.quarantine.jsonl]"
_ONLY_ENDPOINT = ("api_key_env", "concurrency", "budget_requests", "budget_tokens", "omit", "extra", "system")
Made = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, kw_only=True)
class Asking:
    """What is asked for, from a file of real rows."""

    rows: Annotated[int, Option(min=1, help="rows to write for each label, passage or context")] = 12
    temperature: Annotated[float, Option(min=0, max=5)] = 0.7
    target: Annotated[str | None, Option(help="find the temperature of this diversity: vendi=12")] = None
    tolerance: Annotated[float | None, Option(min=0, help="largest distance from --target [default: 5%]")] = None
    describe: Annotated[str, Option(help="what the texts are: news headlines")] = "examples"
    max_tokens: Annotated[int, Option(min=1)] = 48
    rows_per_request: Annotated[int, Option(min=1, max=50, help="rows of a label that one request asks for")] = 1
    kind: Annotated[Kind | None, Option(help="what is written")] = None
    sources: Annotated[Path | None, Option(help="file of passages or contexts to write about")] = None
    sources_column: Annotated[str | None, Option(help="column of the texts in --sources, if it is not found")] = None
    prompts: Annotated[Path | None, Option(help="folder of your own prompts")] = None
    grounded: Annotated[float | None, Option(min=0, max=1, help=options.GROUNDED)] = None
    seed: options.Seed = 0

    def specify(self, ctx: typer.Context) -> GenerationSpec:
        """The rows that are wanted."""
        check_pairs(ctx, sources_column="sources", tolerance="target")
        if self.target is not None:
            refuse_options(ctx, ["temperature"], "--target searches the temperature")
        given, column = self.sources, self.sources_column
        sources = None if given is None else read_sources(given, column, option="--sources-column")
        return GenerationSpec(
            rows_per_label=self.rows,
            sampling=Sampling(max_tokens=self.max_tokens),
            describe=self.describe,
            seed=self.seed,
            kind=self.kind,
            sources=sources,
            prompts=load_prompts(self.prompts),
            rows_per_request=self.rows_per_request,
            rules=AcceptanceRules(grounded=self.grounded),
        )

    def make_pool(
        self, real: Corpus, spec: GenerationSpec, llm: OpenedLLM, ledger: Ledger, progress: StageCounter
    ) -> tuple[Pool, str]:
        """The pool at the temperature, or at the one nearest to the target; and a note on the search."""
        if self.target is None:
            dial = SamplingDial(levels=[self.temperature])
            (pool,) = generate_pools(real, spec, dial, llm, ledger, progress=progress)
            return pool, ""
        wanted = parse_target(self.target, tolerance=self.tolerance)
        rows = matched_rows(spec.rows_per_label * len(spec.strata(real)))
        score = make_score(wanted.metric, rows=rows, against=real, seed=spec.seed)
        dial, target = SamplingDial(levels=TEMPERATURES), wanted.target()
        found = generate_to_target(real, spec, dial, llm, ledger, score=score, target=target, progress=progress)
        return found.pool, found.note


@dataclass(frozen=True, kw_only=True)
class Answering:
    """The LLM that writes."""

    base_url: Annotated[list[str] | None, Option(help="an OpenAI-compatible endpoint; repeat it for replicas")] = None
    model: Annotated[str, Option(help="name at the endpoint; or FILE.gguf; or hf:PATH, hf:NAME for transformers")] = ""
    api: Annotated[Api | None, Option(help="form of prompts: chat by default; hf: models take completions")] = None
    api_key_env: Annotated[str | None, Option(help="environment variable that holds the key")] = None
    concurrency: Annotated[int | None, Option(min=1, help="most requests at the same time; adapts if not given")] = None
    budget_requests: Annotated[int | None, Option(min=0, help="most requests, in all runs with this ledger")] = None
    budget_tokens: Annotated[int | None, Option(min=0, help="most tokens, in all runs with this ledger")] = None
    omit: Annotated[list[str] | None, Option(help="parameter to leave out, such as seed; can be repeated")] = None
    extra: Annotated[list[str] | None, Option(help="NAME=VALUE to send with every request; can be repeated")] = None
    system: Annotated[str | None, Option(help="merge: put the system message into the user's")] = None

    def choose(self, ctx: typer.Context) -> LanguageModel:
        """The embedded LLM, a transformers model, or the endpoint at one address, or those of replicas."""
        if self.model.startswith(options.HF):
            refuse_options(ctx, ["base_url", *_ONLY_ENDPOINT], f"{self.model} needs no endpoint")
            return TransformersGenerator(kind="transformers", model=self.model, api=self.api or "completions")
        if not self.base_url:
            if not self.model.endswith(".gguf"):
                refuse_options(ctx, ["model"], "it goes with --base-url, or is FILE.gguf or hf:NAME")
            refuse_options(ctx, ["api"], "it goes with --base-url, or with --model hf:...")
            refuse_options(ctx, _ONLY_ENDPOINT, "it goes with --base-url")
            return EmbeddedGenerator(gguf=self.model or None)
        given = {name: getattr(self, name) for name in ("base_url", "model", "api_key_env", "concurrency")}
        given |= {"budget": {"requests": self.budget_requests, "tokens": self.budget_tokens}, "omit": self.omit or ()}
        given |= {"extra_body": _read_extra(self.extra or ()), "system": self.system or "send"}
        try:
            return EndpointGenerator.model_validate({"kind": "endpoint", "api": self.api or "chat", **given})
        except ValidationError as exc:
            error, options_of = exc.errors()[0], {"omit": "omit", "extra_body": "extra", "system": "system"}
            option = next((options_of[str(part)] for part in error["loc"] if str(part) in options_of), "base-url")
            raise ConfigError(f"--{option}: {error['msg'].removeprefix('Value error, ')}") from exc


def _read_extra(given: Sequence[str]) -> dict[str, object]:
    """Parameters with their values: JSON where it is JSON, else text.

    Raises:
        ConfigError: one is not NAME=VALUE, or its value is meant as JSON and is none.
    """
    found: dict[str, object] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not (name.strip() and equals):
            raise ConfigError(f"--extra {pair!r}; give NAME=VALUE, such as enable_thinking=false")
        try:
            found[name.strip()] = json.loads(value)
        except ValueError as exc:
            if value.startswith(("{", "[", '"')) or value in ("True", "False", "None"):
                raise ConfigError(f"--extra {pair!r}: its value is no JSON; write true, false, null or JSON") from exc
            found[name.strip()] = value
    return found


@dataclass(frozen=True, kw_only=True)
class Files(Tell):
    """What is written, and how it is told."""

    out: Out = None
    guard_cells: GuardCells = False
    ledger: Annotated[Path | None, Option(help=_LEDGER, show_default=False)] = None
    quarantine: Annotated[Path | None, Option(help=_QUARANTINE, show_default=False)] = None


@may_trust
def generate(
    ctx: typer.Context,
    data: Annotated[Path, Argument(help="study.yaml or a run folder; or a file of real rows")],
    asking: Asking,
    answering: Answering,
    columns: Annotated[Columns, options.UNGROUPED],
    files: Files,
    again: Annotated[bool, Option("--retry-failed", help="send again what failed for good in earlier runs")] = False,
) -> None:
    """Generate the pools of a study; or rows like those of a file, at one temperature."""
    if options.is_study(data):
        options.refuse_others(ctx, "data", "out", "again")
        made = _generate_study(data, files.out, again)
    else:
        spec, llm = asking.specify(ctx), answering.choose(ctx)
        path = files.out or Path("synthetic.jsonl")
        options.Output(out=path).check(ctx)
        columns = columns.checked(ctx, data)
        ledger, quarantine = path.with_suffix(".ledger.sqlite"), path.with_suffix(".quarantine.jsonl")
        ledger, quarantine = files.ledger or ledger, files.quarantine or quarantine
        if not ledger.parent.is_dir():
            raise InputError(f"{ledger}: its folder does not exist; make it, or give another with --ledger or --out")
        real = columns.load(data, labelled=True)
        if real.task != "generation":
            refuse_options(ctx, ["grounded"], f"it is about answers, and the task {real.task} has none")
        with ExitStack() as held:
            opened = held.enter_context(open_model(llm, real.task, where="--"))
            for file in (path, ledger):
                held.enter_context(hold_file(file))
            check_ledger(ledger)
            pool, told = _fill_pool(real, opened, asking, spec, ledger, again)
            write_corpus(pool.corpus, path, guard_cells=files.guard_cells)
            if pool.quarantine or quarantine.exists():  # what an earlier run left there is true no more
                write_quarantine([pool], quarantine)
        made = {str(path): {**told, "ledger": ledger, "quarantine": quarantine if pool.quarantine else None}}
    lines = (
        f"{name}: {m['rows']} rows; answers rejected: {m['rejected']}{m['note'] and '; '}{m['note']}"
        for name, m in made.items()
    )
    files(made, *lines)


def _fill_pool(
    real: Corpus, llm: OpenedLLM, asking: Asking, spec: GenerationSpec, path: Path, again: bool
) -> tuple[Pool, dict[str, object]]:
    """Ask for the rows, with progress on stderr; the pool, and what is told of it."""
    with console.Display() as display, Stages(display).stage("generate") as progress, Ledger(path) as ledger:
        if again:
            ledger.forget_failures()
        before = ledger.read_met().notes
        progress.show(tell_spending(ledger, llm.endpoint.prices))
        pool, found = asking.make_pool(real, spec, llm, ledger, progress)
        note_findings(display, ledger, before)
        if any(row.failed for row in pool.quarantine):
            display.noted("failed requests are not asked again, unless with --retry-failed")
        spent, failed = ledger.totals(), ledger.failures()
    told = _describe(pool, len({q.request_key for q in pool.quarantine} & failed.keys()), pool.note, found)
    return pool, told | {name: getattr(spent, name) for name in ("requests", "prompt_tokens", "completion_tokens")}


def _describe(pool: Pool | StoredPool, failed: int, *notes: str) -> dict[str, object]:
    rejected = sum(count_rejected(pool.rejected).values())
    return {"rows": len(pool.corpus), "rejected": rejected, "failed": failed, "note": "; ".join(filter(None, notes))}


def _generate_study(target: Path, out: Path | None, again: bool) -> Made:
    with options.open_shown(target, out) as flow:
        if again:
            number = sum(retry_failed(part.study) for part in flow.parts)
            said = f"{number} failed requests are asked again" if number else "no request has failed for good"
            flow.study.stages.listener.noted(said)
        folds = [""] if len(flow.parts) == 1 else [f"fold {k + 1}: " for k in range(len(flow.parts))]
        _ = flow.pools  # of all parts, each told as it is made
        return {
            f"{fold}{level.key}": _describe(p, len(p.failed), p.note)
            for fold, part in zip(folds, flow.parts, strict=True)
            for level, p in part.pools.items()
        }


# --- prompts ---
@options.expand_options
def prompts(
    ctx: typer.Context,
    tell: Tell,
    name: Annotated[str | None, Argument(help="name of a prompt, which is printed as it stands in its file")] = None,
    out: Annotated[Path | None, Option("--out", "-o", help="copy the files to this folder")] = None,
    folder: Annotated[Path | None, Option(help="use the prompts in this folder")] = None,
) -> None:
    """List the prompts, print them, or copy them."""
    found = load_prompts(folder)
    chosen = list(found.files.values()) if name is None else [found.file(name)]
    if out is not None:
        refuse_options(ctx, ["json"], "--out copies files")
        if taken := [file.name for file in chosen if (out / f"{file.name}{SUFFIX}").exists()]:
            raise ConfigError(f"{out / taken[0]}{SUFFIX}: already there; choose another folder, or remove it")
        for file in chosen:
            replace_text(out / f"{file.name}{SUFFIX}", file.source)
        console.out.print(f"wrote to {out}: {', '.join(file.name for file in chosen)}; keep those that you change")
        return
    if tell.json:
        tell({"hash": found.hash, "prompts": {file.name: file.source for file in chosen}})
    elif name is not None:
        console.show_text(chosen[0].source)
    else:
        for file in chosen:
            console.show_text(f"{file.name:<24} {file.purpose} Variables: {', '.join(file.variables)}\n")


# --- doctor ---
_EXTRA = re.compile(r"""([\w.-]+).*extra == ['"](\w+)['"]""")
_GIVE_UP_S = 10.0
_QUESTION = "Name a colour."


@options.expand_options
def doctor(
    ctx: typer.Context,
    answering: Annotated[Answering, ("base_url", "model", "api", "api_key_env", "omit", "extra", "system")],
    tell: Tell,
) -> None:
    """Check the installation, the models, the machine and the LLM; exit code 1 if the LLM does not answer.

    One short question goes to the embedded LLM, or to the endpoint at --base-url, with --model.
    """
    llm = answering.choose(ctx)
    found = dict([*_check_machine(), *_check_extras(), *_check_models()])
    answered = True
    try:
        found["LLM"] = _ask(llm)
    except CuveeError as exc:
        answered, found["LLM"] = False, f"does not answer: {exc}"
    tell(found | {"ok": answered}, *(f"{what:<15} {said}" for what, said in found.items()))
    if not answered:
        raise typer.Exit(1)


def _check_machine() -> Iterator[tuple[str, str]]:
    yield "cuvee", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    known = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB memory" if known else ""
    yield "machine", f"{os.cpu_count()} cores{memory}"
    writable = "" if os.access(".", os.W_OK) else "; this folder cannot be written to: run folders need it"
    yield "disk", f"{shutil.disk_usage('.').free / 2**30:.0f} GiB free here{writable}"
    yield "accelerator", find_accelerator() or "none: models run on the CPU"


def _check_extras() -> Iterator[tuple[str, str]]:
    """What each extra of the package lacks."""
    lacking: dict[str, list[str]] = defaultdict(list)
    for requirement in requires("cuvee") or ():
        if (named := _EXTRA.match(requirement)) is None or named[2] == "dev":
            continue
        lacking[named[2]] += []
        try:
            version(named[1])
        except PackageNotFoundError:
            lacking[named[2]].append(named[1])
    for extra, missing in lacking.items():
        remedy = f"lacks {', '.join(missing)}: pip install 'cuvee[{extra}]'"
        yield f"extra {extra}", remedy if missing else "installed"


def _check_models() -> Iterator[tuple[str, str]]:
    minilm = find_minilm()
    where = "installed" if Path(minilm).is_dir() else f"comes from the hub when it is first used: {minilm}"
    yield "encoder minilm", f"{where}; here it is {resolve_encoder(DEFAULT_ENCODER)}"
    try:
        yield "embedded LLM", f"{find_smollm2().name} is installed"
    except MissingDependency as exc:
        yield "embedded LLM", str(exc)


def _ask(llm: LanguageModel) -> str:
    """One question to the LLM; its answer and the time.

    Raises:
        CuveeError: it cannot be asked, or gives no answer.
    """
    if isinstance(llm, EndpointGenerator):
        llm = llm.model_copy(update={"give_up_s": _GIVE_UP_S})
    with open_model(llm, "classification", where="--") as opened, Ledger() as ledger:
        is_chat, sampling = opened.endpoint.api == "chat", Sampling(max_tokens=16)
        told = ((("user", _QUESTION),), None) if is_chat else ((), _QUESTION)
        request = Request(messages=told[0], prompt=told[1], sampling=sampling, seed=0)
        start = time.perf_counter()
        with opened.open_client(opened.endpoint, ledger) as client:
            (outcome,) = client.answer_requests([request])
        seconds, where = time.perf_counter() - start, opened.endpoint.shown_url
    if isinstance(outcome, Failure):
        raise CuveeError(f"{outcome.reason} {outcome.message}".strip())
    return f"answers within {seconds:.1f} s at {where}: {' '.join(outcome.text.split())[:40]!r}"
