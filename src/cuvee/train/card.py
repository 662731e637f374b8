"""The model card of what was trained: README.md with the YAML front matter that the hub reads.

The front matter follows the hub's specification of model cards
(https://github.com/huggingface/hub-docs/blob/main/modelcard.md).
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from cuvee.characters import to_markdown, visible_lines
from cuvee.corpus import Corpus, Task
from cuvee.encoders import DEFAULT_ENCODER
from cuvee.model_files import SMOLLM2
from cuvee.train.settings import Trained

_BASES: Mapping[str, str] = {
    DEFAULT_ENCODER: "sentence-transformers/all-MiniLM-L6-v2",
    SMOLLM2: "HuggingFaceTB/SmolLM2-135M-Instruct",
}
_PIPELINES: Mapping[Task, str] = {
    "classification": "text-classification",
    "generation": "text-generation",
    "retrieval": "sentence-similarity",
}
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+_-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLicence:
    """Under what terms a model stands.

    Attributes:
        identifier: that the hub knows (``apache-2.0``), or ``other``.
        name: of a licence that is ``other``.

    Raises:
        ValueError: not the form of an identifier.
    """

    identifier: str = "other"
    name: str = "unstated"

    def __post_init__(self) -> None:
        if not _LICENCE.fullmatch(self.identifier):
            raise ValueError(
                f"{self.identifier!r} is no licence identifier of the hub; give one such as 'apache-2.0', or 'other'"
            )


def render_model_card(
    predictor: Trained,
    corpus: Corpus,
    *,
    name: str,
    version: str,
    command: str = "",
    scores: Mapping[str, float] | None = None,
    licence: ModelLicence | None = None,
    languages: Sequence[str] = (),
    base: str = "",
) -> str:
    """Markdown of the card; what is not given leaves no section behind.

    Args:
        predictor: what was trained.
        corpus: what it was trained on.
        name: of the model.
        version: of Cuvée.
        command: that trained it.
        scores: metric -> value on real rows that were not trained on.
        licence: other and unstated where not given.
        languages: ISO 639 codes of the texts.
        base: the model that training started from; by default what the settings name. One that is a folder or a file
            here is not named: paths tell of a machine.

    Raises:
        ValueError: a language is not an ISO 639 code.
    """
    for code in languages:
        if not is_language(code):
            raise ValueError(f"languages has {code!r}; give ISO 639 codes such as 'en' or 'pt-BR'")
    licence = licence or ModelLicence()
    base = _name_base(base or predictor.settings.model or "")
    sections = [
        [f"# {to_markdown(name)}", "", _introduce(predictor, corpus, base)],
        _use(corpus.task),
        _data(corpus),
        _training(predictor),
        _scores(scores or {}),
        _licence(licence),
        _reproduction(command, corpus, version),
    ]
    front = _front_matter(corpus.task, licence, languages, base)
    return "\n\n".join([f"---\n{front}\n---", *("\n".join(s) for s in sections if s)]) + "\n"


def is_language(code: str) -> bool:
    """Whether ``code`` has the form of an ISO 639 code, with or without a region."""
    return _LANGUAGE.fullmatch(code) is not None


def _name_base(model: str) -> str:
    """As the hub names it; empty where it is not from there."""
    known = _BASES.get(model, model)
    return known if _REPOSITORY.fullmatch(known) and not Path(known).exists() else ""


def _front_matter(task: Task, licence: ModelLicence, languages: Sequence[str], base: str) -> str:
    front: dict[str, object] = {"library_name": "cuvee", "pipeline_tag": _PIPELINES[task]}
    if languages:
        front["language"] = list(languages)
    front["license"] = licence.identifier
    if licence.identifier == "other":
        front["license_name"] = licence.name
    if base:
        front["base_model"] = base
    front["tags"] = ["cuvee"]
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip()


def _introduce(predictor: Trained, corpus: Corpus, base: str) -> str:
    settings = predictor.settings
    start = f", from [{base}](https://huggingface.co/{base})" if base else ""
    return f"Trained for {corpus.task} with trainer `{settings.trainer}` and loss `{settings.loss}`{start}."


def _use(task: Task) -> list[str]:
    call = {
        "classification": 'predictor.predict(["a text"])',
        "generation": 'predictor.write(["a prompt"], max_tokens=100, temperature=0, seed=0)',
        "retrieval": 'predictor.encode_queries(["a question"])',
    }
    lines = [
        "from cuvee import load_predictor",
        "",
        'predictor = load_predictor("FOLDER")  # of a download',
        call[task],
    ]
    return ["## Use", "", "```python", *lines, "```"]


def _data(corpus: Corpus) -> list[str]:
    made = sum(origin == "synthetic" for origin in corpus.origins)
    rows = len(corpus)
    lines = [f"{rows} rows: {rows - made} real, {made} synthetic (share {made / rows if rows else 0:.3f} as realised)."]
    writers = sorted({g for g in corpus.table["generator"].to_pylist() if g})
    if writers:
        lines += ["", f"Synthetic rows were written by {', '.join(to_markdown(writer) for writer in writers)}."]
    if corpus.task == "classification":
        counts = Counter(zip(corpus.targets, corpus.origins, strict=True))
        cells = [[label, counts[label, "real"], counts[label, "synthetic"]] for label in corpus.labels]
        lines += ["", "| label | real | synthetic |", "| --- | --- | --- |"]
        lines += ["| " + " | ".join(to_markdown(str(cell)) for cell in cell_row) + " |" for cell_row in cells]
    return ["## Training data", "", *lines]


def _training(predictor: Trained) -> list[str]:
    settings = predictor.settings
    taken = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if f.name != "model"}
    lines = [f"| {name} | {to_markdown(str(value))} |" for name, value in taken.items() if value is not None]
    return ["## Training", "", "| setting | value |", "| --- | --- |", *lines]


def _scores(scores: Mapping[str, float]) -> list[str]:
    if not scores:
        return []
    lines = [f"| {to_markdown(name)} | {value:.4g} |" for name, value in scores.items()]
    return [
        "## Scores",
        "",
        "On real rows that were not trained on.",
        "",
        "| metric | value |",
        "| --- | --- |",
        *lines,
    ]


def _licence(licence: ModelLicence) -> list[str]:
    named = licence.name if licence.identifier == "other" else licence.identifier
    lines = [
        "## Licence",
        "",
        f"- this model: {to_markdown(named)}",
        "- the base model and the data keep their own terms",
    ]
    if licence.identifier == "other" and licence.name == "unstated":
        lines += ["", "State `license` above before you share this."]
    return lines


def _reproduction(command: str, corpus: Corpus, version: str) -> list[str]:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", command)), default=0))
    shown = [f"{fence}sh", *visible_lines(command).splitlines(), fence, ""] if command else []
    facts = [f"- Cuvée {to_markdown(version)}", f"- fingerprint of the rows: `{corpus.fingerprint}`"]
    return ["## How to reproduce", "", *shown, *facts]
