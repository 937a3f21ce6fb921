"""text-classification: a label for a text, or for a pair of texts.

Semantics: https://huggingface.co/docs/transformers/main_classes/pipelines#transformers.TextClassificationPipeline
"""

from typing import Literal

import pyarrow as pa
from pydantic import Field

from schemas.task import Column, Group, Task, TaskParams, field


class Params(TaskParams):
    top_k: int = Field(1, ge=1, le=1_000_000, description="How many labels to return in `top`, best first.")
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        None,
        description="What turns logits into scores. By default the model's configuration decides: none for a "
        "regression, sigmoid for one label or a multi-label problem, else softmax.",
    )
    max_length: int | None = Field(
        None, ge=3, description="Tokens kept of a longer text; by default as many as the model can read."
    )


_label = field("label", pa.string(), "The label's name, from the model's configuration.")
_score = field("score", pa.float32(), "The label's score.", range="[0, 1]; any number where no function is applied")

TASK = Task(
    id="text-classification",
    aliases=("sentiment-analysis",),
    group=Group.TEXT,
    summary="Label a text, or a pair of texts: sentiment, topic, paraphrase, entailment.",
    columns=(
        Column("text", "The text to classify."),
        Column("text_pair", "A second text, for models of sentence pairs.", required=False),
    ),
    params=Params,
    prediction=pa.struct(
        [
            _label,
            _score,
            field("top", pa.list_(pa.struct([_label, _score])), "The `top_k` best labels, best first."),
            field("truncated", pa.bool_(), "Whether the text was longer than the model can read, and was cut."),
        ]
    ),
    version=1,
    heads=("ForSequenceClassification",),
)
