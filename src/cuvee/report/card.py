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

    @property
    def fence(self) -> str:
        """Of a block of Markdown that holds the command."""
        return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", self.command)), default=0))


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
    made = synthetic or SyntheticPart()
    title = facts.name if facts.name.endswith("blend") else f"{facts.name} blend"
    writing = {
        "written by": made.writer,
        "sampling, unless the level says otherwise": ", ".join(f"{k} {v}" for k, v in made.sampling.items()),
        "dials and levels": ", ".join(level.key for level in made.levels),
    }
    heads, families = ([], {}) if measurement is None else _tabulate(measurement, notes or {})
    front = {"pretty_name": visible_lines(title)} | _list_terms(facts)
    front |= {
        "task_categories": [TASK_CATEGORIES[facts.task]],
        "tags": ["synthetic", "cuvee"] if composition.synthetic_rows else ["cuvee"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": DATA_FILE}]}],
    }
    parts = {
        "facts": facts, "title": title, "made": composition, "advice": advice, "warnings": _WARNINGS,
        "synthetic": made, "writing": {what: said for what, said in writing.items() if said}, "weights": weights,
        "measurement": measurement, "heads": heads, "families": families,
    }  # fmt: skip
    return _render("card.md.j2", front, parts)


_WARNINGS = {
    "underpowered": "It is not settled that this blend helps: it is the one that the evidence leans to.",
    "do-not-use": "The advice is not to use this blend: it was written because it was asked for.",
}


def _tabulate(
    measurement: Measurement, notes: Mapping[str, MetricNote]
) -> tuple[list[str], dict[str, list[list[str]]]]:
    """Heads, and the rows of each family of metrics."""
    tested = any(e.p_value is not None for e in measurement.values.values())
    heads = ["metric", "value", "95% interval", *(["p"] if tested else []), *(["reads as"] if notes else [])]
    families: dict[str, list[list[str]]] = {}
    for name, e in measurement.values.items():
        note = notes.get(name)
        reads = [] if not notes else ["" if note is None else note.better]
        rows = families.setdefault("" if note is None else note.family, [])
        rows.append([f"`{name}`", *e.write_cells(tested=tested), *reads])
    return heads, families


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
    counts = Counter(zip(corpus.targets, corpus.origins, strict=True))
    labels = corpus.labels if corpus.task == "classification" else ()
    front = {"library_name": "cuvee", "pipeline_tag": _PIPELINES[corpus.task]} | _list_terms(facts)
    parts = {
        "facts": facts, "corpus": corpus, "settings": settings, "base": base, "advice": advice, "said": said,
        "call": _CALLS[corpus.task],
        "synthetic": sum(origin == "synthetic" for origin in corpus.origins),
        "writers": sorted({name for name in corpus.table["generator"].to_pylist() if name}),
        "label_counts": {label: (counts[label, "real"], counts[label, "synthetic"]) for label in labels},
    }  # fmt: skip
    return _render("model_card.md.j2", front | ({"base_model": base} if base else {}) | {"tags": ["cuvee"]}, parts)


def is_language(code: str) -> bool:
    """Whether ``code`` has the form of an ISO 639 code, with or without a region."""
    return _LANGUAGE.fullmatch(code) is not None


def _name_base(model: str) -> str:
    """As the hub names it; empty where it is not from there."""
    known = _BASES.get(model, model)
    return known if _REPOSITORY.fullmatch(known) and not Path(known).exists() else ""


def _list_terms(facts: CardFacts) -> dict[str, object]:
    """What the front matter of every card says of languages and licence."""
    terms = facts.licences
    front: dict[str, object] = {"language": list(facts.languages)} if facts.languages else {}
    front["license"] = terms.blend
    if terms.blend == "other":  # the hub asks for a name then, and has no use for one otherwise
        front["license_name"] = terms.name
    return front


def _render(template: str, front: Mapping[str, object], parts: Mapping[str, object]) -> str:
    """The card: its front matter, in this order, and what the template makes of the parts."""
    import jinja2  # takes long to load

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cuvee", "report"), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"md": lambda value: to_markdown(str(value)), "visible": visible_lines}
    written = yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True).strip()
    return environment.get_template(template).render(front=written, decisions=DECISIONS, **parts).strip() + "\n"
