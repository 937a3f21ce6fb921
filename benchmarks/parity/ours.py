"""The product's answers to a run: its handler, the records in batches sorted by length as the runner has them."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.parity.cases import Run
from schemas.errors import RecordError
from schemas.job import parse_spec
from workers.handler import Handler, Piece
from workers.tasks import handler_of

BATCH = 16


def answers(run: Run) -> list[dict[str, Any]]:
    """A prediction a record, or the code of its error as `{"error": code}`."""
    spec = parse_spec(
        {"task": run.task, "model": "m", "input": {"uri": "in"}, "output": {"uri": "out"}, "params": run.params}
    )
    kind = handler_of(spec.task_schema)
    handler = kind(kind.load(Path(run.model), torch.device("cpu"), torch.float32), spec.task_params, spec)
    prepared = [_prepared(handler, record) for record in run.records]
    pieces = [piece for one in prepared if not isinstance(one, str) for piece in one]
    outputs = iter(_outputs(handler, pieces))
    return [
        {"error": one} if isinstance(one, str) else handler.finish(one, [next(outputs) for _ in one])
        for one in prepared
    ]


def _prepared(handler: Handler[Any], record: dict[str, str]) -> list[Piece] | str:
    """The record's pieces, or the code of its error."""
    try:
        (pieces,) = handler.prepare([record])
    except RecordError as error:
        return error.code
    return list(pieces)


def _outputs(handler: Handler[Any], pieces: list[Piece]) -> list[Any]:
    """The raw output of each piece, as numpy."""
    order = sorted(range(len(pieces)), key=lambda index: -pieces[index].cost)
    found: dict[int, Any] = {}
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        with torch.inference_mode():
            outputs = handler.infer([pieces[index] for index in batch])
        found |= {index: output.numpy() for index, output in zip(batch, outputs, strict=True)}
    return [found[index] for index in range(len(pieces))]
