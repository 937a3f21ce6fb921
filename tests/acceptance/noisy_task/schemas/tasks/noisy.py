"""noisy: the length of a text, from a handler whose libraries warn at every step."""

import pyarrow as pa

from schemas.task import Column, Group, Task, TaskParams, field

TASK = Task(
    id="noisy",
    group=Group.TEXT,
    summary="Count the characters of a text.",
    columns=(Column("text", "What to count."),),
    params=TaskParams,
    prediction=pa.struct([field("length", pa.int32(), "Characters.")]),
    version=1,
    heads=("ForSequenceClassification",),
)
