"""``cuvee mix`` and ``cuvee replace``: which rows stand together."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from cuvee._version import __version__
from cuvee.cli import console, show
from cuvee.cli.console import Display
from cuvee.cli.options import (
    COLUMNS,
    IN_STUDY,
    Columns,
    Group,
    GuardCells,
    Json,
    Label,
    Seed,
    Text,
    check_guard,
    check_output,
    is_study,
    may_trust,
    open_shown,
    refuse_options,
)
from cuvee.corpus import Task, write_corpus
from cuvee.corpus.files import OUTPUTS, check_folder
from cuvee.defects import NoLeaks
from cuvee.errors import ConfigError
from cuvee.hub import is_dataset, push_dataset, write_dataset
from cuvee.mix import Blend, mix_corpora, replace_with_paraphrases
from cuvee.records import Cell, Draw
from cuvee.report import CardFacts, Licences, Reproduction, SyntheticPart, render_card
from cuvee.study.pools import usable_draws
from cuvee.study.trials import mix_cell

_CARD = ("licence", "licence_name", "real_licence", "synthetic_licence", "language", "push", "public")
_FILES_ONLY = (*COLUMNS, "synthetic", "regime", "allow_repeats", "held_out", "task", "context")


@may_trust
def mix(
    ctx: typer.Context,
    real: Annotated[Path, typer.Argument(help="real rows; or study.yaml or a run folder")],
    synthetic: Annotated[Path | None, typer.Argument(help="synthetic rows")] = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="synthetic rows over all rows")] = 0.5,
    regime: Annotated[str, typer.Option(help="augment or replace")] = "augment",
    allow_repeats: Annotated[bool, typer.Option("--allow-repeats", help="draw rows again where too few")] = False,
    held_out: Annotated[
        list[Path] | None, typer.Option(help="validation or test rows, of which the blend may hold none")
    ] = None,
    task: Annotated[str, typer.Option(help="classification, generation or retrieval")] = "classification",
    dial: Annotated[str | None, typer.Option(help="of a study's pool")] = None,
    level: Annotated[str | None, typer.Option(help="of a study's pool")] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Parquet, JSONL or CSV; or a folder: a dataset with its card")
    ] = Path("blend.parquet"),
    guard_cells: GuardCells = False,
    licence: Annotated[str, typer.Option(help="of the dataset, as the hub names it: cc-by-4.0")] = "other",
    licence_name: Annotated[str, typer.Option(help="where the licence is 'other'")] = "unstated",
    real_licence: Annotated[str, typer.Option(help="terms of the real rows, in words")] = "",
    synthetic_licence: Annotated[str, typer.Option(help="terms of the synthetic rows, in words")] = "",
    language: Annotated[list[str] | None, typer.Option(help="of the texts: en")] = None,
    push: Annotated[
        str | None, typer.Option(help="upload the dataset to the hub as NAMESPACE/NAME; needs HF_TOKEN")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="with --push: for all to see")] = False,
    text: Text = None,
    label: Label = None,
    context: Annotated[
        str | None, typer.Option(help="column of what a question is about, for the task generation")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Mix real and synthetic rows at an exact share, and write the blend."""
    _check_choice(ctx, share, regime, task)
    check_guard(ctx, out.suffix)
    is_folder = out.suffix not in OUTPUTS
    if is_folder:
        check_folder(out, replaces=is_dataset)
    else:
        refuse_options(ctx, _CARD, f"{out} is one file; a dataset with its card is a folder, --out FOLDER")
    if push is None:
        refuse_options(ctx, ["public"], "it goes with --push")
    licences = _licences(licence, licence_name, real_licence, synthetic_licence)
    if is_study(real):
        refuse_options(ctx, _FILES_ONLY, IN_STUDY)
        if dial is None or level is None:
            raise ConfigError(f"{real} is a study: which of its pools? give --dial and --level, such as those it plans")
        blend = _mix_study(real, dial, level, share, seed)
    else:
        refuse_options(ctx, ["dial", "level"], "it names a pool of a study; these are plain files")
        if synthetic is None:
            raise ConfigError("which synthetic rows? cuvee mix REAL SYNTHETIC --share 0.5")
        of = cast("Task", task)
        columns = Columns(text, label, task=of, context=context, files=(real, synthetic))
        blend = mix_corpora(
            columns.load(real, labelled=True),
            columns.load(synthetic, origin="synthetic", labelled=True),
            share=share,
            regime="augment" if regime == "augment" else "replace",
            seed=seed,
            allow_repeats=allow_repeats,
        )
        for path in held_out or ():
            other = columns.load(path)
            NoLeaks(other.texts).check(blend.corpus, when=f"of {path}")
    if is_folder:
        card = _card(out.name, blend, licences, language or [], ctx, seed)
        write_dataset(out, blend.corpus, card)
    else:
        write_corpus(blend.corpus, out, guard_cells=guard_cells)
    address = push_dataset(out, push, private=not public) if push is not None else None
    if json:
        console.show_json(
            {
                **show.composition_to_json(blend.composition),
                "effective_rows": blend.effective_rows,
                "path": str(out),
                "pushed": address,
            }
        )
    else:
        show.show_composition(blend.composition)
        if blend.is_weighted:
            console.out.print(blend.weighing, soft_wrap=True)
        console.out.print(f"wrote {out}" + (f"; pushed to {address}" if address else ""))


def _check_choice(ctx: typer.Context, share: float, regime: str, task: str) -> None:
    if regime not in ("augment", "replace"):
        raise ConfigError(f"--regime is {regime!r}; valid: augment, replace")
    if task not in get_args(Task):
        raise ConfigError(f"--task is {task!r}; valid: {', '.join(get_args(Task))}")
    if share == 1 and regime == "augment":
        raise ConfigError(
            "--share 1: augment keeps all real rows, so it is never reached; lower it, or --regime replace"
        )
    if task != "generation":
        refuse_options(ctx, ["context"], f"it is for --task generation, this one is {task}")


def _mix_study(path: Path, dial: str | None, level: str | None, share: float, seed: int) -> Blend:
    with open_shown(path, None, Display()) as flow:
        corpora = {k.key: p.corpus for k, p in flow.pools.items()}
        if f"{dial}={level}" not in corpora:
            raise ConfigError(f"--dial {dial} --level {level}: no such pool; valid: {', '.join(corpora)}")
        cell = Cell(kind="blend", dial=dial, level=level, share=share, rows_per_label=flow.study.rows_per_label)
        draws = {k.key: blocks for k, blocks in usable_draws(flow.study, flow.pools).items()}
        if not draws.get(f"{dial}={level}"):
            raise ConfigError(f"--dial {dial} --level {level}: its pool fills no draw that the others of its dial fill")
        first = draws[f"{dial}={level}"][0]
        return mix_cell(flow.study, corpora, cell, Draw(generation=first, sampling=seed, training=0))


def _licences(licence: str, name: str, real: str, synthetic: str) -> Licences:
    try:
        return Licences(blend=licence, name=name, real=real, synthetic=synthetic)
    except ValueError as exc:
        raise ConfigError(f"--licence: {exc}") from exc


def _card(name: str, blend: Blend, licences: Licences, languages: list[str], ctx: typer.Context, seed: int) -> str:
    corpus = blend.corpus
    models = sorted({g for g in corpus.table["generator"].to_pylist() if g})
    try:
        facts = CardFacts(
            name=name,
            version=__version__,
            task=corpus.task,
            languages=languages,
            licences=licences,
            reproduction=Reproduction(
                command=shlex.join(["cuvee", *cast("list[str]", ctx.obj)]),
                seed=seed,
                fingerprints={"blend": corpus.fingerprint},
            ),
        )
    except ValueError as exc:
        raise ConfigError(f"--language: {exc}") from exc
    weights = blend.weighing if blend.is_weighted else ""
    return render_card(facts, blend.composition, synthetic=SyntheticPart(model=", ".join(models)), weights=weights)


def replace(
    ctx: typer.Context,
    base: Annotated[Path, typer.Argument(help="rows of which some are replaced")],
    paraphrases: Annotated[Path, typer.Argument(help="paraphrases of rows of BASE")],
    m_p: Annotated[int, typer.Option(min=0, help="paraphrases of each source row")],
    r: Annotated[int, typer.Option(min=1, help="source rows of each label")] = 2,
    max_m_p: Annotated[
        int | None, typer.Option(min=0, help="the largest --m-p of a series, so that its members nest")
    ] = None,
    group: Group = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet, JSONL or CSV")] = Path("replaced.parquet"),
    guard_cells: GuardCells = False,
    text: Text = None,
    label: Label = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Let m_p paraphrases of each of r rows of a label stand in for other rows; --group names the source row."""
    check_output(out)
    check_guard(ctx, out.suffix)
    if max_m_p is not None and max_m_p < m_p:
        raise ConfigError(f"--max-m-p {max_m_p} is below --m-p {m_p}; give the largest --m-p of the series")
    files = (base, paraphrases)
    made = replace_with_paraphrases(
        Columns(text, label, files=files).load(base, labelled=True),
        Columns(text, label, group, files=files).load(paraphrases, origin="synthetic", labelled=True),
        m_p=m_p,
        r=r,
        seed=seed,
        max_m_p=max_m_p,
    )
    write_corpus(made.corpus, out, guard_cells=guard_cells)
    if json:
        console.show_json(
            {
                "path": str(out),
                "rows": len(made.corpus),
                "m_p": made.m_p,
                "r": made.r,
                "m_r": made.m_r,
                "labels": {name: asdict(found) for name, found in made.labels.items()},
                "unused": dict(made.unused),
            }
        )
    else:
        console.out.print(f"{made}\nwrote {out}")
