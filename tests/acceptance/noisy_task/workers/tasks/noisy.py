"""noisy: a handler that warns as libraries do, of each kind and at every step, its own import among them."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from schemas.task import TaskParams
from schemas.tasks.noisy import TASK
from workers.handler import Handler, Loaded, Piece, Prediction, Record


def _warn(step: str) -> None:
    for kind in (DeprecationWarning, FutureWarning, UserWarning, RuntimeWarning, ResourceWarning):
        warnings.warn(f"a library warns in {step}", kind, stacklevel=2)


_warn("import")


class Noisy(Handler[TaskParams]):
    task = TASK

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        _warn("load")
        return Loaded(torch.nn.Identity(), None, device, dtype)

    def prepare(self, records: Sequence[Record]) -> list[list[Piece]]:
        _warn("prepare")
        return [[Piece({}, max(1, len(record["text"])), record["text"])] for record in records]

    def infer(self, pieces: Sequence[Piece]) -> torch.Tensor:
        _warn("infer")
        return torch.tensor([[len(piece.notes)] for piece in pieces])

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        _warn("finish")
        return {"length": int(outputs[0][0])}
