"""Times of Whisper's tokens, against the functions of Transformers for one transcript."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.whisper.generation_whisper import WhisperGenerationMixin, _dynamic_time_warping
from transformers.utils.generic import ModelOutput

from workers.audio.whisper_timestamps import _warp, token_times


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (7, 30), (40, 25), (60, 200)])
@pytest.mark.parametrize("steps", [2, 5, None])
def test_the_way_is_theirs(shape: tuple[int, int], steps: int | None) -> None:
    """With few different costs there are many ways of one cost, of which the same has to be chosen."""
    random = np.random.default_rng(7)
    matrix = random.standard_normal(shape) if steps is None else random.integers(0, steps, shape).astype(np.float64)
    rows, columns = _dynamic_time_warping(matrix)
    begins = columns[np.pad(np.diff(rows), (1, 0), constant_values=1).astype(bool)]
    assert np.array_equal(_warp(matrix), begins)


class Model(WhisperGenerationMixin):
    """What `_extract_token_timestamps` needs of a model."""

    class config:
        decoder_layers = 2
        median_filter_width = 3


@pytest.mark.parametrize(("tokens", "frames"), [(1, 40), (2, 40), (9, 33), (9, 2), (9, 1), (30, 100), (0, 40)])
def test_the_times_are_theirs(tokens: int, frames: int) -> None:
    random = torch.Generator().manual_seed(3)
    seen = tuple(torch.rand(1, 2, 4 + tokens, 50, generator=random) for _ in range(2))
    heads = [[0, 1], [1, 0]]
    output: Any = ModelOutput
    made = output(cross_attentions=(seen,), sequences=torch.zeros(1, 5 + tokens, dtype=torch.int64))
    with warnings.catch_warnings(action="ignore"):  # of no places
        model: Any = Model()
        theirs = model._extract_token_timestamps(made, heads, num_frames=torch.tensor([frames]), num_input_ids=4)
    weights = torch.stack([seen[layer][0, head] for layer, head in heads])[:, 4:, : frames // 2]
    assert torch.equal(token_times(weights, 3), theirs[0, 4:])
