"""What tests of a handler by itself share: a handler on a model, its predictions, what is wrong with parameters.

And what it is compared with: Transformers' own pipelines and models.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, pipeline

from schemas.errors import SpecError
from schemas.job import parse_spec
from schemas.task import Kind, Task
from tests.checkpoints import MAX_LENGTH
from workers.audio.clip import Clip
from workers.engine.record_identity import record_seed
from workers.engine.runner import infer
from workers.handler import Handler, Loaded, Piece, Prediction
from workers.models.device import pick_device, pick_dtype
from workers.tasks import handler_of
from workers.vision.picture import Picture

#: Any text that UTF-8 can hold, up to three times what the tiny models read; and so many examples of a property.
any_text = st.text(st.characters(codec="utf-8"), max_size=3 * MAX_LENGTH)
a_few = hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
#: What a handler gets for encoded media.
DECODERS = {Kind.IMAGE: Picture, Kind.AUDIO: Clip}


def spec_json(task: Task, params: dict[str, Any]) -> dict[str, Any]:
    """A spec whose parameters alone matter."""
    return {"task": task.id, "model": "m", "input": {"uri": "a"}, "output": {"uri": "b"}, "params": params}


def problems(task: Task, params: dict[str, Any]) -> dict[str, str]:
    """What is wrong with a job's parameters: messages by the name of the field."""
    with pytest.raises(SpecError) as error:
        parse_spec(spec_json(task, params))
    return {problem.field: problem.message for problem in error.value.problems}


def load(task: Task, model: Path) -> Loaded:
    """A model as a worker loads it for the task."""
    device = pick_device()
    return handler_of(task).load(model, device, pick_dtype("auto", None, device))


def handler_on(task: Task, loaded: Loaded, /, **params: Any) -> Handler[Any]:
    """The task's handler on a loaded model, for a job with these parameters."""
    spec = parse_spec(spec_json(task, params))
    return handler_of(task)(loaded, spec.task_params, spec)


def loaded_handler(task: Task, model: Path, /, **params: Any) -> Handler[Any]:
    """The task's handler on a model's folder, for a job with these parameters."""
    return handler_on(task, load(task, model), **params)


def pieces_of(handler: Handler[Any], **columns: Sequence[Any]) -> list[list[Piece]]:
    """Each record's pieces, with a seed of its place. Values are given by column, media as encoded bytes."""
    for column in handler.task.columns:
        if column.kind in DECODERS:
            columns[column.name] = [DECODERS[column.kind](data) for data in columns[column.name]]
    records = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [
        [replace(piece, seed=record_seed(0, "", place)) for piece in pieces]
        for place, pieces in enumerate(handler.prepare(records))
    ]


def computed(handler: Handler[Any], **columns: Sequence[Any]) -> list[tuple[list[Piece], list[Any]]]:
    """Each record's pieces and their outputs, of one batch; values are given as for `pieces_of`."""
    prepared = pieces_of(handler, **columns)
    batch = [piece for pieces in prepared for piece in pieces]
    outputs = iter(infer(handler, batch) if batch else [])
    return [(pieces, [next(outputs) for _ in pieces]) for pieces in prepared]


def predictions(handler: Handler[Any], **columns: Sequence[Any]) -> list[Prediction]:
    """Predictions of records that are computed as one batch; values are given as for `pieces_of`."""
    return [handler.finish(pieces, outputs) for pieces, outputs in computed(handler, **columns)]


@cache
def reference_pipeline(task: Task, model: Path) -> Any:
    """Transformers' own pipeline for the task, on the CPU; remembered."""
    made: Any = pipeline
    return made(task.id, model=str(model), device="cpu")


@cache
def reference_model(auto: Any, model: Path) -> tuple[Any, Any]:
    """The tokenizer, and the model by one of Transformers' Auto classes, on the CPU; remembered."""
    return AutoTokenizer.from_pretrained(model), auto.from_pretrained(model).eval()
