"""next-token: the token that a causal language model puts next, drawn as in "Summary of the tasks".

Semantics: the causal language modelling example of
https://huggingface.co/docs/transformers/v4.20.1/task_summary#causal-language-modeling
The scores after the text's last token are divided by `temperature`, then filtered by `top_k_top_p_filtering` (which
Transformers 5 no longer has), and the token is drawn by the softmax of the rest. The filter keeps the `top_k` highest
scores, with all that equal the lowest of them. Then it keeps the likeliest tokens until their probabilities come to
more than `top_p`, with the token that takes them there. Of equal scores the lower id goes first there.

Drawing is repeatable: it depends only on the job's `seed` and the record's place in the input. Another batch size, a
retry or another worker draw the same token. It doesn't draw the numbers that torch would from the same seed.

For XLNet the scores are those of an unknown token after the text, as its `prepare_inputs_for_generation` asks. A text
longer than the model reads is cut from its beginning. Special tokens that a tokenizer would put after the text are left
out. An empty text becomes the token that begins a text, if the model has one, else the error `no_tokens`. Scores that
are not numbers are the error `not_finite`.
"""

import pyarrow as pa
from pydantic import Field

from schemas.sequences import TRUNCATED
from schemas.task import Column, Group, Task, TaskParams, field


class Params(TaskParams):
    top_k: int = Field(50, ge=0, le=1_000_000, description="Draw from so many of the likeliest tokens, 0 from all.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Draw from the likeliest tokens until their probabilities come to more than this."
    )
    temperature: float = Field(1.0, gt=0, description="What the scores are divided by.")
    do_sample: bool = Field(True, description="Draw the token by its probability; false takes the likeliest.")
    candidates: int = Field(5, ge=1, le=1000, description="Tokens to list at most, the likeliest first.")


_TOKEN = (
    field("token", pa.int32(), "The token's id."),
    field("token_str", pa.string(), "The token as text."),
)

TASK = Task(
    id="next-token",
    group=Group.GENERATION,
    summary="Tell the next token of a text.",
    columns=(Column("text", "The text so far."),),
    params=Params,
    prediction=pa.struct(
        [
            *_TOKEN,
            field("text", pa.string(), "The text and the token."),
            field(
                "candidates",
                pa.list_(
                    pa.struct(
                        [
                            *_TOKEN,
                            field(
                                "score",
                                pa.float32(),
                                "The token's probability, of those that it is drawn from.",
                                range="[0, 1]",
                            ),
                        ]
                    )
                ),
                "The likeliest tokens, the likeliest first; fewer where the filter leaves fewer.",
            ),
            TRUNCATED,
        ]
    ),
    version=1,
    heads=("ForCausalLM", "LMHeadModel"),
    shard_rows=2048,
)
