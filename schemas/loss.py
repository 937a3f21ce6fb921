"""Why worker processes are lost."""

from enum import StrEnum
from typing import NamedTuple


class Loss(StrEnum):
    """Why a worker process was lost; also the error code of the rows and shards that it was lost for."""

    WORKER_LOST = "worker_lost"
    TIMEOUT = "timeout"
    MEMORY_EXCEEDED = "memory_exceeded"
    #: Its lease ran out. The process may still live, and only be cut off from Redis.
    LEASE_EXPIRED = "lease_expired"


class Death(NamedTuple):
    """The loss of a worker process, and the shard's rows start…stop-1 if it worked on these alone at the time."""

    why: Loss
    start: int | None = None
    stop: int | None = None
