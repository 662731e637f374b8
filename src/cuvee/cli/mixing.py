"""``cuvee mix`` and ``cuvee replace``: which rows stand together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from dataclasses import replace as change
from pathlib import Path
from typing import Annotated, get_args

import typer

from cuvee.cli import console, show
from cuvee.cli.console import Display
from cuvee.cli.options import (
    IN_STUDY,
    PLAIN,
    UNGROUPED,
    Columns,
    Hub,
    OutFile,
    Output,
    Seed,
    check_guard,
    choose_name,
    expand_options,
    is_study,
    may_trust,
    open_shown,
    option_names,
    refuse_options,
    told_command,
)
from cuvee.corpus import write_corpus
from cuvee.corpus.files import OUTPUTS, check_folder
from cuvee.defects import NoLeaks
from cuvee.errors import ConfigError
from cuvee.hub import is_dataset, push_dataset, write_dataset
from cuvee.mix import Blend, mix_corpora, replace_with_paraphrases
from cuvee.records import Cell, Draw, Regime
from cuvee.report import CardFacts, Reproduction, SyntheticPart, render_card
from cuvee.study.pools import usable_draws
from cuvee.study.trials import mix_cell


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How rows are mixed; ``dial`` and ``level`` name a pool of a study."""

    share: Annotated[float, typer.Option(min=0, max=1, help="synthetic rows over all rows")] = 0.5
    regime: Annotated[str, typer.Option(help="augment or replace")] = "augment"
    allow_repeats: Annotated[bool, typer.Option("--allow-repeats", help="draw rows again where too few")] = False
    held_out: Annotated[
        list[Path] | None, typer.Option(help="validation or test rows, of which the blend may hold none")
    ] = None
    dial: Annotated[str | None, typer.Option(help="of a study's pool")] = None
    level: Annotated[str | None, typer.Option(help="of a study's pool")] = None


@dataclass(frozen=True, kw_only=True)
class BlendOutput(Output):
    """A file of a blend, or a folder of it with its card."""

    out: Annotated[
        Path, typer.Option("--out", "-o", help="Parquet, JSONL or CSV; or a folder: a dataset with its card")
    ] = Path("blend.parquet")


@may_trust
def mix(
    ctx: typer.Context,
    real: Annotated[Path, typer.Argument(help="real rows; or study.yaml or a run folder")],
    how: Mixing,
    hub: Hub,
    columns: Annotated[Columns, UNGROUPED],
    output: BlendOutput,
    synthetic: Annotated[Path | None, typer.Argument(help="synthetic rows")] = None,
    seed: Seed = 0,
) -> None:
    """Mix real and synthetic rows at an exact share, and write the blend."""
    out, regime = output.out, choose_name(how.regime, get_args(Regime), "--regime")
    if how.share == 1 and regime == "augment":
        raise ConfigError(
            "--share 1: augment keeps all real rows, so it is never reached; lower it, or --regime replace"
        )
    columns = columns.checked(ctx, real, synthetic)
    check_guard(ctx, out.suffix)
    is_folder = out.suffix not in OUTPUTS
    if is_folder:
        check_folder(out, replaces=is_dataset)
    else:
        refuse_options(ctx, option_names(Hub), f"{out} is one file; a dataset with its card is a folder, --out FOLDER")
    card = hub.describe(ctx, out.name)
    if is_study(real):
        refuse_options(ctx, [*UNGROUPED, "synthetic", "regime", "allow_repeats", "held_out"], IN_STUDY)
        blend = _mix_study(real, how, seed)
    else:
        refuse_options(ctx, ["dial", "level"], "it names a pool of a study; these are plain files")
        if synthetic is None:
            raise ConfigError("which synthetic rows? cuvee mix REAL SYNTHETIC --share 0.5")
        blend = mix_corpora(
            columns.load(real, labelled=True),
            columns.load(synthetic, origin="synthetic", labelled=True),
            share=how.share,
            regime=regime,
            seed=seed,
            allow_repeats=how.allow_repeats,
        )
        for path in how.held_out or ():
            NoLeaks(columns.load(path).texts).check(blend.corpus, when=f"of {path}")
    if is_folder:
        made = Reproduction(command=told_command(ctx), seed=seed, fingerprints={"blend": blend.corpus.fingerprint})
        write_dataset(out, blend.corpus, _render_card(change(card, reproduction=made), blend))
    else:
        write_corpus(blend.corpus, out, guard_cells=output.guard_cells)
    address = push_dataset(out, hub.push, private=not hub.public) if hub.push is not None else None
    if output.json:
        made_of = show.composition_to_json(blend.composition)
        console.show_json({**made_of, "effective_rows": blend.effective_rows, "path": str(out), "pushed": address})
    else:
        show.show_composition(blend.composition)
        if blend.is_weighted:
            console.out.print(blend.weighing, soft_wrap=True)
        console.out.print(f"wrote {out}" + (f"; pushed to {address}" if address else ""))


def _mix_study(path: Path, how: Mixing, seed: int) -> Blend:
    if how.dial is None or how.level is None:
        raise ConfigError(f"{path} is a study: which of its pools? give --dial and --level, such as those it plans")
    pool = f"{how.dial}={how.level}"
    with open_shown(path, None, Display()) as flow:
        known = [level.key for level in flow.pools]
        if pool not in known:
            raise ConfigError(f"--dial {how.dial} --level {how.level}: no such pool; valid: {', '.join(known)}")
        cell = Cell(
            kind="blend", dial=how.dial, level=how.level, share=how.share, rows_per_label=flow.study.rows_per_label
        )
        draws = {k.key: blocks for k, blocks in usable_draws(flow.study, flow.pools).items()}
        if not draws.get(pool):
            raise ConfigError(
                f"--dial {how.dial} --level {how.level}: its pool fills no draw that the others of its dial fill"
            )
        first = draws[pool][0]
        return mix_cell(flow.study, flow.pools, cell, Draw(generation=first, sampling=seed, training=0))


def _render_card(facts: CardFacts, blend: Blend) -> str:
    models = sorted({g for g in blend.corpus.table["generator"].to_pylist() if g})
    return render_card(
        change(facts, task=blend.corpus.task),
        blend.composition,
        synthetic=SyntheticPart(model=", ".join(models)),
        weights=blend.weighing if blend.is_weighted else "",
    )


@dataclass(frozen=True, kw_only=True)
class Replacing:
    """How many rows paraphrases stand in for: m_p of each of r source rows of a label."""

    m_p: Annotated[int, typer.Option(min=0, help="paraphrases of each source row")]
    r: Annotated[int, typer.Option(min=1, help="source rows of each label")] = 2
    max_m_p: Annotated[
        int | None, typer.Option(min=0, help="the largest --m-p of a series, so that its members nest")
    ] = None


@dataclass(frozen=True, kw_only=True)
class ReplacedOutput(Output):
    """A file of rows of which some were replaced."""

    out: OutFile = Path("replaced.parquet")


@expand_options
def replace(
    ctx: typer.Context,
    base: Annotated[Path, typer.Argument(help="rows of which some are replaced")],
    paraphrases: Annotated[Path, typer.Argument(help="paraphrases of rows of BASE")],
    how: Replacing,
    columns: Annotated[Columns, PLAIN],
    output: ReplacedOutput,
    seed: Seed = 0,
) -> None:
    """Let m_p paraphrases of each of r rows of a label stand in for other rows; --group names the source row."""
    output.check(ctx)
    if how.max_m_p is not None and how.max_m_p < how.m_p:
        raise ConfigError(f"--max-m-p {how.max_m_p} is below --m-p {how.m_p}; give the largest --m-p of the series")
    columns = columns.checked(ctx, base, paraphrases)
    made = replace_with_paraphrases(
        change(columns, group=None).load(base, labelled=True),
        columns.load(paraphrases, origin="synthetic", labelled=True),
        m_p=how.m_p,
        r=how.r,
        seed=seed,
        max_m_p=how.max_m_p,
    )
    write_corpus(made.corpus, output.out, guard_cells=output.guard_cells)
    if output.json:
        told = {name: getattr(made, name) for name in ("m_p", "r", "m_r")}
        labels = {name: asdict(found) for name, found in made.labels.items()}
        rows = {"path": str(output.out), "rows": len(made.corpus)}
        console.show_json({**rows, **told, "labels": labels, "unused": dict(made.unused)})
    else:
        console.out.print(f"{made}\nwrote {output.out}")
