"""Heartbeat file: what a worker process works on, and each stage's deadline, read by the supervisor.

The file begins with times (float64, seconds of the system-wide monotonic clock). There is one for each stage of the
runner: its current step must be over by then; 0 if no step is under way. There is one for each kind of input and
output: more bytes must have moved by then. The last one is the pulse: the process must write again by then, which it
does as long as any of its threads can run. Each write costs one system call. JSON follows: the process, and the attempt
it works on.
"""

import struct
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.plan import ShardOrder

#: The runner's stages, each of which has a thread of its own.
STAGES = ("prepare", "infer", "finish", "write")
#: Input and output: reading the job and its plan, fetching the model, reading the next rows, writing the part.
OPEN, FETCH, READ, UPLOAD = IO = ("open", "fetch", "read", "upload")
#: The loading of a model, before the stages. It may keep all other threads waiting.
LOAD = "load"
#: The time that belongs to no stage: by it the process shows that it isn't stuck.
PULSE = "pulse"
#: How many times longer a step may take if it works on more than one record.
TOGETHER = 4

_NAMES = (*STAGES, *IO, LOAD, PULSE)
_TIMES = struct.Struct(f"={len(_NAMES)}d")
_TIME = struct.Struct("=d")


class WorkInHand(BaseModel):
    """The attempt that a process works on. `slot` says which of its supervisor's processes it is."""

    model_config = ConfigDict(frozen=True)

    pid: int
    slot: int = 0
    order: ShardOrder
    attempt: str

    def to_bytes(self) -> bytes:
        return bytes(_TIMES.size) + self.model_dump_json().encode()


def read_work(data: bytes) -> tuple[WorkInHand, dict[str, float]] | None:
    """Return the content of a file, with the times that are set, by stage; None if it isn't a heartbeat file."""
    try:
        work = WorkInHand.model_validate_json(data[_TIMES.size :])
    except ValidationError:
        return None
    times = zip(_NAMES, _TIMES.unpack(data[: _TIMES.size]), strict=True)
    return work, {stage: time for stage, time in times if time}


def place_of(stage: str) -> int:
    """Return the offset in the file of a stage's time, or the pulse's."""
    return _NAMES.index(stage) * _TIME.size


def time_to_bytes(time: float) -> bytes:
    return _TIME.pack(time)


def failures_file(folder: Path, slot: int) -> Path:
    """Return the file that has a line for each failure in a row of a slot's processes that may be its machine's fault.

    It outlives them: a process that was lost can't remember that it was.
    """
    return folder / f"{slot}.failures"
