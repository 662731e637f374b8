"""The dataset card of a blend: README.md with the YAML front matter the hub reads.

The front matter follows the hub's specification of dataset cards
(https://github.com/huggingface/hub-docs/blob/main/datasetcard.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from cuvee.characters import to_markdown, visible_lines
from cuvee.corpus import Task
from cuvee.records import Advice, Composition, Estimate, Level, Measurement, MetricNote

DATA_FILE = "train.parquet"
TASK_CATEGORIES: Mapping[Task, str] = {
    "classification": "text-classification",
    "generation": "text-generation",
    "retrieval": "text-retrieval",
}
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+_-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Licences:
    """Under what terms the blend and its parts stand.

    Attributes:
        blend: an identifier that the hub knows (``cc-by-4.0``, ``apache-2.0``), or ``other``.
        name, link: of a licence that is ``other``.
        real, synthetic: terms of each part, in words.
    """

    blend: str = "other"
    name: str = "unstated"
    link: str = ""
    real: str = ""
    synthetic: str = ""

    def __post_init__(self) -> None:
        if not _LICENCE.fullmatch(self.blend):
            raise ValueError(
                f"blend is {self.blend!r}; give a licence identifier of the hub such as 'cc-by-4.0', or 'other' "
                "with a name"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticPart:
    """How the synthetic rows were made.

    Attributes:
        model: that wrote them.
        sampling: parameter -> value.
        levels: dials and levels of the pools that rows come from.
        left_out: reason -> rows that a filter left out, in the order of the filters.
        kept: rows that passed them all; None where it is not known.
    """

    model: str = ""
    sampling: Mapping[str, str | int | float] = field(default_factory=dict)
    levels: tuple[Level, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    kept: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """What gives the same rows again: a command, a seed, and fingerprints of what went in and came out."""

    command: str = ""
    seed: int | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)


def render_card(
    *,
    name: str,
    composition: Composition,
    version: str,
    task: Task = "classification",
    languages: Sequence[str] = (),
    licences: Licences | None = None,
    advice: Advice | None = None,
    generator: str = "",
    synthetic: SyntheticPart | None = None,
    measurement: Measurement | None = None,
    notes: Mapping[str, MetricNote] | None = None,
    rejected: Mapping[str, int] | None = None,
    reproduction: Reproduction | None = None,
    weights: str = "",
) -> str:
    """Markdown of the card; what is not given leaves no section behind.

    Args:
        name: of the study, or of the blend.
        composition: of the blend, as realised.
        version: of Cuvée.
        task: of the rows.
        languages: ISO 639 codes of the texts.
        licences: of the blend and its parts; ``other`` and unstated where not given.
        advice: whose best cell the blend is, if it recommends one.
        generator: who wrote the synthetic rows, in words.
        synthetic: how the synthetic rows were made: model, sampling, dials, filters.
        measurement: of the pool the synthetic rows come from, or of the blend.
        notes: metric -> how to read it.
        rejected: reason -> rows left out, where ``synthetic`` is not given.
        reproduction: how to make the same blend again; without it, the study's command.
        weights: what the weights of its rows come to, in words; empty where all weigh the same.

    Raises:
        ValueError: a language is not an ISO 639 code.
    """
    licences, made = licences or Licences(), synthetic or SyntheticPart(left_out=rejected or {})
    sections = [
        [f"# {to_markdown(name)} blend"],
        [] if advice is None else [f"**Verdict: {advice.decision}.** {to_markdown(advice.sentence)}"],
        [*_composition(composition), *(["", f"**Weights.** {to_markdown(weights)}."] if weights else [])],
        _labels(composition),
        _making(generator if composition.synthetic_rows else "", made, composition),
        _filters(made),
        [] if measurement is None else _measured(measurement, notes or {}),
        _licence(licences, composition),
        _reproduction(reproduction or Reproduction(command="" if advice is None else "cuvee run study.yaml"), version),
    ]
    front = _front_matter(f"{name} blend", composition, task, languages, licences)
    return "\n\n".join([f"---\n{front}\n---", *("\n".join(s) for s in sections if s)]) + "\n"


def is_language(code: str) -> bool:
    """Whether ``code`` has the form of an ISO 639 code, with or without a region."""
    return _LANGUAGE.fullmatch(code) is not None


def size_category(rows: int) -> str:
    """The hub's bucket of dataset sizes that ``rows`` falls into."""
    bounds = [10 ** (3 + k) for k in range(len(_SIZES))]
    place = sum(rows >= bound for bound in bounds)
    if place == 0:
        return f"n<{_SIZES[0]}"
    return f"n>{_SIZES[-1]}" if place == len(_SIZES) else f"{_SIZES[place - 1]}<n<{_SIZES[place]}"


def _front_matter(name: str, composition: Composition, task: Task, languages: Sequence[str], licences: Licences) -> str:
    for code in languages:
        if not is_language(code):
            raise ValueError(f"languages has {code!r}; give ISO 639 codes such as 'en' or 'pt-BR'")
    front: dict[str, object] = {"pretty_name": visible_lines(name)}
    if languages:
        front["language"] = list(languages)
    front["license"] = licences.blend
    if licences.blend == "other":  # the hub asks for a name then, and has no use for one otherwise
        front["license_name"] = licences.name
        if licences.link:
            front["license_link"] = licences.link
    front["task_categories"] = [TASK_CATEGORIES[task]]
    front["size_categories"] = [size_category(composition.rows)]
    front["tags"] = ["synthetic", "cuvee"] if composition.synthetic_rows else ["cuvee"]
    front["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": DATA_FILE}]}]
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip()


def _composition(made: Composition) -> list[str]:
    head = ["", "rows", "share", "different ids", "most repeats of an id"]
    total = ["all", f"{made.rows}", "", f"{made.unique_rows}", f"{made.most_repeats}"]
    rows = [
        ["real", f"{made.real_rows}", f"{1 - made.share if made.rows else 0:.3f}", "", ""],
        ["synthetic", f"{made.synthetic_rows}", f"{made.share:.3f}", "", ""],
        total,
    ]
    if made.real is not None and made.synthetic is not None:
        head += ["different texts", "words"]
        for row, part in zip(rows, (made.real, made.synthetic), strict=False):
            row[3:] = [f"{n}" for n in (part.unique_rows, part.most_repeats, part.unique_texts, part.words)]
        total += [f"{made.unique_texts}", f"{made.words}"]
    return [
        "## Composition", "",
        f"{made.rows} rows: {made.real_rows} real, {made.synthetic_rows} synthetic "
        f"(share {made.share:.3f} as realised). {made.unique_rows} distinct rows; no row more than "
        f"{made.most_repeats} times.", "",
        *_table(head, rows),
    ]  # fmt: skip


def _labels(made: Composition) -> list[str]:
    if not made.label_counts:
        return []
    rows = [[label, f"{r}", f"{s}", f"{r + s}"] for label, (r, s) in made.label_counts.items()]
    return ["## Labels", "", *_table(["label", "real", "synthetic", "all"], rows)]


def _making(generator: str, made: SyntheticPart, composition: Composition) -> list[str]:
    if not composition.synthetic_rows:
        return []
    facts = {
        "written by": generator,
        "model": made.model,
        "sampling, unless the level says otherwise": ", ".join(f"{k} {v}" for k, v in made.sampling.items()),
        "dials and levels": ", ".join(level.key for level in made.levels),
    }
    lines = [f"- {what}: {to_markdown(said)}" for what, said in facts.items() if said]
    return ["## Synthetic rows", "", *lines] if lines else []


def _filters(made: SyntheticPart) -> list[str]:
    """Rows in, rows left out for each reason, rows kept: the first is the sum of the others."""
    if not made.left_out:
        return []
    total = sum(made.left_out.values())
    rows = [[f"left out: {reason}", f"{count}"] for reason, count in made.left_out.items()]
    if made.kept is None:
        rows.append(["left out, all", f"{total}"])
    else:
        rows = [["before filters", f"{total + made.kept}"], *rows, ["kept", f"{made.kept}"]]
    return ["## Filters", "", *_table(["", "rows"], rows)]


def _measured(measurement: Measurement, notes: Mapping[str, MetricNote]) -> list[str]:
    families = {name: notes[name].family if name in notes else "" for name in measurement.values}
    tested = any(e.p_value is not None for e in measurement.values.values())
    head = ["metric", "value", "95% interval", *(["p"] if tested else []), *(["reads as"] if notes else [])]
    lines = [
        f"## Measured: {to_markdown(measurement.name)}", "",
        f"{measurement.n} rows; encoder {to_markdown(measurement.encoder)} ({measurement.encoder_hash[:12]}), "
        f"seed {measurement.seed}. Fingerprint `{measurement.fingerprint}`"
        + (f", against `{measurement.against}`." if measurement.against else "."),
    ]  # fmt: skip
    for family in dict.fromkeys(families.values()):
        rows = [
            [f"`{key}`", *_numbers(e, tested), *([notes[key].better if key in notes else ""] if notes else [])]
            for key, e in measurement.values.items()
            if families[key] == family
        ]
        lines += ["", *([f"### {to_markdown(family)}", ""] if family else []), *_table(head, rows)]
    return lines


def _numbers(estimate: Estimate, tested: bool) -> list[str]:
    known = estimate.low is not None and estimate.high is not None
    interval = f"{estimate.low:.4g} to {estimate.high:.4g}" if known else ""
    p_value = "" if estimate.p_value is None else f"{estimate.p_value:.3g}"
    return [f"{estimate.value:.4g}", interval, *([p_value] if tested else [])]


def _licence(licences: Licences, made: Composition) -> list[str]:
    real = licences.real or "that of the data they come from"
    synthetic = licences.synthetic or "the terms of the model that wrote them"
    blend = licences.name if licences.blend == "other" else licences.blend
    lines = [
        "## Licence", "",
        f"- this dataset: {to_markdown(blend)}{f' (<{to_markdown(licences.link)}>)' if licences.link else ''}",
        *([f"- real rows: {to_markdown(real)}"] if made.real_rows else []),
        *([f"- synthetic rows: {to_markdown(synthetic)}"] if made.synthetic_rows else []),
    ]  # fmt: skip
    if licences.blend == "other" and licences.name == "unstated":
        lines += ["", "State `license` above before you share this."]
    return lines


def _reproduction(how: Reproduction, version: str) -> list[str]:
    facts = [f"- Cuvée {to_markdown(version)}"]
    facts += [] if how.seed is None else [f"- seed {how.seed}"]
    facts += [f"- fingerprint of {to_markdown(what)}: `{value}`" for what, value in how.fingerprints.items()]
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", how.command)), default=0))
    command = [f"{fence}sh", *visible_lines(how.command).splitlines(), fence, ""] if how.command else []
    return ["## How to reproduce", "", *command, *facts]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(to_markdown(cell) for cell in line) + " |" for line in lines]
