"""Encode a picture's masks as COCO run-length encoding, with their boxes and areas, from a map's runs.

The format: https://github.com/cocodataset/cocoapi/blob/master/PythonAPI/pycocotools/mask.py
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.extras import missing_extra


@dataclass(frozen=True)
class Mask:
    """One segment. `rle` is {size: [height, width], counts: text}, which `pycocotools.mask.decode` reads.

    `box` is the bounding box in pixels from the upper left corner: `mask[ymin:ymax, xmin:xmax]` has the whole segment.
    The box of an empty mask is all zeros.
    """

    rle: dict[str, Any]
    area: int
    box: dict[str, float]


def require_pycocotools() -> None:
    """Raise Permanent (`missing_extra`) if pycocotools isn't installed."""
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise missing_extra("image-segmentation", "vision", error) from error


def masks(starts: np.ndarray, values: np.ndarray, size: tuple[int, int], numbers: Sequence[int]) -> list[Mask]:
    """Return the mask of each of `numbers` in a map of `size` (height, width).

    The map is given by its runs, as `workers.vision.segmentation.runs` has them.
    """
    height, width = size
    starts = starts.astype(np.int64)
    ends = np.append(starts[1:], height * width)
    order = np.argsort(values, kind="stable")
    first = np.searchsorted(values[order], numbers, side="left")
    last = np.searchsorted(values[order], numbers, side="right")
    return [_mask(starts[order[a:b]], ends[order[a:b]], height, width) for a, b in zip(first, last, strict=True)]


def _mask(starts: np.ndarray, ends: np.ndarray, height: int, width: int) -> Mask:
    """Return the mask whose pixels are given as runs, as positions in the flattened columns."""
    from pycocotools import mask as coco

    # The lengths of the runs outside and inside the mask, in turn, from the first pixel to the last.
    edges = np.stack([starts, ends], axis=1).reshape(-1)
    counts = np.diff(edges, prepend=0, append=height * width)
    if not counts[-1] and len(counts) > 1:
        counts = counts[:-1]
    rle = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    x, y, across, down = (float(value) for value in coco.toBbox(rle))
    return Mask(
        {"size": [height, width], "counts": rle["counts"].decode("ascii")},
        int((ends - starts).sum()),
        {"xmin": x, "ymin": y, "xmax": x + across, "ymax": y + down},
    )
