"""question-answering: the piece of a context that answers a question.

Semantics: the QuestionAnsweringPipeline of the last Transformers 4, since Transformers 5 has no such pipeline:
https://huggingface.co/docs/transformers/v4.57.1/en/main_classes/pipelines#transformers.QuestionAnsweringPipeline

- A context too long for one window is read in several that overlap, and the best answers of all windows are returned.
- An answer is made of whole words. Answers with the same text, whatever its case, are one answer, in the place of the
  first, and their scores add up. If the pipeline's sum is more than 1 (two windows share the answer), ours stays at 1.
- If `top_k` is more than the number of answers, fewer are returned. The pipeline fills up with spans of score 0.
- A CLS token that is written out in the question is never part of an answer. With the pipeline it may be.
- Error codes of a record: `empty_question` and `empty_context` (only white space, or no token that the model
  knows), `question_too_long` (no room is left for a window of the context), `not_finite`.
"""

import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from schemas.task import Column, Group, Task, TaskParams, field


class Params(TaskParams):
    top_k: int = Field(1, ge=1, le=10_000, description="How many answers to return in `top`, best first.")
    max_seq_len: int = Field(
        384,
        ge=10,
        description="Tokens of a window: the question, a part of the context and the special tokens; no more than the "
        "model can read.",
    )
    doc_stride: int | None = Field(
        None,
        ge=0,
        description="Tokens that a window of a long context shares with the next one. By default 128, or half a window "
        "where that is less.",
    )
    max_answer_len: int = Field(15, ge=1, description="Tokens of an answer at most.")
    handle_impossible_answer: bool = Field(
        False,
        description="Whether the context may hold no answer: the empty answer then competes with the others, by the "
        "least score that any window gives it.",
    )

    @field_validator("doc_stride")
    @classmethod
    def _leaves_room(cls, value: int | None, info: ValidationInfo) -> int | None:
        window = info.data.get("max_seq_len")
        if value is not None and window is not None and value >= window:
            raise ValueError(f"must be less than max_seq_len ({window})")
        return value


_answer = [
    field("answer", pa.string(), "The answer, as it stands in the context; empty for none."),
    field(
        "score",
        pa.float32(),
        "The answer's probability within its window; answers of one text add up, to 1 at most.",
        range="[0, 1]",
    ),
    field("start", pa.int32(), "Where the answer starts in the context.", unit="characters"),
    field("end", pa.int32(), "Where the answer ends in the context, after its last character.", unit="characters"),
]

TASK = Task(
    id="question-answering",
    group=Group.TEXT,
    summary="Find the answer to a question within a text.",
    columns=(
        Column("question", "The question."),
        Column("context", "The text that holds the answer."),
    ),
    params=Params,
    prediction=pa.struct(
        [*_answer, field("top", pa.list_(pa.struct(_answer)), "The `top_k` best answers, best first.")]
    ),
    version=1,
    heads=("ForQuestionAnswering", "ForQuestionAnsweringSimple"),
)
