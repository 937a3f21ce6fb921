"""no-op: a model that isn't called."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from schemas.tasks.no_op import TASK, Params
from workers.handler import Handler, Loaded, Piece, Prediction, Record


class NoOp(Handler[Params]):
    task = TASK

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        return Loaded(torch.nn.Linear(1, 1), None, device, dtype)

    def prepare(self, records: Sequence[Record]) -> list[list[Piece]]:
        return [[Piece({}, cost=1)] for _ in records]

    def infer(self, pieces: Sequence[Piece]) -> torch.Tensor:
        return torch.ones(len(pieces))

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        return {"done": True}
