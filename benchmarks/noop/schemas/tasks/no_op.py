"""no-op: nothing, for each record. What a shard costs when its work costs nothing."""

import pyarrow as pa

from schemas.task import Column, Group, Task, TaskParams, field


class Params(TaskParams):
    pass


TASK = Task(
    id="no-op",
    group=Group.TEXT,
    summary="Do nothing.",
    columns=(Column("text", "The text."),),
    params=Params,
    prediction=pa.struct([field("done", pa.bool_(), "True.")]),
    version=1,
    heads=("ForNothing",),
)
