"""The dataset card of a blend and the model card of what was trained on one: README.md with YAML front matter.

The front matter follows the hub's specifications (https://github.com/huggingface/hub-docs, datasetcard.md and
modelcard.md). It is plain YAML: with the cards of ``huggingface_hub``, an optional package, it would be as long.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from cuvee.characters import to_markdown, visible_lines
from cuvee.corpus import Corpus, Task
from cuvee.encoders import DEFAULT_ENCODER
from cuvee.model_files import SMOLLM2
from cuvee.records import Advice, Composition, Level, Measurement, MetricNote
from cuvee.report.tables import DECISIONS

DATA_FILE = "train.parquet"
TASK_CATEGORIES: dict[Task, str] = {
    "classification": "text-classification",
    "generation": "text-generation",
    "retrieval": "text-retrieval",
}
_PIPELINES: Mapping[Task, str] = TASK_CATEGORIES | {"retrieval": "sentence-similarity"}
_CALLS: Mapping[Task, str] = {
    "classification": 'predictor.predict(["a text"])',
    "generation": 'predictor.write(["a prompt"], max_tokens=100, temperature=0, seed=0)',
    "retrieval": 'predictor.encode_queries(["a question"])',
}
_BASES: Mapping[str, str] = {
    DEFAULT_ENCODER: "sentence-transformers/all-MiniLM-L6-v2",
    SMOLLM2: "HuggingFaceTB/SmolLM2-135M-Instruct",
}
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+_-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Licences:
    """Under what terms a blend and its parts stand, or a model, of which ``blend`` then speaks.

    Attributes:
        blend: an identifier that the hub knows (``cc-by-4.0``, ``apache-2.0``), or ``other``.
        name: of a licence that is ``other``.
        real, synthetic: terms of each part, in words.
    """

    blend: str = "other"
    name: str = "unstated"
    real: str = ""
    synthetic: str = ""

    def __post_init__(self) -> None:
        if not _LICENCE.fullmatch(self.blend):
            raise ValueError(
                f"{self.blend!r} is no licence identifier of the hub; give one such as 'cc-by-4.0' or 'apache-2.0', "
                "or 'other' with a name"
            )

    @property
    def named(self) -> str:
        """The licence in words."""
        return self.name if self.blend == "other" else self.blend


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticPart:
    """How the synthetic rows were made.

    Attributes:
        writer: who or what wrote them, in words.
        sampling: parameter -> value.
        levels: dials and levels of the pools that rows come from.
        left_out: reason -> rows that a filter left out, in the order of the filters.
        kept: rows that passed them all.
    """

    writer: str = ""
    sampling: Mapping[str, str | int | float] = field(default_factory=dict)
    levels: tuple[Level, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    kept: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """What gives the same rows again: a command, a seed, and fingerprints of what went in and came out."""

    command: str = ""
    seed: int | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What every card says.

    Attributes:
        name: of the study, the blend or the model.
        version: of Cuvée.
        task: of the rows.
        languages: ISO 639 codes of the texts.
        licences: other and unstated where not given.
        reproduction: how to make the same again.

    Raises:
        ValueError: a language is not an ISO 639 code.
    """

    name: str
    version: str
    task: Task = "classification"
    languages: Sequence[str] = ()
    licences: Licences = field(default_factory=Licences)
    reproduction: Reproduction = field(default_factory=Reproduction)

    def __post_init__(self) -> None:
        for code in self.languages:
            if not is_language(code):
                raise ValueError(f"languages has {code!r}; give ISO 639 codes such as 'en' or 'pt-BR'")


def render_card(
    facts: CardFacts,
    composition: Composition,
    *,
    advice: Advice | None = None,
    synthetic: SyntheticPart | None = None,
    measurement: Measurement | None = None,
    notes: Mapping[str, MetricNote] | None = None,
    weights: str = "",
) -> str:
    """Markdown of the dataset card of a blend; what is not given leaves no section behind.

    Args:
        facts: of the blend; its name without the word.
        composition: of the blend, as realised.
        advice: whose best cell the blend is, if it recommends one.
        synthetic: how the synthetic rows were made: model, sampling, dials, filters.
        measurement: of the pool the synthetic rows come from, or of the blend.
        notes: metric -> how to read it.
        weights: what the weights of its rows come to, in words; empty where all weigh the same.
    """
    made, terms = synthetic or SyntheticPart(), facts.licences
    title = facts.name if facts.name.endswith("blend") else f"{facts.name} blend"
    real = terms.real or "that of the data they come from"
    written = terms.synthetic or "the terms of the model that wrote them"
    sections = [
        [f"# {to_markdown(title)}"],
        [] if advice is None else _tell_verdict(advice),
        [] if advice is None or advice.decision == "use" else [f"**{_WARNINGS[advice.decision]}**"],
        [*_composition(composition), *(["", f"**Weights.** {to_markdown(weights)}."] if weights else [])],
        _labels(composition.label_counts),
        _making(made) if composition.synthetic_rows else [],
        _filters(made),
        [] if measurement is None else _measured(measurement, notes or {}),
        _licence(
            terms,
            f"this dataset: {to_markdown(terms.named)}",
            *([f"real rows: {to_markdown(real)}"] if composition.real_rows else []),
            *([f"synthetic rows: {to_markdown(written)}"] if composition.synthetic_rows else []),
        ),
        _reproduction(facts),
    ]
    after = {
        "task_categories": [TASK_CATEGORIES[facts.task]],
        "tags": ["synthetic", "cuvee"] if composition.synthetic_rows else ["cuvee"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": DATA_FILE}]}],
    }
    return _join({"pretty_name": visible_lines(title)}, facts, after, sections)


def _tell_verdict(advice: Advice) -> list[str]:
    return [f"**Verdict: {DECISIONS[advice.decision]}.** {to_markdown(advice.sentence)}"]


_WARNINGS = {
    "underpowered": "It is not settled that this blend helps: it is the one that the evidence leans to.",
    "do-not-use": "The advice is not to use this blend: it was written because it was asked for.",
}


def render_model_card(
    facts: CardFacts, corpus: Corpus, settings: Mapping[str, object], *, base: str = "", advice: Advice | None = None,
    said: str = "",
) -> str:  # fmt: skip
    """Markdown of the card of a trained model; what is not given leaves no section behind.

    Args:
        facts: of the model.
        corpus: what it was trained on.
        settings: that it was trained with, as the trainer took them; those that are None are left out.
        base: the model that training started from; by default what the settings name. One that is a folder or a file
            here is not named: paths tell of a machine.
        advice: of the study that chose the rows.
        said: which rows these are.
    """
    base = _name_base(base or str(settings.get("model") or ""))
    start = f", from [{base}](https://huggingface.co/{base})" if base else ""
    how = f"Trained for {corpus.task} with trainer `{settings['trainer']}` and loss `{settings['loss']}`{start}."
    call = ["from cuvee import load_predictor", "", 'predictor = load_predictor("FOLDER")  # of a download']
    taken = [[name, str(value)] for name, value in settings.items() if name != "model" and value is not None]
    terms = facts.licences
    sections = [
        [f"# {to_markdown(facts.name)}", "", how],
        [] if advice is None else _tell_verdict(advice),
        ["## Use", "", "```python", *call, _CALLS[corpus.task], "```"],
        [*_training_data(corpus), *(["", to_markdown(said)] if said else [])],
        ["## Training", "", *_table(["setting", "value"], taken)],
        _licence(terms, f"this model: {to_markdown(terms.named)}", "the base model and the data keep their own terms"),
        _reproduction(facts),
    ]
    after = ({"base_model": base} if base else {}) | {"tags": ["cuvee"]}
    return _join({"library_name": "cuvee", "pipeline_tag": _PIPELINES[corpus.task]}, facts, after, sections)


def is_language(code: str) -> bool:
    """Whether ``code`` has the form of an ISO 639 code, with or without a region."""
    return _LANGUAGE.fullmatch(code) is not None


def _name_base(model: str) -> str:
    """As the hub names it; empty where it is not from there."""
    known = _BASES.get(model, model)
    return known if _REPOSITORY.fullmatch(known) and not Path(known).exists() else ""


def _join(
    before: Mapping[str, object], facts: CardFacts, after: Mapping[str, object], sections: Sequence[Sequence[str]]
) -> str:
    """The card: front matter, in this order, then the sections that say anything."""
    terms = facts.licences
    front = dict(before) | ({"language": list(facts.languages)} if facts.languages else {}) | {"license": terms.blend}
    if terms.blend == "other":  # the hub asks for a name then, and has no use for one otherwise
        front |= {"license_name": terms.name}
    written = yaml.safe_dump(front | dict(after), sort_keys=False, allow_unicode=True).strip()
    return "\n\n".join([f"---\n{written}\n---", *("\n".join(s) for s in sections if s)]) + "\n"


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


def _labels(counts: Mapping[str, tuple[int, int]]) -> list[str]:
    rows = [[label, f"{r}", f"{s}", f"{r + s}"] for label, (r, s) in counts.items()]
    return ["## Labels", "", *_table(["label", "real", "synthetic", "all"], rows)] if rows else []


def _training_data(corpus: Corpus) -> list[str]:
    made, rows = sum(origin == "synthetic" for origin in corpus.origins), len(corpus)
    lines = [f"{rows} rows: {rows - made} real, {made} synthetic (share {made / rows if rows else 0:.3f} as realised)."]
    writers = sorted({g for g in corpus.table["generator"].to_pylist() if g})
    if writers:
        lines += ["", f"Synthetic rows were written by {', '.join(to_markdown(writer) for writer in writers)}."]
    if corpus.task == "classification":
        counts = Counter(zip(corpus.targets, corpus.origins, strict=True))
        lines += _labels({label: (counts[label, "real"], counts[label, "synthetic"]) for label in corpus.labels})[1:]
    return ["## Training data", "", *lines]


def _making(made: SyntheticPart) -> list[str]:
    facts = {
        "written by": made.writer,
        "sampling, unless the level says otherwise": ", ".join(f"{k} {v}" for k, v in made.sampling.items()),
        "dials and levels": ", ".join(level.key for level in made.levels),
    }
    lines = [f"- {what}: {to_markdown(said)}" for what, said in facts.items() if said]
    return ["## Synthetic rows", "", *lines] if lines else []


def _filters(made: SyntheticPart) -> list[str]:
    """Rows in, rows left out for each reason, rows kept: the first is the sum of the others."""
    if not made.left_out:
        return []
    total = made.kept + sum(made.left_out.values())
    rows = [[f"left out: {reason}", f"{count}"] for reason, count in made.left_out.items()]
    rows = [["before filters", f"{total}"], *rows, ["kept", f"{made.kept}"]]
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
            [f"`{key}`", *e.write_cells(tested=tested), *([notes[key].better if key in notes else ""] if notes else [])]
            for key, e in measurement.values.items()
            if families[key] == family
        ]
        lines += ["", *([f"### {to_markdown(family)}", ""] if family else []), *_table(head, rows)]
    return lines


def _licence(terms: Licences, *lines: str) -> list[str]:
    unstated = terms.blend == "other" and terms.name == "unstated"
    more = ["", "State `license` above before you share this."] if unstated else []
    return ["## Licence", "", *(f"- {line}" for line in lines), *more]


def _reproduction(facts: CardFacts) -> list[str]:
    how = facts.reproduction
    lines = [f"- Cuvée {to_markdown(facts.version)}"]
    lines += [] if how.seed is None else [f"- seed {how.seed}"]
    lines += [f"- fingerprint of {to_markdown(what)}: `{value}`" for what, value in how.fingerprints.items()]
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", how.command)), default=0))
    command = [f"{fence}sh", *visible_lines(how.command).splitlines(), fence, ""] if how.command else []
    return ["## How to reproduce", "", *command, *lines]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(to_markdown(cell) for cell in line) + " |" for line in lines]
