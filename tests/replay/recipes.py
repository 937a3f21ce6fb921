"""For each task a tiny checkpoint, a table of records, and parameters that draw, where the task can draw."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nightshift.testing import stored_as
from schemas.tasks import find_task
from tests.checkpoints import make_classifier
from tests.checkpoints_audio import make_sound_classifier
from tests.checkpoints_causal import make_causal
from tests.checkpoints_detection import make_detector, make_segmenter
from tests.checkpoints_embeddings import make_encoder, make_nli
from tests.checkpoints_qa import make_reader
from tests.checkpoints_seq2seq import make_seq2seq
from tests.checkpoints_speech import WINDOW_S, make_whisper
from tests.checkpoints_tokens import make_masked_lm, make_tagger
from tests.checkpoints_vision import make_depth_estimator, make_image_classifier, make_image_encoder
from tests.media import encoded as encoded_sound
from tests.media import sounds
from tests.pictures import sample
from tests.texts import ODD, sentences

#: Records of a job, and of a shard of it.
RECORDS, SHARD = 96, 8

Record = dict[str, Any]


def _texts(longest: int = 40) -> Iterator[Record]:
    return ({"text": text} for text in [*ODD[:8], *sentences(RECORDS - 8, longest=longest)])


def _masked() -> Iterator[Record]:
    return ({"text": f"{text} [MASK] and [MASK]"} for text in sentences(RECORDS, longest=20))


def _questions() -> Iterator[Record]:
    contexts = sentences(RECORDS, longest=80)
    return ({"question": f"what was {context.split()[0]}?", "context": context} for context in contexts)


def _pictures() -> Iterator[Record]:
    return ({"image": data} for data in sample(RECORDS, [(64, 48), (80, 64), (48, 64)]))


def _clips() -> Iterator[Record]:
    return ({"audio": encoded_sound(wave, 16_000)} for wave in sounds(RECORDS))


@dataclass(frozen=True)
class Recipe:
    """What a job of a task is made of."""

    model: Callable[[Path], Path]
    records: Callable[[], Iterator[Record]]
    params: dict[str, Any] = field(default_factory=dict)


WHISPER: dict[str, Any] = {"chunk_length_s": float(WINDOW_S), "stride_s": 0.4, "timestamps": "segment"}
SAMPLED: dict[str, Any] = {"do_sample": True, "temperature": 0.9}
RECIPES = {
    "audio-classification": Recipe(make_sound_classifier, _clips),
    "automatic-speech-recognition": Recipe(lambda folder: make_whisper(folder, False), _clips, WHISPER),
    "depth-estimation": Recipe(make_depth_estimator, _pictures),
    "feature-extraction": Recipe(make_encoder, _texts),
    "fill-mask": Recipe(make_masked_lm, _masked),
    "image-classification": Recipe(make_image_classifier, _pictures),
    "image-feature-extraction": Recipe(make_image_encoder, _pictures),
    "image-segmentation": Recipe(make_segmenter, _pictures, {"threshold": 0.1}),
    "next-token": Recipe(lambda folder: make_causal(folder, "gpt2"), _texts, SAMPLED),
    "object-detection": Recipe(make_detector, _pictures, {"threshold": 0.1}),
    "question-answering": Recipe(make_reader, _questions, {"top_k": 2}),
    "summarization": Recipe(lambda folder: make_seq2seq(folder, "bart"), _texts, {"max_new_tokens": 8}),
    "text-classification": Recipe(make_classifier, _texts, {"top_k": 2}),
    "text-generation": Recipe(
        lambda folder: make_causal(folder, "gpt2"), lambda: _texts(12), SAMPLED | {"max_new_tokens": 8}
    ),
    "token-classification": Recipe(make_tagger, _texts),
    "translation": Recipe(lambda folder: make_seq2seq(folder, "t5"), _texts, {"max_new_tokens": 8}),
    "zero-shot-classification": Recipe(make_nli, _texts, {"labels": ["good", "bad"]}),
}


def spec_of(task: str, folder: Path) -> dict[str, Any]:
    """Make the model and the table of a task's recipe in `folder`. Return a job's spec without its output."""
    recipe = RECIPES[task]
    records = [{"id": number} | record for number, record in enumerate(recipe.records())]
    assert len(records) == RECORDS
    kinds = {column.name: column.kind for column in find_task(task).columns}
    types = {name: pa.int64() if name == "id" else stored_as(kinds[name]) for name in records[0]}
    rows = [{name: _stored(value) for name, value in record.items()} for record in records]
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(list(types.items()))), folder / "in.parquet", row_group_size=40)
    return {
        "task": task,
        "model": str(recipe.model(folder / "model")),
        "input": {"uri": str(folder / "in.parquet")},
        "params": recipe.params,
        "shard": {"rows": SHARD},
    }


def _stored(value: Any) -> Any:
    return {"bytes": value, "path": None} if isinstance(value, bytes) else value
