"""image-segmentation: a forward pass over a picture, then a map of its segments, then a mask for each.

The map is made on the device at the picture's own size, and leaves it as runs, which are by far the smallest form.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

from schemas.errors import Permanent, RecordError
from schemas.job import JobSpec
from schemas.tasks.image_segmentation import TASK, Params
from workers.handler import Handler, Loaded, Output, Piece, Prediction, Record
from workers.models.load import load_model
from workers.vision.processor import in_equal_shapes, load_processor, prepare
from workers.vision.rle_masks import Mask, masks, require_pycocotools
from workers.vision.segmentation import Size, class_planes, instance_map, on_canvas, panoptic_map, runs, semantic_map

#: The image processors of models that find segments by queries, by the start of their names, with the size to which
#: they first scale the masks, whatever the model's size. In other models, each class has a plane of logits.
_WITH_QUERIES: dict[str, Size | None] = {"Mask2FormerImageProcessor": (384, 384), "MaskFormerImageProcessor": None}


class ImageSegmentation(Handler[Params]):
    task = TASK

    def __init__(self, loaded: Loaded, params: Params, spec: JobSpec) -> None:
        super().__init__(loaded, params, spec)
        able = ("panoptic", "instance", "semantic") if _queries(loaded.processor) else ("semantic",)
        if params.subtask is not None and params.subtask not in able:
            raise Permanent(
                f"params.subtask: the model, a {type(loaded.model).__name__}, can't do {params.subtask}; "
                f"it can do {', '.join(able)}",
                code="bad_params",
            )
        self._subtask = params.subtask or able[0]
        # Queries attend to the places where a mask is at least 0.5. A value at that edge is decided by its last bits,
        # which depend on how many pictures are computed at once. On a CPU a batch would save next to nothing.
        self._alone = bool(_queries(loaded.processor)) and loaded.device.type == "cpu"

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        require_pycocotools()
        processor = load_processor(folder)
        if not hasattr(processor, "post_process_semantic_segmentation"):
            raise Permanent(
                f"the image processor, a {type(processor).__name__}, is not one of a model that segments", code="model"
            )
        auto = AutoModelForUniversalSegmentation if _queries(processor) else AutoModelForSemanticSegmentation
        return Loaded(load_model(auto, folder, device, dtype), processor, device, dtype)

    def prepare(self, records: Sequence[Record]) -> list[Iterator[Piece]]:
        return prepare(self.loaded, records)

    def infer(self, pieces: Sequence[Piece]) -> list[Output]:
        """Return for each picture the runs of a map of its segments, and what else its subtask needs.

        See `workers.vision.segmentation`.

        `finite` says whether all of the model's outputs were finite numbers.
        """
        batches = [[piece] for piece in pieces] if self._alone else [pieces]
        outputs = [output for batch in batches for output in in_equal_shapes(self.loaded, batch, self._compute)]
        return [self._mapped(piece, output) for piece, output in zip(pieces, outputs, strict=True)]

    def _compute(self, inputs: dict[str, torch.Tensor]) -> list[Output]:
        outputs = self.loaded.model(**inputs)
        if not _queries(self.loaded.processor):
            return [{"planes": planes} for planes in outputs.logits]
        both = zip(outputs.class_queries_logits, outputs.masks_queries_logits, strict=True)
        return [{"classes": classes, "masks": found} for classes, found in both]

    def _mapped(self, piece: Piece, output: Any) -> Output:
        width, height = piece.notes
        size = (height, width)
        raw = {name: values.float() for name, values in output.items()}
        finite = torch.stack([torch.isfinite(values).all() for values in raw.values()]).all()
        canvas = next(iter(_queries(self.loaded.processor)), None)
        if canvas is not None:
            raw["masks"] = on_canvas(raw["masks"], canvas)
        if self._subtask == "panoptic":
            made = panoptic_map(
                **raw, size=size, threshold=self.params.threshold, mask_threshold=self.params.mask_threshold
            )
        elif self._subtask == "instance":
            made = instance_map(**raw, size=size, threshold=self.params.threshold)
        else:
            made = {"map": semantic_map(raw["planes"] if "planes" in raw else class_planes(**raw), size)}
        return runs(made.pop("map")) | made | {"finite": finite}

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        width, height = pieces[0].notes
        output = outputs[0]
        if not output["finite"]:
            raise RecordError(
                "not_finite", "the model's output is not a number; float16 may be too narrow for this model"
            )
        size = (height, width)
        segments = self._classes(output, size) if self._subtask == "semantic" else self._found(output, size)
        return {"segments": segments, "width": width, "height": height}

    def _classes(self, output: dict[str, np.ndarray], size: Size) -> list[Prediction]:
        """Return a segment for each class that a pixel has, in the order of the classes."""
        names = self.loaded.model.config.id2label
        numbers = range(int(output["values"].max()) + 1)
        found = zip(numbers, masks(output["starts"], output["values"], size, numbers), strict=True)
        return [_segment(names[number], None, mask) for number, mask in found if mask.area]

    def _found(self, output: dict[str, np.ndarray], size: Size) -> list[Prediction]:
        """Return a segment for each of a map's queries that is kept, in their order."""
        names = self.loaded.model.config.id2label
        found = masks(output["starts"], output["values"], size, range(1, len(output["scores"]) + 1))
        return [
            _segment(names[int(label)], float(score), mask)
            for index, (label, score, mask) in enumerate(zip(output["labels"], output["scores"], found, strict=True))
            if "own" not in output or self._is_left(mask.area, int(output["own"][index]))
        ]

    def _is_left(self, area: int, own: int) -> bool:
        """Return whether a query got enough of its own pixels. Divides in float32, as the rule's source does."""
        share = self.params.overlap_mask_area_threshold
        return area > 0 and own > 0 and float(np.float32(area) / np.float32(own)) > share


def _queries(processor: Any) -> list[Size | None]:
    """Return the canvas of a processor of models with queries, as a list of one; an empty list for others."""
    name = type(processor).__name__
    return [canvas for prefix, canvas in _WITH_QUERIES.items() if name.startswith(prefix)]


def _segment(label: str, score: float | None, mask: Mask) -> Prediction:
    return {"label": label, "score": score, "area_px": mask.area, "box": mask.box, "mask": mask.rle}
