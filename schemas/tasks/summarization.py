"""summarization: a shorter text for a text, by a sequence-to-sequence model.

Semantics: https://huggingface.co/docs/transformers/v4.57.1/main_classes/pipelines#transformers.SummarizationPipeline
"""

import pyarrow as pa
from pydantic import Field

from schemas.sequences import GENERATED, SequenceParams
from schemas.task import Column, Group, Task


class Params(SequenceParams):
    length_penalty: float | None = Field(
        None,
        description="With beams, above 0 favours long summaries and below 0 short ones; by default the model's.",
    )


TASK = Task(
    id="summarization",
    group=Group.GENERATION,
    summary="Write a summary of a text.",
    columns=(Column("text", "The text to summarize; an empty one has whatever answer the model gives."),),
    params=Params,
    prediction=pa.struct(list(GENERATED)),
    version=1,
    heads=("ForConditionalGeneration", "MTModel"),
    shard_rows=256,
)
