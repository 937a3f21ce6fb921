"""zero-shot-classification: a score for each of the job's own labels, by a model of entailment (NLI).

Semantics: https://huggingface.co/docs/transformers/main_classes/pipelines#transformers.ZeroShotClassificationPipeline
"""

from collections import Counter
from string import Formatter
from typing import Annotated

import pyarrow as pa
from pydantic import Field, StringConstraints, field_validator

from schemas.task import Column, Group, Task, TaskParams, field


class Params(TaskParams):
    labels: list[Annotated[str, StringConstraints(min_length=1)]] = Field(
        min_length=1, description="The labels to choose from, each once."
    )
    hypothesis_template: str = Field(
        "This example is {}.",
        description="What is said of the text for a label, which stands in the place of `{}`; a text has a label as "
        "far as it entails this.",
    )
    multi_label: bool = Field(
        False,
        description="Whether a text may have several labels: each is then scored by itself, as entailment against "
        "contradiction. Otherwise the scores of all labels sum to 1. A single label is always scored by itself.",
    )

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str]) -> list[str]:
        twice = [label for label, count in Counter(labels).items() if count > 1]
        if twice:
            raise ValueError(f"name each label once; given twice: {', '.join(map(repr, twice))}")
        return labels

    @field_validator("hypothesis_template")
    @classmethod
    def _one_place(cls, template: str) -> str:
        places = [place for _, *place in Formatter().parse(template) if place[0] is not None]
        if places != [["", "", None]]:
            raise ValueError("write {} once, where the label goes, and other braces doubled")
        return template


_label = field("label", pa.string(), "The label, as the job's `labels` have it.")
_score = field("score", pa.float32(), "How likely the label is.", range="[0, 1]")

TASK = Task(
    id="zero-shot-classification",
    group=Group.TEXT,
    summary="Label a text with labels of your own, by a model of entailment.",
    columns=(Column("text", "The text to classify."),),
    params=Params,
    prediction=pa.struct(
        [
            _label,
            _score,
            field("top", pa.list_(pa.struct([_label, _score])), "Every label with its score, best first."),
            field(
                "truncated",
                pa.bool_(),
                "Whether the text was cut to leave room for a hypothesis; a hypothesis never is.",
            ),
        ]
    ),
    version=1,
    heads=("ForSequenceClassification",),
    shard_rows=1024,
)
