"""image-classification: labels for a picture.

Semantics: https://huggingface.co/docs/transformers/main_classes/pipelines#transformers.ImageClassificationPipeline

A picture is turned as its EXIF says. Only the first of several frames is read. Alpha is dropped, and 16-bit grey is
scaled to 8 bits. Error rows: `no_image` (no bytes), `unreadable_image` (truncated, broken or of another format),
`image_too_large` (over the limit of pixels, or so long and narrow that the model's image processor would make it so),
`image_unfit` (that processor refuses it).
"""

from typing import Literal

import pyarrow as pa
from pydantic import Field

from schemas.task import Column, Group, Kind, Task, TaskParams, field
from schemas.vision import HEIGHT, IMAGE, WIDTH


class Params(TaskParams):
    top_k: int = Field(5, ge=1, le=1_000_000, description="How many labels to return in `top`, best first.")
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        None,
        description="What turns logits into scores. By default the model's configuration decides: none for a "
        "regression, sigmoid for one label or a multi-label problem, else softmax.",
    )


_label = field("label", pa.string(), "The label's name, from the model's configuration.")
_score = field("score", pa.float32(), "The label's score.", range="[0, 1]; any number where no function is applied")

TASK = Task(
    id="image-classification",
    group=Group.VISION,
    summary="Label a picture.",
    columns=(Column("image", IMAGE, kind=Kind.IMAGE),),
    params=Params,
    prediction=pa.struct(
        [
            _label,
            _score,
            field("top", pa.list_(pa.struct([_label, _score])), "The `top_k` best labels, best first."),
            WIDTH,
            HEIGHT,
        ]
    ),
    version=1,
    heads=("ForImageClassification", "ForImageClassificationWithTeacher"),
    shard_rows=1024,
)
