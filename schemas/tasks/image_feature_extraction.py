"""image-feature-extraction: a vector for a picture, near to those of pictures that look alike.

Semantics: https://huggingface.co/docs/transformers/main_classes/pipelines#transformers.ImageFeatureExtractionPipeline
The pipeline's `pool=True` is `pooling: pooler` here, without `normalize`. See
docs/decisions/0006-embeddings-are-lists.md.

A picture is turned as its EXIF says. Only the first of several frames is read. Alpha is dropped, and 16-bit grey is
scaled to 8 bits. Error rows: `no_image` (no bytes), `unreadable_image` (truncated, broken or of another format),
`image_too_large` (over the limit of pixels, or so long and narrow that the model's image processor would make it so),
`image_unfit` (that processor refuses it).
"""

from typing import Literal

import pyarrow as pa
from pydantic import Field

from schemas.task import Column, Group, Kind, Task, TaskParams, field
from schemas.vision import IMAGE


class Params(TaskParams):
    pooling: Literal["pooler", "cls", "mean"] | None = Field(
        None,
        description="How the vectors of a picture's patches become one: by the model's own pooling (pooler), the class "
        "token's (cls), or the mean of all that the model's last layer has, the class token with them. By default "
        "pooler where the checkpoint has that, else cls where the model has a class token, else mean.",
    )
    normalize: bool = Field(True, description="Whether vectors are scaled to length 1.")


TASK = Task(
    id="image-feature-extraction",
    aliases=("image-embeddings",),
    group=Group.VISION,
    summary="Turn a picture into a vector, for search, clustering and near duplicates.",
    columns=(Column("image", IMAGE, kind=Kind.IMAGE),),
    params=Params,
    prediction=pa.struct(
        [
            field(
                "embedding",
                pa.list_(pa.float32()),
                "The picture's vector; in one output all are of one length.",
                range="[-1, 1] and of length 1 where normalised; else any number",
            ),
        ]
    ),
    version=1,
    heads=("Model", "ForImageClassification", "ForImageClassificationWithTeacher", "ForMaskedImageModeling"),
    shard_rows=1024,
)
