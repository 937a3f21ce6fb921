"""Work in hand: what a worker process says of itself to its supervisor, in a small file; and what became of those lost.

The file begins with times (float64, seconds of the system-wide monotonic clock): for each stage of the runner the one
by which its current step must be over, 0 where none is under way; then the one by which the process must have spoken
again, which it does as long as any of its threads can run. Each is written over and over, at the cost of a system call.
What follows is JSON: the process, and the attempt it works on.
"""

import struct
from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.shard import ShardOrder

#: The runner's stages, each of which has a thread of its own.
STAGES = ("prepare", "infer", "finish", "write")
#: What a process says beside, of no stage: that it isn't stuck.
PULSE = "pulse"
#: How many times longer a step may take that works on more than one record.
TOGETHER = 4

_NAMES = (*STAGES, PULSE)
_TIMES = struct.Struct(f"={len(_NAMES)}d")
_TIME = struct.Struct("=d")


class Loss(StrEnum):
    """Why a worker process was lost; also the error codes of rows and shards that it was lost for."""

    WORKER_LOST = "worker_lost"
    TIMEOUT = "timeout"
    MEMORY_EXCEEDED = "memory_exceeded"
    #: Nobody saw it die: its lease ran out. It may be that it only could not be heard.
    LEASE_EXPIRED = "lease_expired"


class Death(NamedTuple):
    """A worker process that was lost, and the shard's rows start…stop-1 if it had said that it works on these alone."""

    why: Loss
    start: int | None = None
    stop: int | None = None


class WorkInHand(BaseModel):
    """The attempt that a process works on."""

    model_config = ConfigDict(frozen=True)

    pid: int
    order: ShardOrder
    attempt: str

    def to_bytes(self) -> bytes:
        return bytes(_TIMES.size) + self.model_dump_json().encode()


def read_work(data: bytes) -> tuple[WorkInHand, dict[str, float]] | None:
    """What a file says, with those of its times that are set, by their stages; None where it is none of ours."""
    try:
        work = WorkInHand.model_validate_json(data[_TIMES.size :])
    except ValidationError:
        return None
    times = zip(_NAMES, _TIMES.unpack(data[: _TIMES.size]), strict=True)
    return work, {stage: time for stage, time in times if time}


def place_of(stage: str) -> int:
    """Where in the file a stage's time stands, or the pulse's."""
    return _NAMES.index(stage) * _TIME.size


def time_to_bytes(time: float) -> bytes:
    return _TIME.pack(time)
