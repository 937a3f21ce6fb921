"""Maps of segments: as if all had been enlarged at once, in memory that doesn't grow with the number of queries."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import workers.vision.segmentation
from workers.vision.segmentation import panoptic_map, semantic_map


@pytest.mark.parametrize("budget", [1, 3, 4, 7, 30])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7, 23, 300])
def test_a_few_planes_at_a_time_are_as_good_as_all(count: int, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (37, 53)
    monkeypatch.setattr(workers.vision.segmentation, "_AT_ONCE", budget * size[0] * size[1])
    planes = torch.randn(count, 9, 11, generator=torch.Generator().manual_seed(count))
    whole = torch.nn.functional.interpolate(planes[None], size=size, mode="bilinear", align_corners=False)[0]
    found = semantic_map(planes, size)
    assert found.dtype is (torch.uint8 if count < 256 else torch.int16)
    assert torch.equal(found.long(), whole.argmax(0))


@pytest.mark.parametrize("budget", [1, 2, 30])
def test_of_equal_values_the_first_has_the_pixel(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.vision.segmentation, "_AT_ONCE", budget * 16)
    planes = torch.zeros(5, 2, 2)
    planes[2:] = 1
    assert (semantic_map(planes, (4, 4)) == 2).all()


def test_no_query_is_a_map_of_zeros() -> None:
    found = panoptic_map(torch.zeros(4, 3), torch.zeros(4, 8, 8), (5, 6), threshold=0.9, mask_threshold=0.5)
    assert found["map"].shape == (5, 6)
    assert not found["map"].any()
    assert [len(found[name]) for name in ("labels", "scores", "own")] == [0, 0, 0]


#: 12 queries, all kept, on 12 million pixels: all at once they are 576 MB, and twice that where they are weighed.
_LARGE = """
import resource, torch
from workers.vision.segmentation import instance_map, panoptic_map, semantic_map
torch.set_num_threads(1)
classes, masks, size = torch.randn(12, 9), torch.randn(12, 64, 64), (3000, 4000)
classes[:, -1] = -20
with torch.inference_mode():
    panoptic_map(classes, masks, (30, 40), 0.0, 0.5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    {call}
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.parametrize(
    "call",
    [
        "panoptic_map(classes, masks, size, 0.0, 0.5)",
        "instance_map(classes, masks, size, 0.0)",
        "semantic_map(masks, size)",
    ],
)
def test_a_large_picture_takes_bounded_memory(call: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LARGE.replace("{call}", call)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    megabytes = int(done.stdout)
    assert megabytes < 300
