"""token-classification: the labelled parts of a text, such as the names of people and places.

Semantics: https://huggingface.co/docs/transformers/main_classes/pipelines#transformers.TokenClassificationPipeline,
with these rules:

- Every token is labelled. A strategy other than `none` joins neighbouring tokens of one label, or of one label's B- and
  I- forms. `entity` is then the label without its prefix, and `ignore_labels` is compared with that.
- Special tokens ([CLS], [SEP]) have no place in the text and are left out, as in the pipeline. If
  `aggregation_strategy` is `none` and `ignore_labels` is `[]`, they are included, which the pipeline doesn't offer.
  There is then one entity for each token that the model reads. Their `start` and `end` are 0.
- A text longer than the model can read is cut, or read in windows if `stride` is given. Of overlapping entities the
  longer stays; of equally long ones the one with the higher score.
- If there is no text, there are no entities. Error code of a record: `not_finite`.
"""

from typing import Literal

import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from schemas.task import Column, Group, Task, TaskParams, field


class Params(TaskParams):
    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] = Field(
        "simple",
        description="How tokens become entities. none: each token is one; simple: neighbours of one label are one; "
        "first, average, max: the same, but a word has one label, that of its first token, of its tokens' average "
        "scores, or of its token with the highest score.",
    )
    ignore_labels: list[str] = Field(
        ["O"],
        description="Labels to leave out. An empty list leaves out none and, where aggregation_strategy is none, "
        "returns special tokens too.",
    )
    stride: int | None = Field(
        None,
        ge=0,
        description="Read a longer text in windows that share this many tokens, instead of cutting it. Needs an "
        "aggregation_strategy other than none.",
    )

    @field_validator("stride")
    @classmethod
    def _joins(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("aggregation_strategy") == "none":
            raise ValueError("windows can't be joined where aggregation_strategy is none; choose another, or no stride")
        return value


_entity = pa.struct(
    [
        field("entity", pa.string(), "The label, from the model's configuration; without B- or I- where aggregated."),
        field("score", pa.float32(), "The label's probability; where aggregated their mean.", range="[0, 1]"),
        field("index", pa.int32(), "The token's place among the text's tokens; null where aggregated.", unit="tokens"),
        field("word", pa.string(), "The tokens as text: in lower case, say, where the model knows no other."),
        field("start", pa.int32(), "Where the entity begins in the text.", unit="characters"),
        field("end", pa.int32(), "Where it ends: text[start:end] is the entity as it was written.", unit="characters"),
    ]
)

TASK = Task(
    id="token-classification",
    aliases=("ner",),
    group=Group.TEXT,
    summary="Find the entities in a text: people, places, parts of speech.",
    columns=(Column("text", "The text to find entities in."),),
    params=Params,
    prediction=pa.struct(
        [
            field("entities", pa.list_(_entity), "The entities, in the order of the text."),
            field("truncated", pa.bool_(), "Whether the text was longer than the model can read, and was cut."),
        ]
    ),
    version=1,
    heads=("ForTokenClassification",),
)
