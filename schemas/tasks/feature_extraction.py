"""feature-extraction: a vector for a text, near to those of texts that mean the same.

Semantics: `SentenceTransformer.encode` of https://sbert.net. The library's files in a model's folder are followed: the
pooling, normalisation, longest text, lower case and default prompt. So the vectors are that library's own if no
parameters are given. A named pooling ignores the folder's normalisation and prompt. See
docs/decisions/0006-embeddings-are-lists.md.
"""

from typing import Literal

import pyarrow as pa
from pydantic import Field

from schemas.task import Column, Group, Task, TaskParams, field


class Params(TaskParams):
    pooling: Literal["mean", "cls", "last"] | None = Field(
        None,
        description="How the vectors of a text's tokens become one: their mean, the first token's or the last token's. "
        "By default as the model's sentence-transformers files have it (modules.json), else the mean.",
    )
    normalize: bool | None = Field(
        None,
        description="Whether vectors are scaled to length 1. By default they are; but where the pooling is that of the "
        "model's sentence-transformers files, only if those have it so.",
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        description="Keep so many leading numbers of each vector, for models trained for that (Matryoshka); the rest "
        "is cut off before vectors are normalised.",
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32",
        description="float16 rounds the numbers to that precision, which about halves the output's size; its column "
        "has the same type either way.",
    )


TASK = Task(
    id="feature-extraction",
    aliases=("embeddings",),
    group=Group.TEXT,
    summary="Turn a text into a vector, for search, clustering and near duplicates.",
    columns=(Column("text", "The text to embed."),),
    params=Params,
    prediction=pa.struct(
        [
            field(
                "embedding",
                pa.list_(pa.float32()),
                "The text's vector; in one output all are of one length.",
                range="[-1, 1] and of length 1 where normalised; else any number",
            ),
            field("truncated", pa.bool_(), "Whether the text was longer than the model can read, and was cut."),
        ]
    ),
    version=1,
    heads=("Model", "ForMaskedLM", "ForPreTraining", "ForCausalLM"),
)
