"""Draws follow the distribution that is asked for, truncations keep exactly the right tokens."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from cuvee.errors import GenerationError
from cuvee.generate import Sampling
from cuvee.generate.drawing import Draws, pick_tokens, token_weights, truncate

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -float("inf")])
DRAWS = 2000


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def doubles(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def truncated(weights, min_p=0.0, top_k=0, top_p=1.0):
    rows = torch.tensor([weights], dtype=torch.float64)
    truncate(rows, min_p=doubles(min_p), top_k=torch.tensor([top_k]), top_p=doubles(top_p))
    return rows[0]


def kept_by_definition(weights, min_p, top_k, top_p):
    """The three truncations one after the other, in exact arithmetic."""
    exact = [Fraction(w) for w in weights]
    kept = {i for i, w in enumerate(exact) if w >= Fraction(min_p) * max(exact)}
    if 0 < top_k < len(exact):
        edge = sorted((exact[i] if i in kept else Fraction(0) for i in range(len(exact))), reverse=True)[top_k - 1]
        kept = {i for i in kept if exact[i] >= edge}
    if top_p < 1:
        total, mass = sum(exact[i] for i in kept), Fraction(0)
        for i in sorted(kept, key=lambda i: -exact[i]):
            mass, edge = mass + exact[i], exact[i]
            # in floating point too it must be plain on which side of the edge a token lies
            assume(abs(mass / total - Fraction(top_p)) > Fraction(1, 10**9))
            if mass >= Fraction(top_p) * total:
                break
        kept = {i for i in kept if exact[i] >= edge}
    return kept


@settings(max_examples=150, deadline=None)
@given(
    numbers=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    min_p=st.sampled_from([0.0, 0.051, 0.31, 1.0]),
    top_k=st.integers(0, 14),
    top_p=st.sampled_from([1e-6, 0.2003, 0.5003, 0.9001, 0.9999, 1.0]),
)
def test_truncation_keeps_exactly_the_right_tokens(numbers, min_p, top_k, top_p):
    weights = [n / max(numbers) for n in numbers]
    left = truncated(weights, min_p, top_k, top_p)
    kept = {i for i, w in enumerate(left.tolist()) if w > 0}
    assert kept == kept_by_definition(weights, min_p, top_k, top_p)
    assert all(left[i] == weights[i] for i in kept)
    assert int(np.argmax(weights)) in kept


def test_top_p_looks_beyond_its_first_look():
    """A flat distribution over many tokens, where half the mass needs more tokens than are looked at first."""
    weights = [1.0 - i * 1e-4 for i in range(4000)]
    exact = np.cumsum(weights) / np.sum(weights)
    assert int((truncated(weights, top_p=0.5) > 0).sum()) == int(np.searchsorted(exact, 0.5)) + 1 > 1024
    assert int((truncated(weights, top_p=0.1) > 0).sum()) == int(np.searchsorted(exact, 0.1)) + 1 < 1024


def test_truncations_come_after_the_temperature():
    """At a high temperature more tokens reach min_p, as in vLLM; llama.cpp would keep the same two."""
    for temperature, expected in ((1.0, 2), (3.0, 5)):
        weights = token_weights(LOGITS.unsqueeze(0), doubles(temperature))
        truncate(weights, min_p=doubles(0.3), top_k=torch.tensor([0]), top_p=doubles(1.0))
        assert int((weights > 0).sum()) == expected


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
    draws = Draws([sampling] * DRAWS, list(range(DRAWS)))
    tokens = draws.next_tokens(LOGITS.expand(DRAWS, -1))
    probabilities = torch.softmax(LOGITS.double() / sampling.temperature, dim=0)[:kept].numpy()
    counts = np.bincount(tokens.numpy(), minlength=len(LOGITS))
    assert counts[kept:].sum() == 0
    assert chisquare(counts[:kept], DRAWS * probabilities / probabilities.sum()).pvalue > 0.001


def test_the_steps_of_one_row_are_independent_draws():
    draws = Draws([Sampling()], [7])
    tokens = [int(draws.next_tokens(LOGITS.unsqueeze(0))) for _ in range(2 * DRAWS)]
    pairs = np.bincount([4 * a + b for a, b in zip(tokens[::2], tokens[1::2], strict=True) if max(a, b) < 4])
    p = torch.softmax(LOGITS[:4].double(), dim=0).numpy()
    assert chisquare(pairs, pairs.sum() * np.outer(p, p).ravel()).pvalue > 0.001


def test_a_row_draws_the_same_whatever_stands_beside_it():
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(12, 4, 50, generator=generator)
    samplings = [
        Sampling(temperature=1.3, top_p=0.7), Sampling(temperature=0.0), Sampling(top_k=5), Sampling(min_p=0.2),
    ]  # fmt: skip
    together = Draws(samplings, [5, 5, 5, 6])
    all_rows = torch.stack([together.next_tokens(logits) for logits in steps])
    for row, (sampling, seed) in enumerate(zip(samplings, [5, 5, 5, 6], strict=True)):
        alone = Draws([sampling], [seed])
        assert [int(alone.next_tokens(logits[row : row + 1])) for logits in steps] == all_rows[:, row].tolist()
    assert torch.equal(all_rows[:, 1], steps[:, 1].argmax(dim=1))


@pytest.mark.parametrize("seed", [-3, 0, 2**31 - 1, 2**70])
def test_any_whole_number_is_a_seed(seed):
    assert 0 <= int(Draws([Sampling()], [seed]).next_tokens(LOGITS.unsqueeze(0))) < 5


def test_neighbouring_seeds_draw_differently():
    def tokens(seed):
        draws = Draws([Sampling(temperature=3.0)], [seed])
        return tuple(int(draws.next_tokens(LOGITS.unsqueeze(0))) for _ in range(20))

    assert len({tokens(seed) for seed in range(20)}) == 20


def test_the_ends_of_the_uniform_interval_never_pick_a_token_left_out():
    weights = torch.tensor([[0.0, 1.0, 0.3, 0.0], [0.0, 1.0, 0.7, 0.0]], dtype=torch.float64)
    assert pick_tokens(weights, doubles(0.0, 0.0)).tolist() == [1, 1]
    last = 1 - 2.0**-53
    assert pick_tokens(weights, doubles(last, last)).tolist() == [2, 2]


def test_a_tiny_temperature_is_greedy_and_a_huge_one_is_flat():
    weights = token_weights(torch.tensor([[30.0, 29.0, -80.0]]), doubles(1e-9))
    assert weights.tolist() == [[1.0, 0.0, 0.0]]
    weights = token_weights(torch.tensor([[30.0, 29.0, -80.0]]), doubles(1e9))
    assert weights.min() > 0.999999


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_refused(bad, temperature):
    logits = torch.tensor([[0.0, 1.0], [bad, 1.0]], dtype=torch.float16)
    with pytest.raises(GenerationError, match=r"not finite in torch\.float16; set dtype: float32"):
        Draws([Sampling(temperature=temperature)] * 2, [1, 2]).next_tokens(logits)
