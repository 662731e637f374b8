"""The dataset card of a recommended blend: README.md with the YAML front matter the hub reads."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from cuvee.records import Advice, Composition, Measurement


def render_card(
    *,
    name: str,
    advice: Advice,
    composition: Composition,
    generator: str,
    measurement: Measurement | None,
    rejected: Mapping[str, int],
    version: str,
) -> str:
    """Markdown of the card.

    Args:
        name: of the study.
        advice: whose best cell the blend is, if it recommends one.
        composition: of the blend, as realised.
        generator: who wrote the synthetic rows ("none" where there are none).
        measurement: of the pool the synthetic rows come from.
        rejected: reason -> rows left out of that pool.
        version: of Cuvée.
    """
    size = "n<1K" if composition.rows < 1000 else "1K<n<10K" if composition.rows < 10_000 else "n>10K"
    front = {
        "pretty_name": f"{name} blend",
        "task_categories": ["text-classification"],
        "size_categories": [size],
        "license": "other",
        "license_name": "unstated",
        "tags": ["synthetic", "cuvee"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train.parquet"}]}],
    }
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        "",
        f"# {name} blend",
        "",
        f"**Verdict: {advice.decision}.** {advice.sentence}",
        "",
        "## Composition",
        "",
        f"- {composition.rows} rows: {composition.real_rows} real, {composition.synthetic_rows} synthetic "
        f"(share {composition.share:.3f} as realised)",
        f"- {composition.unique_rows} distinct rows; no row more than {composition.most_repeats} times",
        f"- synthetic rows written by: {generator}",
        "",
        "| label | real | synthetic |",
        "|---|---|---|",
        *(f"| {label} | {real} | {synthetic} |" for label, (real, synthetic) in composition.label_counts.items()),
        "",
    ]
    if measurement is not None:
        lines += [
            f"## The pool behind the synthetic rows ({measurement.name}, n = {measurement.n})",
            "",
            f"Encoder {measurement.encoder} ({measurement.encoder_hash[:12]}), seed {measurement.seed}.",
            "",
            "| metric | value | low | high |",
            "|---|---|---|---|",
            *(f"| {key} | {e.value:.4g} | {_cell(e.low)} | {_cell(e.high)} |" for key, e in measurement.values.items()),
            "",
        ]
    if rejected:
        lines += ["## Left out of the pool", "", "| reason | rows |", "|---|---|"]
        lines += [f"| {reason} | {count} |" for reason, count in sorted(rejected.items())]
        lines += [""]
    lines += [
        "## Licence",
        "",
        "Real rows keep the licence of the data they come from; synthetic rows are subject to the terms of the "
        "model that wrote them. Fill in `license` above before you share this.",
        "",
        "## How to reproduce",
        "",
        f"`cuvee run study.yaml` with the study.yaml of this run folder (Cuvée {version}).",
        "",
    ]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
