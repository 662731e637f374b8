"""``cuvee doctor``: what is installed here, and whether the LLM answers."""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated

import typer

from cuvee._version import __version__
from cuvee.cli.generating import Answering
from cuvee.cli.options import Tell, expand_options
from cuvee.config.generators import EndpointGenerator, LanguageModel
from cuvee.config.opening import open_model
from cuvee.encoders import DEFAULT_ENCODER, find_minilm, resolve_encoder
from cuvee.errors import CuveeError, MissingDependency
from cuvee.generate.calls import Failure, Request, Sampling
from cuvee.generate.ledger import Ledger
from cuvee.model_files import find_smollm2
from cuvee.similarity.backends import find_accelerator

_EXTRA = re.compile(r"""([\w.-]+).*extra == ['"](\w+)['"]""")
_GIVE_UP_S = 10.0
_QUESTION = "Name a colour."


@expand_options
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
    has_memory = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    memory = (
        f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB memory" if has_memory else ""
    )
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
