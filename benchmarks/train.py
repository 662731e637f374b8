"""What a training step costs beside a bare PyTorch loop, and what a probe costs beside scikit-learn's.

    python benchmarks/train.py [--rounds 6] [--steps 60] [--causal] [--cells 2000]

Fine-tuning: the same model, rows, batches and optimiser, once through ``train_loop``, once through a loop of ten
lines; steps of either alternate on the same batch, and their medians are compared. The encoder is all-MiniLM-L6-v2
(batches of 16 sentences), the causal model SmolLM2-135M-Instruct with adapters of rank 8 (batches of 4 stories;
``--causal``, because it takes minutes on a CPU).

Probe: 1,000 rows of 384 dimensions and 15 labels, against ``sklearn.linear_model.LogisticRegression(C=10)``, which
has the same penalty; fits alternate. Then many cells that each train on 1,000 of the rows of one matrix: seconds a
cell, and how much the process grew.

Only ratios count: times are those of whatever machine this runs on. Prints Markdown.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Sequence

import numpy as np

LABELS, DIM, ROWS = 15, 384, 1_000
POOL = 20_000  # rows of the matrix that cells share
WORDS = "please move money between my accounts and tell me what the card fee is before friday evening".split()
Steps = list[float]


def median_ms(seconds: Sequence[float]) -> float:
    """Median in milliseconds."""
    return 1e3 * float(np.median(seconds))


def alternate(rounds: int, *runs: Callable[[], Steps]) -> list[Steps]:
    """Seconds of every run, all rounds together; the first round warms up and does not count."""
    found: list[Steps] = [[] for _ in runs]
    for number in range(rounds + 1):
        for mine, run in zip(found, runs, strict=True):
            seconds = run()
            if number:
                mine += seconds
    return found


class Interleaved:
    """Progress of our loop that takes one step of the other after each of ours, on the same batch, and times both.

    Other work on the machine then slows both alike. The first two steps warm up and do not count.
    """

    def __init__(self, batches: np.ndarray, step: Callable[[np.ndarray], None]) -> None:
        self._batches, self._step = batches, step
        self._ours: Steps = []
        self._others: Steps = []
        self._resumed = time.perf_counter()

    def __call__(self, done: int, steps: int, loss: float) -> None:
        """Called after each step of ours."""
        del steps, loss
        begun = time.perf_counter()
        self._step(self._batches[done - 1])
        ended = time.perf_counter()
        self._ours.append(begun - self._resumed)
        self._others.append(ended - begun)
        self._resumed = time.perf_counter()

    @property
    def seconds(self) -> tuple[Steps, Steps]:
        """Of each step, ours and the other."""
        return self._ours[2:], self._others[2:]


# --- fine-tuning ---------------------------------------------------------------------------------------------
def sentences(count: int) -> list[str]:
    """Sentences of 6 to 14 words."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, size=rng.integers(6, 15))) for _ in range(count)]


def time_encoder(steps: int) -> tuple[Steps, Steps]:
    """Seconds a step of ours and of a bare loop."""
    import torch

    from cuvee.corpus import Corpus
    from cuvee.encoders import find_minilm
    from cuvee.probe import WeightedRows
    from cuvee.train import TrainSettings
    from cuvee.train.encoder import ClassifierRows
    from cuvee.train.finetuning import build_optimizer, draw_batches
    from cuvee.train.loop import train_loop
    from cuvee.train.retriever import BiEncoder

    texts, codes = sentences(256), np.arange(256) % LABELS
    corpus = Corpus.from_rows({"text": t, "target": f"{c:02d}"} for t, c in zip(texts, codes, strict=True))
    schedule = TrainSettings(steps=steps, batch_size=16, seed=0)
    loss = WeightedRows(np.ones(len(texts)))
    settings = TrainSettings(
        trainer="encoder", model=find_minilm(), device="cpu", max_length=64, learning_rate=1e-5, head_learning_rate=1e-3
    )

    def build() -> ClassifierRows:
        return ClassifierRows(BiEncoder.from_pretrained(settings), corpus)

    ours, bare = build(), build()
    model, head = bare.module["backbone"], bare.module["head"]
    backbone, tokenizer = model[0].model, model.tokenizer
    tokens = tokenizer(texts, truncation=True, max_length=64)["input_ids"]
    truth = torch.tensor(codes)

    optimizer, scheduler = build_optimizer(bare.groups, steps)
    bare.module.train()

    def step(batch: np.ndarray) -> None:
        padded = tokenizer.pad({"input_ids": [tokens[i] for i in batch]}, return_tensors="pt")
        hidden = backbone(**padded).last_hidden_state
        mask = padded["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
        logits = head(torch.nn.functional.normalize(pooled, dim=1))
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(logits, truth[batch]).backward()
        torch.nn.utils.clip_grad_norm_(backbone.parameters(), 1.0)
        optimizer.step()
        scheduler.step()

    watch = Interleaved(draw_batches(loss.phases, schedule), step)
    train_loop(ours, loss, schedule, progress=watch)
    return watch.seconds


def time_causal(steps: int) -> tuple[Steps, Steps]:
    """Seconds a step of ours and of a bare loop over what transformers calls the loss."""
    import torch

    from cuvee.corpus import Corpus
    from cuvee.model_files import SMOLLM2
    from cuvee.probe import WeightedRows
    from cuvee.train import TrainSettings
    from cuvee.train.causal import CausalRows, CausalWriter
    from cuvee.train.finetuning import build_optimizer, draw_batches, prepare_training
    from cuvee.train.loop import train_loop

    texts = sentences(64)
    rows = [{"text": " ".join(texts[i : i + 4]), "target": " ".join(texts[i + 4 : i + 8])} for i in range(56)]
    corpus = Corpus.from_rows(rows, task="generation")
    schedule = TrainSettings(steps=steps, batch_size=4, seed=0)
    loss = WeightedRows(np.ones(len(corpus)))

    settings = TrainSettings(
        trainer="causal", model=SMOLLM2, device="cpu", max_length=256, learning_rate=1e-5, lora_rank=8
    )

    def build() -> tuple[CausalWriter, CausalRows]:
        writer = CausalWriter.from_pretrained(settings)
        trained = CausalRows(writer, corpus, None)
        writer.model = prepare_training(writer.model, settings)
        return writer, trained

    (_, ours), (twin, bare) = build(), build()
    pairs = [twin.tokenize(p, t) for p, t in zip(corpus.prompts, corpus.targets, strict=True)]

    optimizer, scheduler = build_optimizer(bare.groups, steps)
    bare.module.train()
    clipped = [p for p in bare.module.parameters() if p.requires_grad]

    def step(batch: np.ndarray) -> None:
        chosen = [pair for i in batch if (pair := pairs[i]) is not None]
        width = max(map(len, chosen))
        ids = torch.zeros((len(chosen), width), dtype=torch.long)
        labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
        for line, pair in enumerate(chosen):
            ids[line, : len(pair)] = torch.tensor([*pair.prompt, *pair.completion])
            labels[line, len(pair.prompt) : len(pair)] = torch.tensor(pair.completion)
            mask[line, : len(pair)] = 1
        optimizer.zero_grad(set_to_none=True)
        bare.module(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(clipped, 1.0)
        optimizer.step()
        scheduler.step()

    watch = Interleaved(draw_batches(loss.phases, schedule), step)
    train_loop(ours, loss, schedule, progress=watch)
    return watch.seconds


# --- the probe -----------------------------------------------------------------------------------------------
def make_vectors(count: int) -> tuple[np.ndarray, list[str]]:
    """Unit rows around 15 centres, about as separable as sentences of 15 intents."""
    rng = np.random.default_rng(0)
    codes = np.arange(count) % LABELS
    rows = rng.normal(size=(LABELS, DIM))[codes] + 6 * rng.normal(size=(count, DIM))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit.astype(np.float32), [f"label {c:02d}" for c in codes]


def time_probe(rounds: int) -> tuple[list[Steps], list[float]]:
    """Seconds a fit of ours and of scikit-learn's, and the accuracy of either on other rows."""
    from sklearn.linear_model import LogisticRegression

    from cuvee.probe import fit_probe

    vectors, targets = make_vectors(3 * ROWS)
    train, test = slice(0, ROWS), slice(ROWS, None)
    right: list[float] = []

    def timed(fit: Callable[[], Callable[[np.ndarray], Sequence[str]]]) -> Steps:
        start = time.perf_counter()
        predict = fit()
        taken = time.perf_counter() - start
        right.append(float((np.array(predict(vectors[test])) == np.array(targets[test])).mean()))
        return [taken]

    def theirs() -> Callable[[np.ndarray], Sequence[str]]:
        return LogisticRegression(C=10, max_iter=1_000).fit(vectors[train], targets[train]).predict

    found = alternate(
        rounds,
        lambda: timed(lambda: fit_probe(vectors[train], targets[train], l2=0.1).predict),
        lambda: timed(theirs),
    )
    return found, right[-2:]


def time_cells(cells: int) -> tuple[float, float]:
    """Seconds a cell of 1,000 rows of one shared matrix, and the megabytes that the process grew by."""
    from cuvee.train import TrainSettings
    from on_vectors import train_on_vectors

    vectors, targets = make_vectors(POOL)
    rng = np.random.default_rng(1)

    def train(number: int) -> None:
        rows = rng.choice(POOL, size=ROWS, replace=False)
        marks = np.arange(ROWS) >= ROWS // 2
        settings = TrainSettings(seed=number)
        train_on_vectors(vectors[rows], [targets[i] for i in rows], synthetic=marks, settings=settings)

    train(0)  # what is loaded once
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    for number in range(cells):
        train(number)
    taken = time.perf_counter() - start
    return taken / cells, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="fits of each probe")
    parser.add_argument("--steps", type=int, default=60, help="of fine-tuning; a quarter for --causal")
    parser.add_argument("--cells", type=int, default=2_000)
    parser.add_argument("--causal", action="store_true", help="SmolLM2, too")
    given = parser.parse_args()
    print("| | ours, ms | the other, ms | ratio |\n|---|---|---|---|", flush=True)
    (ours, theirs), right = time_probe(given.rounds)
    print_row("probe, 1,000 x 384, 15 labels, beside scikit-learn", ours, theirs)
    print_row("encoder, a step, beside a bare loop", *time_encoder(given.steps))
    if given.causal:
        print_row("causal with adapters, a step, beside a bare loop", *time_causal(max(4, given.steps // 4)))
    seconds, grew = time_cells(given.cells)
    matrix = POOL * DIM * 4 / 2**20
    print(
        f"\nAccuracy of the two probes: {right[0]:.3f}, {right[1]:.3f}. {given.cells} cells on one matrix of "
        f"{matrix:.0f} MB: {1e3 * seconds:.1f} ms a cell; the process grew by {grew:.0f} MB."
    )


def print_row(what: str, ours: Steps, theirs: Steps) -> None:
    one, other = median_ms(ours), median_ms(theirs)
    print(f"| {what} | {one:.1f} | {other:.1f} | {one / other:.2f} |", flush=True)


if __name__ == "__main__":
    main()
