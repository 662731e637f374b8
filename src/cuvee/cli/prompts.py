"""``cuvee prompts``: what the LLM is asked, to read, to copy and to try on rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cuvee.cli import console
from cuvee.cli.options import Json, Label, Text, may_trust, refuse_options
from cuvee.corpus import load_corpus, replace_text
from cuvee.errors import ConfigError
from cuvee.generate.calls import Api, Request, Sampling
from cuvee.generate.dials.slots import Slot, slot_key
from cuvee.generate.prompts import PromptWriter
from cuvee.generate.strata import KINDS, WRITINGS, Kind, find_strata
from cuvee.generate.templates import SUFFIX, PromptSet, load_prompts
from cuvee.registry import nearest_name

_OF_ROWS = ("kind", "text", "label", "context", "describe")
_FORMS: tuple[Api, ...] = ("completions", "chat")


@may_trust
def prompts(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="print this prompt as its file is")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="copy the files to this folder")] = None,
    folder: Annotated[Path | None, typer.Option(help="with the prompts of this folder instead")] = None,
    render: Annotated[Path | None, typer.Option(help="show finished prompts for these real rows")] = None,
    kind: Annotated[str | None, typer.Option(help="what is written: " + ", ".join(KINDS))] = None,
    text: Text = None,
    label: Label = None,
    context: Annotated[str | None, typer.Option(help="column of what is asked about")] = None,
    describe: Annotated[str, typer.Option(help="what the texts are, in the plural")] = "examples",
    json: Json = False,
) -> None:
    """List the prompts, print or copy them, or show them finished for a file of real rows."""
    if render is None:
        refuse_options(ctx, _OF_ROWS, "it goes with --render")
    found = load_prompts(folder)
    names = list(found.files) if name is None else [found.file(name).name]
    if out is not None:
        refuse_options(ctx, ["render", "json"], "--out copies files")
        _copy(found, names, out)
    elif render is not None:
        if name is not None:
            raise ConfigError(f"{name!r} has no effect here: --render shows all prompts of a kind; give --kind")
        _show_finished(found, render, _choose(kind, context), (text, label, context), describe, json=json)
    elif json:
        shown = [found.file(name) for name in names]
        console.show_json(
            {
                "hash": found.hash,
                "prompts": [
                    {"name": f.name, "purpose": f.purpose, "variables": list(f.variables), "text": f.source}
                    for f in shown
                ],
            }
        )
    elif name is not None:
        console.show_text(found.file(name).source)
    else:
        for file in found.files.values():
            console.show_text(f"{file.name:<24} {file.purpose} Variables: {', '.join(file.variables)}\n")


def _copy(found: PromptSet, names: list[str], out: Path) -> None:
    for name in names:
        if (out / f"{name}{SUFFIX}").exists():
            raise ConfigError(f"{out / f'{name}{SUFFIX}'}: already there; choose another folder, or remove it")
    for name in names:
        replace_text(out / f"{name}{SUFFIX}", found.file(name).source)
    console.show_text(
        f"wrote {len(names)} {'file' if len(names) == 1 else 'files'} to {out}; keep those that you change\n"
    )


def _choose(kind: str | None, context: str | None) -> Kind:
    if kind is None:
        return "label" if context is None else "question"
    if kind not in KINDS:
        raise ConfigError(f"--kind {kind!r} is none; {nearest_name(kind, KINDS)}")
    return kind


def _show_finished(
    found: PromptSet, path: Path, kind: Kind, columns: tuple[str | None, str | None, str | None], describe: str, *,
    json: bool,
) -> None:  # fmt: skip
    """The prompts of the first slot of the first stratum, in both forms."""
    text, label, context = columns
    train = load_corpus(path, text=text, label=label, context=context, task=WRITINGS[kind].task)
    strata = find_strata(train, kind)
    first = next(iter(strata))
    slot = Slot(key=slot_key(first, 0, 0), label=first, block=0, number=0, order=0)
    made = {
        api: PromptWriter(
            train, describe=describe, api=api, sampling=Sampling(), seed=0, kind=kind, strata=strata, prompts=found
        ).ask_for_row(slot, 0).request
        for api in _FORMS
    }  # fmt: skip
    parts = _parts(kind, made["completions"], made["chat"])
    if json:
        console.show_json({"kind": kind, "for": first, "schema": made["chat"].schema, "prompts": parts})
        return
    for name, finished in parts.items():
        console.show_text(f"--- {name}\n{finished}\n\n")


def _parts(kind: Kind, completion: Request, chat: Request) -> dict[str, str]:
    said = {f"{kind}_chat_{role}": content for role, content in chat.messages}
    return {f"{kind}_completion": completion.prompt or "", **said}
