"""Sample with a seed per record: a draw depends on the seed, the step and the scores, and on nothing else.

The token drawn has the highest score + Gumbel noise, which is a draw by the softmax of the scores
(https://arxiv.org/abs/1411.0030). A token's noise is a function of the seed, the step and the token's id, so there is
no generator with a state. The rounding of a padded batch changes a draw only if the two highest sums are that close. A
single random number looked up in cumulative probabilities would pass the rounding of one score on to all later tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def _mixed(x: torch.Tensor) -> torch.Tensor:
    """Apply SplitMix64's finaliser (https://prng.di.unimi.it/splitmix64.c) to the bits of int64 of any shape."""
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift to the right, filling with zeros and not with the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def streams(seeds: torch.Tensor, step: int) -> torch.Tensor:
    """Return the random stream of each seed at this step, int64 like the seeds."""
    return _mixed(_mixed(seeds + _GOLDEN) + torch.full_like(seeds, step) * _GOLDEN)


def uniform(stream: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return a float64 number in (0, 1) for each stream and token, which are int64 of one shape."""
    bits = _shifted(_mixed(stream + (tokens + 1) * _GOLDEN), 11)
    return (bits.double() + 0.5) * 2.0**-53


def noisy(scores: torch.Tensor, seeds: torch.Tensor, step: int) -> torch.Tensor:
    """Return the scores, of shape (rows, vocabulary), plus Gumbel noise, float64. The highest is the token drawn.

    `seeds` is int64 of shape (rows,). Scores of -inf stay -inf, and cost little; NaN stays NaN.
    """
    rows, tokens = (scores != -torch.inf).nonzero(as_tuple=True)
    noise = -torch.log(-torch.log(uniform(streams(seeds, step)[rows], tokens)))
    found = torch.full(scores.shape, -torch.inf, dtype=torch.float64, device=scores.device)
    found[rows, tokens] = scores[rows, tokens].double() + noise
    return found


def filtered(scores: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Return the scores, of shape (rows, vocabulary), with -inf for those excluded by top_k (0: off) or top_p (1: off).

    Rule: `top_k_top_p_filtering` of Transformers 4, generation_utils.py, before it was built on the logits warpers.
    """
    if top_k:
        lowest = torch.topk(scores, min(top_k, scores.shape[-1])).values[:, -1:]
        scores = scores.masked_fill(scores < lowest, -torch.inf)
    if top_p < 1:
        ordered, ids = torch.sort(scores, descending=True, stable=True)
        before = ordered.softmax(-1).cumsum(-1).roll(1, dims=-1)
        before[:, 0] = 0
        scores = scores.masked_fill((before > top_p).scatter(-1, ids, before > top_p), -torch.inf)
    return scores


class Draw(LogitsProcessor):
    """Makes greedy generation draw at random, by adding each row's noise to the scores that the warpers return."""

    def __init__(self, warpers: LogitsProcessorList, seeds: Sequence[int], prompt: int, device: torch.device) -> None:
        """`prompt` is the number of ids in a row before the first one drawn, padding included."""
        self._warpers: Any = warpers
        self._seeds = torch.tensor(seeds, dtype=torch.int64, device=device)
        self._prompt = prompt

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return noisy(self._warpers(input_ids, scores), self._seeds, input_ids.shape[1] - self._prompt)
