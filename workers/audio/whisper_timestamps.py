"""When was each token of Whisper said? At the place in the sound that the decoder attended to as it read the token.

Rule: `_extract_token_timestamps` of Transformers' models/whisper/generation_whisper.py, applied to one transcript by
itself. There, the times in a batch depend on its longest transcript.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

#: The number of seconds that a place of the encoder's output stands for.
PLACE_S = 0.02


def cross_attentions(
    model: Any, hidden: torch.Tensor, ids: torch.Tensor, heads: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Return how much each token (the input ids, in one pass) attends to each place, of shape (heads, tokens, places).

    `heads` are pairs of layer and head, and `hidden` is the encoder's output for this one chunk.
    """
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the other implementations don't return attentions
    try:
        seen = model.get_decoder()(
            input_ids=ids, encoder_hidden_states=hidden, output_attentions=True, use_cache=False
        ).cross_attentions
    finally:
        model.set_attn_implementation(usual)
    return torch.stack([seen[layer][0, head] for layer, head in heads])


def token_times(weights: torch.Tensor, filter_width: int) -> torch.Tensor:
    """Return when each token begins, in seconds, and the last time twice: float32 of shape (tokens + 1,), on the CPU.

    `weights` are the alignment heads' cross attentions, of shape (heads, tokens, places). If there are no tokens, the
    time is 0. If there are no places, each time is one place before the start.
    """
    _, tokens, places = weights.shape
    if not tokens:
        return torch.zeros(1)
    if not places:
        return torch.full((tokens + 1,), -PLACE_S)
    deviation, mean = torch.std_mean(weights.float(), dim=-2, keepdim=True, unbiased=False)
    smooth = _median((weights.float() - mean) / deviation, filter_width).mean(dim=0)
    with np.errstate(invalid="ignore"):  # a single token has no deviation
        begins = torch.from_numpy(_warp(-smooth.cpu().double().numpy()) * PLACE_S)
    return torch.cat([begins, begins[-1:]]).float()


def _median(weights: torch.Tensor, width: int) -> torch.Tensor:
    """Return the median of each place and its `width - 1` neighbours, mirrored at the ends."""
    side = width // 2
    if weights.shape[-1] <= side:
        return weights
    around = torch.nn.functional.pad(weights, (side, side, 0, 0), mode="reflect")
    return around.unfold(-1, width, 1).sort()[0][..., side]


def _warp(matrix: np.ndarray) -> np.ndarray:
    """Return, for each row, the first column on the cheapest path from the matrix's first corner to its last.

    This is dynamic time warping by anti-diagonals, on which costs don't depend on each other. Among paths of equal cost
    it chooses like the function it follows, whose last case is a step to the right.
    """
    rows, columns = matrix.shape
    flat = matrix.ravel()
    # On a diagonal d a cost is indexed by its row i; its column is d - i. Row 0 and column 0 lie before the matrix.
    before = np.full(rows + 1, np.inf, dtype=np.float32)
    last = before.copy()
    before[0] = 0
    steps = np.full((rows + columns + 1, rows + 1), 2, dtype=np.int8)
    for d in range(2, rows + columns + 1):
        low, high = max(1, d - columns), min(rows, d - 1) + 1
        both, down, right = before[low - 1 : high - 1], last[low - 1 : high - 1], last[low:high]
        take_both = (both < down) & (both < right)
        take_down = (down < both) & (down < right) & ~take_both
        cheapest = np.where(take_both, both, np.where(take_down, down, right))
        places = np.arange(low, high) * (columns - 1) + (d - columns - 1)
        current = np.full(rows + 1, np.inf, dtype=np.float32)
        current[low:high] = flat[places] + cheapest
        steps[d, low:high] = np.where(take_both, 0, np.where(take_down, 1, 2))
        before, last = last, current
    begins = np.zeros(rows, dtype=np.int64)
    i, j = rows, columns
    while i > 0:
        begins[i - 1] = j - 1
        step = 1 if j == 0 else steps[i + j, i]
        i -= step != 2
        j -= step != 1
    return begins
