"""What a causal study takes on a CPU, prompts read once by the frozen model beside prompts read in every trial.

    python benchmarks/causal.py --data fairytaleqa/train.jsonl.gz [--steps 4] [--items 8]

SmolLM2-135M-Instruct with adapters of rank 8, batches of 4 questions about passages, ``token_probability`` of held-out
answers. Each way trains a few steps and reads a few items, first ones and ones it has seen, in CPU seconds of one
thread; from these follows a study of 12 cells, 3 draws, 40 steps and 100 items, whose trials see 60 real rows, the
items, and 60 synthetic rows a draw and level of the same passages. Only ratios count: times are those of whatever
machine this runs on. Prints Markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from cuvee.corpus import Corpus, load_corpus
from cuvee.evaluate import Writing, evaluate_model
from cuvee.train import TrainSettings, train_model
from cuvee.train.settings import Trained

TRIALS, STEPS, ITEMS, REAL, BATCH = 36, 40, 100, 60, 4
SYNTHETIC = 60 * 3 * 4  # rows of 3 draws of 4 levels


def spend(work: Callable[[], Trained | None]) -> tuple[float, Trained | None]:
    """CPU seconds of all threads, and what came of it."""
    begun = time.process_time()
    made = work()
    return time.process_time() - begun, made


def measure(rows: Corpus, items: Corpus, steps: int, *, frozen: bool, writes: bool) -> tuple[float, float, float]:
    """CPU seconds of a training step, of an item, and of a row that is read for the first time."""
    settings = TrainSettings(
        trainer="causal", batch_size=BATCH, lora_rank=8, device="cpu", frozen_prompts=frozen or None
    )

    def train(count: int) -> Trained:

        return train_model(rows, settings=replace(settings, steps=count))

    def score(model: Trained | None) -> None:
        assert model is not None
        told = None if writes else "token_probability"
        evaluate_model(model, items, writing=Writing(max_tokens=64), intervals=False, score=told)

    train(steps)  # loads the model, and reads what can be read once
    short, _ = spend(lambda: train(1))
    whole, model = spend(lambda: train(1 + steps))
    first, _ = spend(lambda: score(model))
    again, _ = spend(lambda: score(model))
    return (whole - short) / steps, again / len(items), max(0.0, first - again) / len(items)


def main() -> None:
    """Measure both ways, and print what the study takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--items", type=int, default=8)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    columns = {"text": "question", "label": "answer", "context": "context"}
    found = load_corpus(asked.data, task="generation", **columns).take(range(0, 17 * (BATCH + asked.items), 17))
    rows, items = found.take(range(BATCH)), found.take(range(BATCH, BATCH + asked.items))
    totals = []
    print("| prompts | a step, s | an item, s | first reading of a row, s | a trial, s | the study, CPU minutes |")
    print("|---|---|---|---|---|---|")
    for name, frozen in (("read in every trial, completions written", False), ("read once, nothing written", True)):
        step, item, first = measure(rows, items, asked.steps, frozen=frozen, writes=not frozen)
        trial = STEPS * step + ITEMS * item
        # a synthetic question about a known passage is a block of its own, at most a quarter of a row
        once = first * (REAL + ITEMS + SYNTHETIC / 4) if frozen else 0.0
        totals.append((TRIALS * trial + once) / 60)
        print(f"| {name} | {step:.2f} | {item:.2f} | {first:.2f} | {trial:.0f} | {totals[-1]:.0f} |")
    print(f"\n{totals[0] / totals[1]:.1f} times less CPU")


if __name__ == "__main__":
    main()
