"""object-detection: the things in a picture, each with a label, a score and a box.

The semantics are those of the Transformers pipeline, except that boxes keep their fractions of a pixel:
https://huggingface.co/docs/transformers/main_classes/pipelines#transformers.ObjectDetectionPipeline
Objects are in the order of the model's queries, as in the pipeline. A box may reach over the picture's edge.
"""

import pyarrow as pa
from pydantic import Field

from schemas.task import Column, Group, Kind, Task, TaskParams, field
from schemas.vision import HEIGHT, IMAGE, WIDTH, box


class Params(TaskParams):
    threshold: float = Field(0.5, ge=0, le=1, description="Only objects with a score above this are returned.")


_OBJECT = pa.struct(
    [
        field("label", pa.string(), "What it is, from the model's configuration; never its name for no object."),
        field("score", pa.float32(), "How sure the model is of it.", range="[0, 1]"),
        box("Where it is."),
    ]
)

TASK = Task(
    id="object-detection",
    group=Group.VISION,
    summary="Find the things in a picture: for each a label, a score and a box.",
    columns=(Column("image", IMAGE, kind=Kind.IMAGE),),
    params=Params,
    prediction=pa.struct(
        [field("objects", pa.list_(_OBJECT), "What was found; an empty list where nothing was."), WIDTH, HEIGHT]
    ),
    version=1,
    heads=("ForObjectDetection",),
    shard_rows=512,
)
