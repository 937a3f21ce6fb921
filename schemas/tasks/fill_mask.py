"""fill-mask: the words that a masked language model expects in the place of each mask.

Semantics: https://huggingface.co/docs/transformers/main_classes/pipelines#transformers.FillMaskPipeline, with
these rules:

- `[MASK]` and `<mask>` both stand for the mask, whatever the model's own token for it is.
- Each mask is filled by itself, and the others are left as they are. So the scores of several masks are not joint
  probabilities.
- A text longer than the model can read is cut, and the masks in the rest are answered.
- Error codes of a record: `no_mask` (nothing to fill in), `mask_truncated` (every mask was cut off), `not_finite`.
"""

import pyarrow as pa
from pydantic import Field

from schemas.task import Column, Group, Task, TaskParams, field


class Params(TaskParams):
    top_k: int = Field(
        5,
        ge=1,
        le=1_000_000,
        description="How many tokens to return for each mask, best first; at most as many as there are.",
    )
    targets: list[str] | None = Field(
        None,
        min_length=1,
        description="Words to choose from, instead of the whole vocabulary; scores stay those among the whole "
        "vocabulary. Of a word that isn't in it the first token is taken (a leading space counts: RoBERTa's words have "
        "one); a word without tokens is left out, and the job fails where none is left.",
    )


_filled = pa.struct(
    [
        field("score", pa.float32(), "The token's probability in this place.", range="[0, 1]"),
        field("token", pa.int32(), "The token's number in the model's vocabulary."),
        field("token_str", pa.string(), "The token as text."),
        field("sequence", pa.string(), "The text, decoded from its tokens, with the token in the mask's place."),
    ]
)

TASK = Task(
    id="fill-mask",
    group=Group.TEXT,
    summary="Fill in the masked words of a text.",
    columns=(Column("text", "The text, with [MASK] or <mask> for each word to fill in."),),
    params=Params,
    prediction=pa.struct(
        [
            field("masks", pa.list_(pa.list_(_filled)), "For each mask the `top_k` best tokens, best first."),
            field("truncated", pa.bool_(), "Whether the text was longer than the model can read, and was cut."),
        ]
    ),
    version=1,
    heads=("ForMaskedLM",),
)
