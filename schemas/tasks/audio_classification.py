"""audio-classification: a label for a clip, such as a spoken command, a speaker, an emotion or a kind of sound.

Semantics: https://huggingface.co/docs/transformers/main_classes/pipelines#transformers.AudioClassificationPipeline

A clip is decoded from WAV, FLAC, MP3, OGG (Vorbis or Opus), M4A or a video's sound, mixed down to mono by the mean of
its channels and resampled to the model's rate. The model hears the whole clip at once, so its memory grows with the
clip: `max_seconds` is the limit. (A model that reads spectra cuts a clip itself: an audio spectrogram transformer after
10 seconds, Whisper after 30.) If a file was cut off, the sound before the cut counts; `duration_s` tells how much there
was.

Error rows: `unreadable_audio` (not a sound file, damaged for the most part, or with samples that are not numbers),
`no_audio` (no samples, or a video without sound), `audio_too_long`, `audio_too_short` (less than the model needs for
one output: 25 ms for Wav2Vec2).
"""

from typing import Literal

import pyarrow as pa
from pydantic import Field

from schemas.task import Column, Group, Kind, Task, TaskParams, field


class Params(TaskParams):
    top_k: int = Field(5, ge=1, le=1_000_000, description="How many labels to return in `top`, best first.")
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        None,
        description="What turns logits into scores. By default the model's configuration decides: none for a "
        "regression, sigmoid for a multi-label problem, else softmax.",
    )
    max_seconds: float = Field(
        300, gt=0, description="Seconds that a clip may have; a longer one is an error row, `audio_too_long`."
    )


_label = field("label", pa.string(), "The label's name, from the model's configuration.")
_score = field("score", pa.float32(), "The label's score.", range="[0, 1]; any number where no function is applied")

TASK = Task(
    id="audio-classification",
    group=Group.AUDIO,
    summary="Label a clip of sound: a spoken command, a speaker, an emotion, a kind of sound.",
    columns=(Column("audio", "The clip to classify.", kind=Kind.AUDIO),),
    params=Params,
    prediction=pa.struct(
        [
            _label,
            _score,
            field("top", pa.list_(pa.struct([_label, _score])), "The `top_k` best labels, best first."),
            field("duration_s", pa.float64(), "How long the decoded clip is.", unit="s", range="above 0"),
        ]
    ),
    version=1,
    heads=("ForSequenceClassification", "ForAudioClassification"),
    shard_rows=1024,
)
