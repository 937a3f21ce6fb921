"""noise: a random number for each record, so that two runs of a shard differ."""

import pyarrow as pa
from pydantic import Field

from schemas.task import Column, Group, Task, TaskParams, field


class Params(TaskParams):
    batch_ms: int = Field(0, ge=0, description="Milliseconds that a batch takes.")
    fits: int | None = Field(None, ge=0, description="The most records that memory has room for.")


TASK = Task(
    id="noise",
    group=Group.TEXT,
    summary="Draw a random number.",
    columns=(Column("text", "The text."),),
    params=Params,
    prediction=pa.struct(
        [
            field("noise", pa.int64(), "Random, and another at each run."),
            field("run", pa.string(), "The run of the shard that drew it."),
            field("characters", pa.int64(), "The length of the text."),
        ]
    ),
    version=1,
    heads=("ForNoise",),
)
