"""``cuvee predict``: what a model says of every row of a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer

from cuvee.cli import console
from cuvee.cli.console import Display, Watch
from cuvee.cli.evaluating import (
    NO_USE,
    Context,
    MaxTokens,
    Passages,
    ProbeEncoder,
    Temperature,
    task_of,
)
from cuvee.cli.options import GuardCells, Json, Seed, Text, check_guard, may_trust, refuse_options
from cuvee.corpus import Corpus, load_corpus, write_table
from cuvee.corpus.files import OUTPUTS, read_table
from cuvee.encoders import load_encoder
from cuvee.errors import ConfigError, InputError
from cuvee.evaluate import rank_passages, write_texts
from cuvee.evaluate.retrieval import Ranker
from cuvee.study.judging import load_passages
from cuvee.train import Predictor, load_predictor
from cuvee.train.settings import TextWriter

Advance = Callable[[str, int, int], None]
_CHUNK = 256
_ONLY_RETRIEVAL = ("passage", "top")
_EVALUATION = ("diversity", "per_label")


@may_trust
def predict(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(help="a folder written by cuvee train")],
    file: Annotated[Path, typer.Argument(help="rows to predict; they need no label")],
    out: Annotated[Path, typer.Option("--out", "-o", help="file to write: .parquet, .jsonl or .csv")],
    passages: Passages = None,
    passage: Annotated[str | None, typer.Option(help="column of the passages")] = None,
    top: Annotated[int, typer.Option(min=1, help="passages a query (retrieval)")] = 10,
    max_tokens: MaxTokens = 64,
    temperature: Temperature = 0.0,
    encoder: ProbeEncoder = None,
    text: Text = None,
    context: Context = None,
    guard_cells: GuardCells = True,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Predict every row of a file: its label, its completion, or the passages that fit it best.

    The rows are written as they came, with new columns: predicted and probability, and the probability of each
    label (classification); predicted (generation); rank, predicted and similarity, a row a passage (retrieval).
    """
    if out.suffix not in OUTPUTS:
        raise ConfigError(f"--out {out}: unknown kind of file {out.suffix!r}; use {', '.join(OUTPUTS)}")
    check_guard(ctx, out.suffix)
    predictor = load_predictor(model, encoder=load_encoder(encoder) if encoder else None)
    task = task_of(predictor)
    idle = [name for name in NO_USE[task] if name not in _EVALUATION]
    idle += [] if task == "retrieval" else [*_ONLY_RETRIEVAL]
    idle += [] if task == "classification" else ["encoder"]
    idle += ["seed"] if task != "generation" else []
    refuse_options(ctx, idle, f"{model} is a model for {task}")
    if task == "retrieval" and passages is None:
        raise ConfigError(f"{model} ranks passages; which? give a file of them with --passages")
    rows = load_corpus(file, text=text, context=context, labelled=False, task=task)
    table = read_table(file)
    display = Display()
    with display:
        watch = Watch(display)
        if isinstance(predictor, Predictor):
            made = add_columns(table, label_columns(predictor, rows, watch), file)
        elif isinstance(predictor, TextWriter):
            written = write_texts(
                predictor, rows.prompts, max_tokens=max_tokens, temperature=temperature, seed=seed, watch=watch
            )
            made = add_columns(table, {"predicted": pa.array(written, pa.string())}, file)
        else:
            pool = list(load_passages(passages, passage)) if passages is not None else []
            made = ranked_rows(predictor, rows, pool, table, top=top, file=file, watch=watch)
    write_table(made, out, guard_cells=guard_cells)
    if json:
        console.show_json({"out": str(out), "task": task, "rows": len(rows), "written": made.num_rows})
    else:
        console.out.print(f"predicted {len(rows)} rows of {file}; wrote {out}", soft_wrap=True)


def label_columns(predictor: Predictor, rows: Corpus, watch: Advance) -> dict[str, pa.Array]:
    """Most probable label, its probability, and the probability of each label."""
    parts = []
    for start in range(0, len(rows), _CHUNK):
        stop = min(start + _CHUNK, len(rows))
        parts.append(predictor.predict_proba(rows.texts[start:stop]))
        watch("predict", stop, len(rows))
    proba = np.concatenate(parts)
    best = proba.argmax(axis=1)
    columns = {
        "predicted": pa.array([predictor.labels[i] for i in best.tolist()], pa.string()),
        "probability": pa.array(proba.max(axis=1)),
    }
    return columns | {f"probability_{label}": pa.array(proba[:, i]) for i, label in enumerate(predictor.labels)}


def ranked_rows(
    predictor: Ranker, rows: Corpus, passages: Sequence[str], table: pa.Table, *, top: int, file: Path, watch: Advance
) -> pa.Table:
    """Each row of ``table`` once for each of its best passages."""
    found = rank_passages(predictor, rows.texts, passages, top=top, watch=watch)
    n, width = found.places.shape
    repeated = table.take(pa.array(np.repeat(np.arange(n), width)))
    columns = {
        "rank": pa.array(np.tile(np.arange(1, width + 1), n)),
        "predicted": pa.array([passages[i] for i in found.places.ravel().tolist()], pa.string()),
        "similarity": pa.array(found.similarities.ravel()),
    }
    return add_columns(repeated, columns, file)


def add_columns(table: pa.Table, columns: dict[str, pa.Array], file: Path) -> pa.Table:
    """The table with more columns.

    Raises:
        InputError: it has one of them already.
    """
    taken = next((name for name in columns if name in table.column_names), None)
    if taken is not None:
        raise InputError(f"{file}: has a column {taken!r} already; rename it, since that is what is written")
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table
