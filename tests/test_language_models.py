"""Draws follow the distribution that is asked for, each row from a stream of its own."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from cuvee.errors import GenerationError
from cuvee.language_models import plan_draws
from cuvee.records import Sampling

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -float("inf")])
DRAWS = 2000


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def next_tokens(sampling, seeds, logits):
    """The token of each row: drawn as one batch of equal sampling parameters."""
    scores = plan_draws([np.random.default_rng(seed) for seed in seeds], sampling)(None, logits)
    return scores.argmax(dim=1)


def test_truncations_come_after_the_temperature():
    """At a high temperature more tokens reach min_p, as in vLLM; llama.cpp would keep the same two."""
    for temperature, expected in ((1.0, 2), (3.0, 5)):
        tokens = next_tokens(Sampling(temperature=temperature, min_p=0.3), range(400), LOGITS.expand(400, -1))
        assert len(set(tokens.tolist())) == expected


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(temperature=1.0), 5),
        (Sampling(temperature=0.5), 5),
        (Sampling(temperature=2.0, top_k=3), 3),
        (Sampling(temperature=1.0, top_p=0.8), 3),
        (Sampling(temperature=1.0, min_p=0.2), 3),
        (Sampling(temperature=1.5, top_k=4, top_p=0.9, min_p=0.1), 4),
    ],
)
def test_draws_have_the_distribution_that_is_asked_for(sampling, kept):
    """Chi-square over fixed seeds, each the seed of a row of its own."""
    tokens = next_tokens(sampling, range(DRAWS), LOGITS.expand(DRAWS, -1))
    probabilities = torch.softmax(LOGITS.double() / sampling.temperature, dim=0)[:kept].numpy()
    counts = np.bincount(tokens.numpy(), minlength=len(LOGITS))
    assert counts[kept:].sum() == 0
    assert chisquare(counts[:kept], DRAWS * probabilities / probabilities.sum()).pvalue > 0.001


def test_the_steps_of_one_row_are_independent_draws():
    draw = plan_draws([np.random.default_rng(7)], Sampling())
    tokens = [int(draw(None, LOGITS.unsqueeze(0)).argmax()) for _ in range(2 * DRAWS)]
    pairs = np.bincount([4 * a + b for a, b in zip(tokens[::2], tokens[1::2], strict=True) if max(a, b) < 4])
    p = torch.softmax(LOGITS[:4].double(), dim=0).numpy()
    assert chisquare(pairs, pairs.sum() * np.outer(p, p).ravel()).pvalue > 0.001


def test_a_row_draws_the_same_whatever_stands_beside_it():
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    sampling = Sampling(temperature=1.3, top_p=0.7, top_k=20, min_p=0.01)
    together = next_tokens(sampling, (5, 5, 6, 7), logits)
    alone = [int(next_tokens(sampling, [seed], logits[row : row + 1])) for row, seed in enumerate((5, 5, 6, 7))]
    assert alone == together.tolist()
    assert torch.equal(next_tokens(Sampling(temperature=0), (), logits), logits.argmax(dim=1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_scores_that_are_no_numbers_are_refused(bad, temperature):
    scores = torch.tensor([[0.0, 1.0], [bad, 1.0]])
    with pytest.raises(GenerationError, match="scores are not finite; set dtype: float32"):
        next_tokens(Sampling(temperature=temperature), (1, 2), scores)
