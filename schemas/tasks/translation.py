"""translation: a text in another language, by a sequence-to-sequence model.

Semantics: https://huggingface.co/docs/transformers/v4.57.1/main_classes/pipelines#transformers.TranslationPipeline
"""

import pyarrow as pa
from pydantic import Field

from schemas.sequences import GENERATED, SequenceParams
from schemas.task import Column, Group, Task


class Params(SequenceParams):
    src_lang: str | None = Field(
        None,
        min_length=1,
        description="The language of the texts, as the model names it: `en` of T5's `translation_en_to_de`, `en_XX` "
        "of mBART, which needs it. A model of a single pair, as Marian's are, takes none.",
    )
    tgt_lang: str | None = Field(
        None,
        min_length=1,
        description="The language to translate to, as `src_lang`. Without both, T5 does the first pair that its "
        "configuration has.",
    )


TASK = Task(
    id="translation",
    group=Group.GENERATION,
    summary="Translate a text.",
    columns=(Column("text", "The text to translate; an empty one has whatever answer the model gives."),),
    params=Params,
    prediction=pa.struct(list(GENERATED)),
    version=1,
    heads=("ForConditionalGeneration", "MTModel"),
    shard_rows=256,
)
