"""Run-length encoding against pycocotools, which encodes one mask at a time from its pixels."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from workers.vision.rle_masks import Mask, masks
from workers.vision.segmentation import runs

#: What pycocotools 2.0.11 says of its own code under numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def by_runs(segments: np.ndarray, numbers: list[int]) -> list[Mask]:
    found = runs(torch.from_numpy(segments))
    height, width = segments.shape
    return masks(found["starts"].numpy(), found["values"].numpy(), (height, width), numbers)


def by_pixels(segments: np.ndarray, number: int) -> Mask:
    """The mask of one number, the slow way."""
    inside = segments == number
    encoded: dict[str, Any] = coco.encode(np.asfortranarray(inside.astype(np.uint8)))
    rows, columns = np.nonzero(inside)
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else (0, 0, 0, 0)
    box = dict(zip(("xmin", "ymin", "xmax", "ymax"), map(float, edges), strict=True))
    return Mask({"size": list(encoded["size"]), "counts": encoded["counts"].decode()}, int(inside.sum()), box)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)))
def test_any_small_map(segments: np.ndarray) -> None:
    numbers = [0, 1, 2, 3, 200]
    found = by_runs(segments, numbers)
    assert found == [by_pixels(segments, number) for number in numbers]
    for number, mask in zip(numbers, found, strict=True):
        assert np.array_equal(coco.decode(mask.rle), segments == number)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (123, 77)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_blobs(shape: tuple[int, int], dtype: Any) -> None:
    y, x = np.indices(shape)
    segments = ((x // 9 + y // 7) % 5).astype(dtype)
    assert by_runs(segments, list(range(6))) == [by_pixels(segments, number) for number in range(6)]


def test_a_mask_without_pixels() -> None:
    (mask,) = by_runs(np.zeros((4, 6), np.uint8), [1])
    assert (mask.area, set(mask.box.values())) == (0, {0.0})
    assert coco.decode(mask.rle).shape == (4, 6)


def test_a_box_holds_all_of_its_mask() -> None:
    segments = np.zeros((20, 30), np.uint8)
    segments[5:9, 11:20] = 1
    segments[7, 25] = 1
    (mask,) = by_runs(segments, [1])
    assert mask.box == {"xmin": 11.0, "ymin": 5.0, "xmax": 26.0, "ymax": 9.0}
    assert segments[5:9, 11:26].sum() == mask.area == 4 * 9 + 1
