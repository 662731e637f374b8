"""Rows like those of a plain file, for ``cuvee generate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cuvee.cli.console import Display
from cuvee.config import TargetConfig
from cuvee.config.generators import check_urls, check_variables
from cuvee.corpus import Corpus, write_corpus
from cuvee.errors import ConfigError, InputError
from cuvee.execute import Progress, Stages
from cuvee.generate import (
    EmbeddedLLM,
    Endpoint,
    GenerationSpec,
    Ledger,
    OpenedLLM,
    Pool,
    SamplingDial,
    TransformersLLM,
    generate_pools,
    generate_to_target,
    write_quarantine,
)
from cuvee.generate.composition import count_rejected
from cuvee.generate.embedded import Room
from cuvee.generate.ledger import Session, check_ledger
from cuvee.generate.spending import Meter, list_notes
from cuvee.store import hold_file
from cuvee.study.targets import make_score, make_target, matched_rows

HF = "hf:"
"""How a transformers model is named where an endpoint's model could be."""
TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
"""Where ``--target`` looks."""
Made = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What is written; ``guard_cells`` of a CSV."""

    rows: Path
    guard_cells: bool
    ledger: Path
    quarantine: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What is asked for; ``retry``: also what failed before; ``target``: at the temperature that reaches it."""

    spec: GenerationSpec
    temperature: float
    retry: bool
    target: TargetConfig | None


def generate_rows(real: Corpus, llm: OpenedLLM, asking: Asking, files: Files) -> Made:
    """Generate, write rows and quarantine, and say what was made."""
    display = Display()
    stages = Stages(display)
    if not files.ledger.parent.is_dir():
        raise InputError(f"{files.ledger}: its folder does not exist; make it, or give another with --ledger or --out")
    with ExitStack() as held:
        for path in (files.rows, files.ledger):
            held.enter_context(hold_file(path))
        check_ledger(files.ledger)
        return _generate(real, llm, asking, files, display, stages)


def _generate(real: Corpus, llm: OpenedLLM, asking: Asking, files: Files, display: Display, stages: Stages) -> Made:
    with display, stages.stage("generate") as progress, Ledger(files.ledger) as ledger:
        if asking.retry:
            ledger.forget_failures()
        before = ledger.sessions()
        progress.show(Meter(ledger, llm.endpoint.prices))
        pool, found = _make_pool(real, llm, asking, ledger, progress)
        _note(display, pool, before, ledger.sessions()[len(before) :])
        spent, failed = ledger.totals(), ledger.failures()
    write_corpus(pool.corpus, files.rows, guard_cells=files.guard_cells)
    if pool.quarantine or files.quarantine.exists():  # what an earlier run left there is true no more
        write_quarantine([pool], files.quarantine)
    return {
        str(files.rows): {
            "rows": len(pool.corpus),
            "rejected": sum(count_rejected(pool.rejected).values()),
            "failed": len({q.request_key for q in pool.quarantine} & failed.keys()),
            "note": "; ".join(part for part in (pool.note, found) if part),
            "ledger": str(files.ledger),
            "quarantine": str(files.quarantine) if pool.quarantine else None,
            "requests": spent.requests,
            "prompt_tokens": spent.prompt_tokens,
            "completion_tokens": spent.completion_tokens,
        }
    }


def _make_pool(real: Corpus, llm: OpenedLLM, asking: Asking, ledger: Ledger, progress: Progress) -> tuple[Pool, str]:
    """The pool at the one temperature, or at that whose pool comes nearest to the target; with what came of it."""
    spec = asking.spec
    if asking.target is None:
        dial = SamplingDial(levels=[asking.temperature])
        (pool,) = generate_pools(real, spec, dial, llm, ledger, progress=progress)
        return pool, ""
    rows = matched_rows(spec.rows_per_label * len(spec.strata(real)))
    score = make_score(asking.target.metric, rows=rows, against=real, seed=spec.seed)
    dial, target = SamplingDial(levels=TEMPERATURES), make_target(asking.target)
    found = generate_to_target(real, spec, dial, llm, ledger, score=score, target=target, progress=progress)
    return found.pool, found.note


def _note(display: Display, pool: Pool, before: Sequence[Session], now: Sequence[Session]) -> None:
    """What was found out about the endpoint, once a ledger; and how to ask again what failed."""
    told = {note for session in before for note in list_notes(session.notes, session.unverified)}
    for note in dict.fromkeys(note for session in now for note in list_notes(session.notes, session.unverified)):
        if note not in told:
            display.noted(note)
    if pool.accounting.failed:
        display.noted("failed requests are not asked again, unless with --retry-failed")


def open_llm(
    stack: ExitStack, base_urls: Sequence[str], model: str, api: str | None, key_name: str | None, *, room: Room
) -> OpenedLLM:
    """The embedded LLM, a transformers model, or the endpoint that was named: one address, or those of replicas.

    Without an address ``model`` is a GGUF file for the embedded LLM, or none.
    """
    if api not in (None, "chat", "completions"):
        raise ConfigError(f"--api is {api!r}; valid: chat, completions")
    if model.startswith(HF):
        llm = stack.enter_context(TransformersLLM(model, api="chat" if api == "chat" else "completions"))
        return OpenedLLM(endpoint=llm.endpoint, open_client=llm.open_client)
    if not base_urls:
        embedded = stack.enter_context(EmbeddedLLM(model or None, slots=room.slots, context=room.context))
        return OpenedLLM(endpoint=embedded.endpoint)
    try:
        first, *others = check_urls(base_urls, key_name)
    except ValueError as exc:
        raise ConfigError(f"--base-url: {exc}") from exc
    key = check_variables([first, *others], key_name, "--")
    return OpenedLLM(
        endpoint=Endpoint(
            base_url=first,
            replicas=tuple(others),
            model=model,
            api="completions" if api == "completions" else "chat",
            api_key=key,
            key_name=key_name or "",
        )
    )
