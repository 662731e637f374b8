"""What ``cuvee select`` did, for the terminal and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from cuvee.cli import console
from cuvee.corpus import label_strata
from cuvee.mix import Filtered, Selection


def show_selected(
    filtered: Filtered,
    chosen: list[Selection] | None,
    paths: list[Path],
    json: bool,
) -> None:
    """Print what filters removed, what was chosen, and where it was written; or all of it as JSON."""
    if json:
        console.show_json(
            {
                "filters": [{**asdict(step), "reasons": dict(step.reasons)} for step in filtered.steps],
                "selections": [
                    {
                        "name": part.name,
                        "path": str(path),
                        "rows": len(part.rows),
                        "values": dict(part.values),
                        "length_difference": part.length_difference,
                        "label_counts": dict(sorted(Counter(label_strata(part.corpus)).items())),
                        "note": part.note,
                    }
                    for part, path in zip(chosen or [], paths, strict=False)
                ],
                "paths": [str(path) for path in paths],
            }
        )
        return
    console.out.print(str(filtered))
    if chosen is not None:
        console.out.print(_table(chosen))
        for note in dict.fromkeys(part.note for part in chosen if part.note):
            console.out.print(f"note: {note}")
    console.out.print(f"wrote {', '.join(map(str, paths))}")


def _table(chosen: list[Selection]) -> Table:
    table = console.make_table(None, "selection")
    names = list(chosen[0].values)
    for column in ("rows", *names, "length differs, SD"):
        table.add_column(column, justify="right", no_wrap=True)
    for part in chosen:
        numbers = [f"{part.values[name]:.4g}" for name in names]
        table.add_row(part.name, f"{len(part.rows)}", *numbers, f"{part.length_difference:.3f}")
    return table
