"""noise: random numbers from a model that does nothing, by way of the failpoints; a text may say how its batch ends."""

import ctypes
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import failpoints
from schemas.tasks.noise import TASK, Params
from workers.handler import Handler, Loaded, Piece, Prediction, Record

#: How this worker's device is broken, if it is.
DEVICE = os.environ.get("FAULTS_DEVICE", "")


class Noise(Handler[Params]):
    task = TASK
    deterministic = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._run = secrets.token_hex(8)
        self._batches = 0

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        if (folder / "deadly.json").exists():
            ctypes.string_at(0)
        return Loaded(torch.nn.Linear(1, 1), None, device, dtype)

    def prepare(self, records: Sequence[Record]) -> list[list[Piece]]:
        failpoints.reach("read")
        return [[Piece({}, cost=1, notes=record["text"])] for record in records]

    def infer(self, pieces: Sequence[Piece]) -> torch.Tensor:
        self._batches += 1
        if DEVICE == "fails":
            raise RuntimeError("the device is broken")
        if DEVICE == "dies":
            os._exit(1)
        failpoints.reach(f"batch-{self._batches}")
        time.sleep(self.params.batch_ms / 1000)
        if self.params.fits is not None and len(pieces) > self.params.fits:
            raise torch.OutOfMemoryError(f"no room for {len(pieces)} records")
        for piece in pieces:
            _obey(piece.notes)
        return torch.tensor([secrets.randbits(60) for _ in pieces])

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        return {"noise": int(outputs[0]), "run": self._run, "characters": len(pieces[0].notes)}


def _obey(text: str) -> None:
    if text == "!segfault":
        ctypes.string_at(0)
    elif text == "!exit":
        os._exit(1)
    elif text == "!hang":
        time.sleep(3600)
    elif text == "!eat":
        held = []
        while True:
            held.append(b"\x01" * (16 << 20))
