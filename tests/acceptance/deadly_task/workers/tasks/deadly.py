"""deadly: a handler that some texts crash, hang or make grow without end, as a fault in a native library would."""

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from schemas.task import TaskParams
from schemas.tasks.deadly import TASK
from workers.handler import Handler, Loaded, Piece, Prediction, Record


def _grow() -> None:
    """Up to twice what the test allows; then wait to be ended for it, however late that is seen."""
    grown = [b"\x01" * (64 << 20) for _ in range(32)]
    while grown:
        time.sleep(1)


class Deadly(Handler[TaskParams]):
    task = TASK

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        return Loaded(torch.nn.Identity(), None, device, dtype)

    def prepare(self, records: Sequence[Record]) -> list[list[Piece]]:
        return [[Piece({}, max(1, len(record["text"])), record["text"])] for record in records]

    def infer(self, pieces: Sequence[Piece]) -> torch.Tensor:
        for piece in pieces:
            if piece.notes == "abort":
                os.abort()
            if piece.notes == "hang":
                re.match("(a+)+$", "a" * 99 + "b")  # which never lets go of Python's lock
            if piece.notes == "grow":
                _grow()
        return torch.tensor([[len(piece.notes)] for piece in pieces])

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        return {"length": int(outputs[0][0])}
