"""A real OpenAI-compatible server on loopback, and a few training rows."""

from collections.abc import Iterator

import pytest

from cuvee.corpus import Corpus
from local_llm import WORDS, LocalLLM


@pytest.fixture
def llm() -> Iterator[LocalLLM]:
    server = LocalLLM()
    yield server
    server.close()


@pytest.fixture
def train() -> Corpus:
    rows = [
        {"text": f"real {label} text number {i} about {WORDS[i]}", "target": label}
        for label in ("alpha", "beta")
        for i in range(6)
    ]
    return Corpus.from_rows(rows)
