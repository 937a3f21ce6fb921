"""Sampling: the filter against Transformers' warpers and the old rule's edges, and what is drawn, by seed and step."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

from workers.generation.sampling import Draw, filtered, noisy, streams, uniform

INF = float("inf")


def kept(scores: list[float], top_k: int = 0, top_p: float = 1.0) -> list[int]:
    """The places that the filter leaves."""
    return torch.isfinite(filtered(torch.tensor([scores]).float(), top_k, top_p)[0]).nonzero().flatten().tolist()


def test_the_filter_keeps_the_highest_and_whatever_equals_the_lowest_of_them() -> None:
    assert kept([1, 3, 2, 2, 0], top_k=1) == [1]
    assert kept([1, 3, 2, 2, 0], top_k=2) == [1, 2, 3]
    assert kept([1, 3, 2, 2, 0], top_k=9) == kept([1, 3, 2, 2, 0]) == [0, 1, 2, 3, 4]


def test_the_filter_keeps_the_token_that_takes_the_sum_beyond_the_threshold() -> None:
    scores = torch.tensor([0.125, 0.5, 0.25, 0.125]).log().tolist()
    assert kept(scores, top_p=0.01) == [1]
    assert kept(scores, top_p=0.6) == [1, 2]
    assert kept(scores, top_p=0.8) == [0, 1, 2]  # of equal scores the lower id first
    assert kept(scores, top_p=0.99) == [0, 1, 2, 3]
    assert kept(scores, top_k=2, top_p=0.6) == [1]  # of what top_k leaves, 0.5 is two thirds
    assert kept([7.0], top_p=0.5) == [0]


@given(
    st.lists(st.integers(-40, 40), min_size=2, max_size=30, unique=True),
    st.integers(0, 35),
    st.sampled_from([0.05, 0.3, 0.77, 0.9, 0.999, 1.0]),
)
def test_the_filter_is_transformers_where_no_scores_are_equal(values: list[int], top_k: int, top_p: float) -> None:
    scores = torch.tensor([values], dtype=torch.float32) / 4
    warped = scores
    ids = torch.zeros(1, 1, dtype=torch.int64)
    if top_k:
        warped = TopKLogitsWarper(top_k)(ids, warped)
    if top_p < 1:
        warped = TopPLogitsWarper(top_p)(ids, warped)
    assert torch.equal(filtered(scores, top_k, top_p), warped)


def test_numbers_are_the_published_generators() -> None:
    """SplitMix64 from seed 0: https://prng.di.unimi.it/splitmix64.c"""
    mask, golden = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def mixed(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    assert mixed(golden) == 0xE220A8397B1DCDAF
    for seed, step, token in ((0, 0, 0), (123, 7, 50_000), ((1 << 63) - 1, 4096, 151_643)):
        stream = mixed((mixed((seed + golden) & mask) + step * golden) & mask)
        expected = ((mixed((stream + (token + 1) * golden) & mask) >> 11) + 0.5) * 2.0**-53
        found = uniform(streams(torch.tensor([seed]), step), torch.tensor([token]))
        assert found.item() == expected


def test_numbers_are_even_over_seeds_steps_and_tokens() -> None:
    """Each way of counting gives bins that are as even as chance makes them (chi-square, 99 degrees of freedom)."""
    count = 20_000
    seeds, tokens = torch.arange(count), torch.arange(count)
    one = torch.tensor([5])
    ways = [
        uniform(streams(one, 3).expand(count), tokens),
        uniform(streams(seeds, 3), torch.zeros_like(tokens)),
        torch.cat([uniform(streams(one, step), one) for step in range(2000)]),
    ]
    for numbers in ways:
        assert 0 < numbers.min() < numbers.max() < 1
        bins = np.bincount((numbers * 100).long().numpy(), minlength=100)
        expected = len(numbers) / 100
        assert 50 < ((bins - expected) ** 2 / expected).sum() < 160
        pairs = np.corrcoef(numbers[:-1].numpy(), numbers[1:].numpy())[0, 1]
        assert abs(pairs) < 0.07


def test_tokens_are_drawn_by_their_probability() -> None:
    weights = torch.tensor([0.4, 0.3, 0.2, 0.09, 0.01, 0.0])
    count = 20_000
    scores = weights.log().repeat(count, 1) + 3
    for step in (0, 1, 500):
        drawn = noisy(scores, torch.arange(count), step).argmax(-1)
        found = torch.bincount(drawn, minlength=6).double()
        assert found[5] == 0
        chi = ((found - count * weights) ** 2 / (count * weights))[:5].sum()
        assert chi < 18.5  # 4 degrees of freedom, one chance in a thousand


def test_steps_and_seeds_draw_anew() -> None:
    scores = torch.zeros(1, 1000)
    drawn = {int(noisy(scores, torch.tensor([seed]), step).argmax()) for seed in range(20) for step in range(20)}
    assert len(drawn) > 300


def test_rounding_changes_a_draw_only_where_two_were_that_close() -> None:
    """Over 500 rows of 5,000 tokens, a looked-up random number would fall to another token more often than this."""
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(500, 5000, generator=generator)
    seeds = torch.arange(500)
    moved = scores + 1e-6 * torch.randn(scores.shape, generator=generator)
    assert torch.equal(noisy(scores, seeds, 0).argmax(-1), noisy(moved, seeds, 0).argmax(-1))


def test_a_draw_is_its_rows_alone() -> None:
    scores = torch.randn(5, 50)
    ids = torch.zeros(5, 9, dtype=torch.int64)
    warpers = LogitsProcessorList([TopKLogitsWarper(10)])
    together = Draw(warpers, [3, 1, 4, 1, 5], 6, scores.device)(ids, scores)
    for row, seed in enumerate([3, 1, 4, 1, 5]):
        alone = Draw(warpers, [seed], 2, scores.device)(ids[:1, :5], scores[row : row + 1])
        assert torch.equal(alone[0], together[row])
        assert torch.isfinite(alone).sum() == 10


@pytest.mark.parametrize("value", [INF, float("nan")])
def test_no_number_stays_none(value: float) -> None:
    found = noisy(torch.tensor([[0.0, value], [0.0, 1.0]]), torch.tensor([1, 2]), 0)
    assert not torch.isfinite(found[0].amax())
    assert torch.isfinite(found[1]).all()
