"""Why was a worker process lost, and on which rows?"""

from enum import StrEnum
from typing import NamedTuple


class Loss(StrEnum):
    """The reason for losing a worker process. It is also the error code of the rows and shards concerned."""

    WORKER_LOST = "worker_lost"
    TIMEOUT = "timeout"
    MEMORY_EXCEEDED = "memory_exceeded"
    #: The lease ran out. The process may be alive, and only cut off from Redis.
    LEASE_EXPIRED = "lease_expired"


#: The rows of an attempt that was ended while a store kept it waiting: not one of them.
NO_ROWS = (0, 0)


class Death(NamedTuple):
    """The loss of a worker process, and the shard's rows start…stop-1 if it worked on these alone at the time."""

    why: Loss
    start: int | None = None
    stop: int | None = None

    @property
    def at_io(self) -> bool:
        """Whether a store kept the process waiting: no record is at fault then."""
        return (self.start, self.stop) == NO_ROWS
