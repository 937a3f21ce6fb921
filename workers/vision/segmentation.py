"""Make maps of segments at a picture's own size from a model's raw outputs, equal to the processors' post-processing.

The image processors hold every query or class at the picture's full size at once: 100 queries on 12 million pixels are
4.8 GB. Here a few are enlarged at a time, so that making a map takes about 14 bytes per pixel, whatever the model.
Rules: image_processing_pil_mask2former.py, …_maskformer.py and …_segformer.py in Transformers 5.

A map is an integer tensor of shape (height, width): uint8, or int16 if more numbers are needed. `classes` are the
logits of the classes of a picture's queries, float32 of shape (queries, classes + 1); the last class is "no object".
`masks` are the logits of the queries' masks, float32 of shape (queries, h, w).
"""

from collections.abc import Iterator

import torch
from torch.nn.functional import interpolate

#: How many numbers are enlarged at once: many small planes, or one large plane.
_AT_ONCE = 1 << 22

Size = tuple[int, int]


def semantic_map(planes: torch.Tensor, size: Size) -> torch.Tensor:
    """Return the class of each pixel, from the classes' logits or scores, float32 of shape (classes, h, w)."""
    return _best(_enlarged(planes, size), len(planes), size)


def class_planes(classes: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the scores of each class in each place, of shape (classes, h, w), for `semantic_map`."""
    weights = classes.softmax(dim=-1)[None, :, :-1]
    return torch.einsum("bqc, bqhw -> bchw", weights, masks.sigmoid()[None])[0]


def panoptic_map(
    classes: torch.Tensor, masks: torch.Tensor, size: Size, threshold: float, mask_threshold: float
) -> dict[str, torch.Tensor]:
    """Return a map that assigns each pixel to a query, among the queries with a score over `threshold`.

    `map` has numbers from 1, or only 0 if there is no such query. `labels`, `scores` and `own` are indexed by
    number - 1. `own` counts the picture's pixels for which the query's value is at least `mask_threshold`, whichever
    query they are assigned to.
    """
    scores, labels = classes.softmax(dim=-1).max(-1)
    kept = (labels != classes.shape[-1] - 1) & (scores > threshold)
    scores, labels = scores[kept], labels[kept]
    own: list[torch.Tensor] = []

    def weighted() -> Iterator[torch.Tensor]:
        start = 0
        for few in _enlarged(masks[kept].sigmoid(), size):
            planes = few.mul_(scores[start : start + len(few), None, None])
            own.append((planes >= mask_threshold).sum((1, 2)))
            start += len(planes)
            yield planes

    found = _best(weighted(), len(scores), size, first=1) if len(scores) else _empty(size, 0, classes.device)
    counts = torch.cat(own) if own else labels.new_empty(0)
    return {"map": found, "labels": labels, "scores": scores, "own": counts}


def instance_map(classes: torch.Tensor, masks: torch.Tensor, size: Size, threshold: float) -> dict[str, torch.Tensor]:
    """Return a map of the instances with at least this score. Where they overlap, the later one gets the pixel.

    `map` has numbers from 1, and 0 for no instance. `labels` and `scores` are indexed by number - 1.
    """
    queries, count = classes.shape[0], classes.shape[1] - 1
    likely = classes.softmax(dim=-1)[:, :-1].flatten()
    scores, places = likely.topk(queries, sorted=False)
    # The mask's score, at most 1, can only lower the class's score.
    kept = scores >= threshold
    scores, places = scores[kept], places[kept]
    chosen = masks[places // count]
    inside = (chosen > 0).float()
    scores = scores * (chosen.sigmoid() * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6)
    found = _empty(size, queries, classes.device)
    taken: list[int] = []
    for index in torch.nonzero(scores >= threshold)[:, 0].tolist():
        plane = interpolate(inside[None, index : index + 1], size=size, mode="nearest")[0, 0] > 0
        if plane.any():
            taken.append(index)
            found[plane] = len(taken)
    return {"map": found, "labels": places[taken] % count, "scores": scores[taken]}


def runs(segments: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return a map as runs of equal numbers down its columns, left to right. Most pictures are far smaller so.

    `starts`, int32, are positions in the concatenated columns, and `values` are the numbers there.
    """
    pixels = segments.T.reshape(-1)
    changes = torch.nonzero(pixels[1:] != pixels[:-1])[:, 0] + 1
    starts = torch.cat([changes.new_zeros(1), changes])
    return {"starts": starts.int(), "values": pixels[starts]}


def on_canvas(masks: torch.Tensor, canvas: Size) -> torch.Tensor:
    """Return the masks scaled to this size."""
    return interpolate(masks[None], size=canvas, mode="bilinear", align_corners=False)[0]


def _enlarged(planes: torch.Tensor, size: Size) -> Iterator[torch.Tensor]:
    """Yield the planes at this size, a few at a time, with the same values as if they were enlarged together."""
    step = max(1, _AT_ONCE // (size[0] * size[1]))
    # PyTorch treats exactly three channels in a special way, whose last bits differ.
    while len(planes) != 3 and 3 in (step, len(planes) % step):
        step += 1
    step = 3 if len(planes) == 3 else step
    for start in range(0, len(planes), step):
        yield interpolate(planes[None, start : start + step], size=size, mode="bilinear", align_corners=False)[0]


def _best(planes: Iterator[torch.Tensor], count: int, size: Size, first: int = 0) -> torch.Tensor:
    """Return for each pixel the index of the greatest of `count` values, the first if equal, counted from `first`."""
    greatest: torch.Tensor | None = None
    best: torch.Tensor | None = None
    start = first
    for few in planes:
        values, places = (few[0], None) if len(few) == 1 else few.max(0)
        if greatest is None or best is None:
            greatest, best = values, _empty(size, first + count, values.device)
            best.fill_(start) if places is None else best.copy_(places + start)
        else:
            more = values > greatest
            torch.maximum(greatest, values, out=greatest)
            if places is None:
                best.masked_fill_(more, start)
            else:
                best[more] = (places[more] + start).to(best.dtype)
        start += len(few)
    assert best is not None
    return best


def _empty(size: Size, largest: int, device: torch.device) -> torch.Tensor:
    """Return a map of zeros that can hold numbers up to `largest`."""
    return torch.zeros(size, dtype=torch.uint8 if largest < 256 else torch.int16, device=device)
