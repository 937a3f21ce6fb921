"""depth-estimation: how far away each pixel of a picture is.

Semantics: https://huggingface.co/docs/transformers/main_classes/pipelines#transformers.DepthEstimationPipeline
The depth is the pipeline's `predicted_depth`, at the original picture's size: metres, a relative depth or its inverse,
as the model was trained.

A picture is turned as its EXIF says. Only the first of several frames is read. Alpha is dropped, and 16-bit grey is
scaled to 8 bits. Error rows: `no_image` (no bytes), `unreadable_image` (truncated, broken or of another format),
`image_too_large` (over the limit of pixels, or so long and narrow that the model's image processor would make it so),
`image_unfit` (that processor refuses it, as GLPN's does with a side under 32 pixels).

To read a prediction `p`: the first two lines read `png16` as float32 of shape (height, width), to within half of
(max - min) / 65535. The third reads `float32`, which is exact:

    pixels = numpy.asarray(PIL.Image.open(io.BytesIO(p["depth"])), numpy.float32)
    depth = p["min"] + pixels / 65535 * (p["max"] - p["min"])
    depth = numpy.frombuffer(p["depth"], "<f4").reshape(p["height"], p["width"])
"""

from typing import Literal

import pyarrow as pa
from pydantic import Field

from schemas.task import Column, Group, Kind, Task, TaskParams, field
from schemas.vision import HEIGHT, IMAGE, WIDTH


class Params(TaskParams):
    encoding: Literal["png16", "float32"] = Field(
        "png16",
        description="png16: a grey PNG of 16 bits, 0 at the picture's `min` and 65535 at its `max`. float32: bare "
        "little-endian numbers, row by row from the top, exact and two to three times as large.",
    )
    max_pixels: int = Field(
        2_097_152,
        ge=1024,
        description="Of a model that sees a picture at its full size, as GLPN does: how many pixels that may be; a "
        "larger picture is an error (`image_too_large`). The memory it takes grows with their square, to 2 GB by "
        "default. Most models see any picture at a size of their own.",
    )


TASK = Task(
    id="depth-estimation",
    group=Group.VISION,
    summary="Tell how far away each pixel of a picture is.",
    columns=(Column("image", IMAGE, kind=Kind.IMAGE),),
    params=Params,
    prediction=pa.struct(
        [
            field("depth", pa.large_binary(), "The depth of each pixel; how to read it stands above."),
            field("encoding", pa.string(), "How `depth` is encoded: png16 or float32."),
            field("min", pa.float32(), "The least depth in the picture.", unit="the model's: metres, or relative"),
            field("max", pa.float32(), "The greatest.", unit="the model's"),
            field("mean", pa.float32(), "The mean over all pixels.", unit="the model's"),
            WIDTH,
            HEIGHT,
        ]
    ),
    version=1,
    heads=("ForDepthEstimation",),
    shard_rows=256,
)
