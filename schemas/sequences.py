"""Output fields of the tasks that generate text, and parameters of the sequence-to-sequence tasks."""

import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from schemas.task import TaskParams, field


def not_both_limits(value: int | None, info: ValidationInfo) -> int | None:
    """Validate `max_length`: raise ValueError if `max_new_tokens` is given too."""
    if value is not None and info.data.get("max_new_tokens") is not None:
        raise ValueError("give max_new_tokens or max_length, not both")
    return value


class SequenceParams(TaskParams):
    """The parameters of all sequence-to-sequence tasks. They never sample, so that equal texts have equal answers.

    A null is filled from the model: from its `task_specific_params`, else from its generation configuration.
    """

    max_new_tokens: int | None = Field(
        None, ge=1, description="Tokens generated at most; by default the model's `max_length`, else 256."
    )
    max_length: int | None = Field(
        None,
        ge=2,
        description="The same as Transformers counts it, with the token that the decoder starts from: one more than "
        "`max_new_tokens`, in whose place it may be given. Neither goes beyond the positions that the model has.",
    )
    min_length: int | None = Field(
        None,
        ge=0,
        description="Tokens before the text may end, counted as `max_length`; by default the model's, as far as the "
        "most that may be generated allows it.",
    )
    num_beams: int | None = Field(
        None, ge=1, le=256, description="Beams of the search, 1 for greedy; by default the model's, else 4."
    )

    _limits = field_validator("max_length")(not_both_limits)


TEXT = field("text", pa.string(), "The generated text, without special tokens.")
TRUNCATED = field("truncated", pa.bool_(), "Whether the input was longer than the model can read, and was cut.")
GENERATED = (
    TEXT,
    field(
        "tokens",
        pa.list_(pa.int32()),
        "The generated ids, special tokens included, up to the end token and with it; without the token that the "
        "decoder starts from and without padding.",
    ),
    field("finish_reason", pa.string(), "Why it ends: `stop` at an end token, `length` where it was cut short."),
    TRUNCATED,
)
