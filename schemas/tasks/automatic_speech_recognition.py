"""automatic-speech-recognition: the words spoken in a clip, and their times.

Semantics: https://huggingface.co/docs/transformers/main_classes/pipelines#transformers.AutomaticSpeechRecognitionPipeline
with `chunk_length_s` and `stride_length_s` given. A clip is read in chunks that overlap, and their transcripts are
merged where they overlap. Whisper is always told its task, as with the pipeline's `generate_kwargs={"task": …}`. If no
`language` is given, it detects the language of each chunk.

A CTC model (Wav2Vec2, HuBERT, WavLM and others that read samples) gives the times of characters and words. Whisper
gives those of words and segments.

A clip is decoded from WAV, FLAC, MP3, OGG (Vorbis or Opus), M4A or a video's sound, mixed down to mono by the mean of
its channels and resampled to the model's rate. If a file was cut off, the sound before the cut counts.

Error rows: `unreadable_audio` (not a sound file, damaged for the most part, or with samples that are not numbers),
`no_audio` (no samples, or a video without sound), `audio_too_long` (longer than the deployment's `max_seconds`, by
default four hours), `audio_too_short` (with CTC, less than the model needs for one output: 25 ms for Wav2Vec2).
"""

from typing import Literal

import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from schemas.task import Column, Group, Kind, Task, TaskParams, field


class Params(TaskParams):
    chunk_length_s: float = Field(
        30.0,
        ge=1,
        le=300,
        description="Seconds of sound that the model hears at once; of Whisper at most what it was made for, 30. A "
        "longer clip is read in chunks.",
    )
    stride_s: float = Field(
        5.0,
        ge=0,
        description="Seconds by which a chunk reaches into the parts that its neighbours to the left and right answer "
        "for; less than half of `chunk_length_s`.",
    )
    timestamps: Literal["none", "char", "word", "segment"] = Field(
        "none", description="What `chunks` are: `char` and `word` with CTC, `word` and `segment` with Whisper."
    )
    language: str | None = Field(
        None,
        min_length=1,
        description="What is spoken, as a code or a name (`de`, `german`), for Whisper of many languages; null: found "
        "for each chunk.",
    )
    task: Literal["transcribe", "translate"] = Field(
        "transcribe",
        description="`translate` gives the text in English: for Whisper of many languages.",
    )
    num_beams: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Whisper's beams, 1 for greedy, which is several times faster; null: the model's own, else 5, as "
        "the pipeline has it.",
    )

    @field_validator("stride_s")
    @classmethod
    def _less_than_half(cls, value: float, info: ValidationInfo) -> float:
        chunk = info.data.get("chunk_length_s")
        if chunk is not None and 2 * value >= chunk:
            raise ValueError(f"must be less than half of chunk_length_s, which is {chunk:g}")
        return value


_chunk = pa.struct(
    [
        field("text", pa.string(), "The character, word or segment, with the spaces that belong to it."),
        field("start_s", pa.float64(), "When it begins; null where the model didn't say.", unit="s"),
        field("end_s", pa.float64(), "When it ends; null where the model didn't say.", unit="s"),
    ]
)

TASK = Task(
    id="automatic-speech-recognition",
    aliases=("asr",),
    group=Group.AUDIO,
    summary="Write down what is said in a clip of any length, or translate it into English.",
    columns=(Column("audio", "The clip: WAV, FLAC, MP3, OGG, Opus, M4A.", kind=Kind.AUDIO),),
    params=Params,
    prediction=pa.struct(
        [
            field("text", pa.string(), "What is said."),
            field("chunks", pa.list_(_chunk), "Its parts as `timestamps` says, in order; empty with `none`."),
            field("duration_s", pa.float64(), "The clip's length.", unit="s", range="above 0"),
            field(
                "language",
                pa.string(),
                "What is spoken, as Whisper's code (`de`): as given, else what was found in the most chunks, the "
                "first of equals; null with CTC.",
            ),
        ]
    ),
    version=1,
    heads=("ForCTC", "WhisperForConditionalGeneration"),
    shard_rows=64,
)
