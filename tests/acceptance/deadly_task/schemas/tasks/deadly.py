"""deadly: the length of a text, unless the text is one that its handler dies of."""

import pyarrow as pa

from schemas.task import Column, Group, Task, TaskParams, field

TASK = Task(
    id="deadly",
    group=Group.TEXT,
    summary="Count the characters of a text.",
    columns=(Column("text", "What to count."),),
    params=TaskParams,
    prediction=pa.struct([field("length", pa.int32(), "Characters.")]),
    version=1,
    heads=("ForSequenceClassification",),
)
