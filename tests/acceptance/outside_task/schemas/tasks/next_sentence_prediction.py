"""next-sentence-prediction: whether one text goes on from another.

Semantics: https://huggingface.co/docs/transformers/model_doc/bert#transformers.BertForNextSentencePrediction
"""

import pyarrow as pa
from pydantic import Field

from schemas.task import Column, Group, Task, TaskParams, field


class Params(TaskParams):
    threshold: float = Field(0.5, ge=0, le=1, description="The score from which on the second text follows.")


TASK = Task(
    id="next-sentence-prediction",
    aliases=("nsp",),
    group=Group.TEXT,
    summary="Say whether a text goes on from another.",
    columns=(Column("text", "The first text."), Column("next", "The text that may go on from it.")),
    params=Params,
    prediction=pa.struct(
        [
            field("follows", pa.bool_(), "Whether `next` goes on from `text`."),
            field("score", pa.float32(), "How likely it does.", range="[0, 1]"),
        ]
    ),
    version=1,
    heads=("ForNextSentencePrediction",),
)
