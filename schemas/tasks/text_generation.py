"""text-generation: a causal language model's continuation of a text, or its answer in a conversation.

Semantics: the TextGenerationPipeline of Transformers 5, record by record,
https://huggingface.co/docs/transformers/main_classes/pipelines#transformers.TextGenerationPipeline
A null parameter has the value that the pipeline would use: the model's own generation configuration if that has one,
else at most 256 new tokens, sampled at temperature 0.7.

Sampling is repeatable: the tokens drawn for a record depend only on the job's `seed` and the record's place in the
input. Another batch size, a retry or another worker give the same tokens. It doesn't draw the numbers that torch would
from the same seed; the distribution is the same. The parameter that other systems call `seed` is the job's.

A prompt that leaves too few of the model's positions for `max_new_tokens` is cut from its beginning, as the pipeline
does with `handle_long_generation="hole"`, but the special tokens that the tokenizer puts first are kept; `truncated`
says so. Special tokens that a tokenizer would put after the prompt (XLNet's) are left out, since the model is to
continue it. An empty prompt becomes the token that begins a text, if the model has one.

Error rows: `no_tokens` (an empty prompt, and no such token), `prompt_too_long` (it fills `max_length`), `bad_messages`
(no messages, one without role or content, or messages that the chat template refuses), `not_finite` (the model's scores
are not numbers).
"""

import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from schemas.sequences import TEXT, TRUNCATED, not_both_limits
from schemas.task import Column, Group, Kind, Task, TaskParams, field


class Params(TaskParams):
    max_new_tokens: int | None = Field(
        None, ge=1, description="Tokens generated at most, fewer than the positions that the model has."
    )
    max_length: int | None = Field(
        None,
        ge=1,
        description="In its place: tokens of prompt and answer together, without those of `prefix`; never beyond the "
        "positions that the model has.",
    )
    do_sample: bool | None = Field(
        None,
        description="Draw each token by its probability; false takes the likeliest. Null: the model's, else true, and "
        "false with beams.",
    )
    temperature: float | None = Field(None, gt=0, description="What the scores are divided by; for sampling.")
    top_k: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Draw from so many of the likeliest tokens, 0 from all; null: the model's, else 50.",
    )
    top_p: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Draw from the fewest likeliest tokens with this probability in all; null: the model's, else 1.",
    )
    num_beams: int | None = Field(
        None, ge=1, le=256, description="Beams of a search in the place of sampling; null: the model's, else 1."
    )
    repetition_penalty: float | None = Field(
        None, gt=0, description="Above 1 makes tokens less likely that are in the prompt or the answer already."
    )
    stop: list[str] = Field(
        [],
        max_length=16,
        description="Strings that end the answer; `text` ends before the first of them, `tokens` with the token that "
        "completed it. Where there are none, the model's.",
    )
    prefix: str | None = Field(
        None,
        description="Put before each text, never in the answer: the padding text that XLNet needs before a short "
        "prompt. Null: the model's own, for XLNet the pipeline's; \"\" none. Not for messages.",
    )
    return_full_text: bool = Field(
        False, description="Begin `text` with the prompt; of messages, with what the chat template makes of them."
    )

    _limits = field_validator("max_length")(not_both_limits)

    @field_validator("num_beams")
    @classmethod
    def _beams_do_not_sample(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value > 1 and info.data.get("do_sample"):
            raise ValueError("a beam search draws nothing: leave out do_sample or num_beams")
        return value

    @field_validator("stop")
    @classmethod
    def _stops_have_characters(cls, value: list[str]) -> list[str]:
        if "" in value:
            raise ValueError("an empty string is in every text")
        return value


TASK = Task(
    id="text-generation",
    group=Group.GENERATION,
    summary="Continue a text, or answer in a conversation.",
    columns=(
        Column("text", "The text to continue.", required=False),
        Column(
            "messages",
            "A conversation to answer, for models with a chat template. A last message of the assistant is continued.",
            required=False,
            kind=Kind.MESSAGES,
        ),
    ),
    params=Params,
    prediction=pa.struct(
        [
            TEXT,
            field(
                "tokens",
                pa.list_(pa.int32()),
                "The generated ids, special tokens included, up to the end token or the one that completed a stop "
                "string, and with it; without the prompt's.",
            ),
            field(
                "finish_reason",
                pa.string(),
                "Why it ends: `stop` at an end token or a stop string, `length` where it was cut short.",
            ),
            TRUNCATED,
        ]
    ),
    version=1,
    heads=("ForCausalLM", "LMHeadModel"),
    shard_rows=256,
)
