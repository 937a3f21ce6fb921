"""image-segmentation: the things and areas in a picture, and the pixels of each.

The semantics are those of the Transformers pipeline:
https://huggingface.co/docs/transformers/main_classes/pipelines#transformers.ImageSegmentationPipeline
`instance` finds single things. `semantic` gives every pixel a class. `panoptic` gives every pixel to one thing or area
at most. As in the pipeline, the masks of a picture don't overlap, and an instance that later ones cover has an empty
mask.

A mask is COCO's compressed run-length encoding. To decode it to a numpy array of shape (height, width), 1 where the
segment is:

    from pycocotools import mask as coco

    segment = prediction["segments"][0]
    pixels = coco.decode(segment["mask"])
"""

from typing import Literal

import pyarrow as pa
from pydantic import Field

from schemas.task import Column, Group, Kind, Task, TaskParams, field
from schemas.vision import HEIGHT, IMAGE, WIDTH, box


class Params(TaskParams):
    subtask: Literal["panoptic", "instance", "semantic"] | None = Field(
        None,
        description="What to find, as far as the model can; by default the first of panoptic, instance and semantic "
        "that it can.",
    )
    threshold: float = Field(
        0.9, ge=0, le=1, description="Segments with a smaller score are left out; not for `semantic`."
    )
    mask_threshold: float = Field(
        0.5,
        ge=0,
        le=1,
        description="The probability from which on a pixel counts for a segment's own area, in `panoptic` alone.",
    )
    overlap_mask_area_threshold: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Segments of which a smaller share of their own area is left beside the others are left out, in "
        "`panoptic` alone.",
    )


_MASK = pa.struct(
    [
        field("size", pa.list_(pa.int32()), "The mask's height and width, which are the picture's.", unit="px"),
        field("counts", pa.string(), "COCO's compressed run-length encoding of the mask, column by column."),
    ]
)
_SEGMENT = pa.struct(
    [
        field("label", pa.string(), "What it is, from the model's configuration."),
        field("score", pa.float32(), "How sure the model is of it; null for `semantic`.", range="[0, 1]"),
        field("area_px", pa.int64(), "How many pixels it has.", unit="px"),
        box("The box around it: `mask[ymin:ymax, xmin:xmax]` has all of it; zeros where the mask is empty."),
        field("mask", _MASK, "Which pixels it has."),
    ]
)

TASK = Task(
    id="image-segmentation",
    group=Group.VISION,
    summary="Give the pixels of a picture to things and areas: for each a label, a score and a mask.",
    columns=(Column("image", IMAGE, kind=Kind.IMAGE),),
    params=Params,
    prediction=pa.struct(
        [field("segments", pa.list_(_SEGMENT), "What was found; an empty list where nothing was."), WIDTH, HEIGHT]
    ),
    version=1,
    heads=("ForUniversalSegmentation", "ForSemanticSegmentation"),
    shard_rows=256,
)
