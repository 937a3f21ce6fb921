"""The workers in Redis: the supervisors that are alive, and what their processes do."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from jobs.state.connection import Connection
from schemas.plan import ShardOrder

_NAMES = "nightshift:workers"
#: Seconds after which a supervisor that no longer reports counts as gone.
_REPORT_S = 60


@dataclass(frozen=True)
class WorkerInfo:
    """A supervisor that has reported within the last minute, and how many shards it can run at once.

    `work` are the orders of the shards that its processes have in hand.
    """

    name: str
    groups: list[str]
    processes: int
    devices: list[str] = field(default_factory=list)
    work: list[dict[str, Any]] = field(default_factory=list)


class Workers:
    def __init__(self, connection: Connection) -> None:
        self._redis = connection.redis

    def report(
        self,
        name: str,
        groups: Sequence[str],
        processes: int,
        devices: Sequence[str] = (),
        work: Sequence[ShardOrder] = (),
    ) -> None:
        """Say that a supervisor is alive, and what it and its processes do."""
        seen = WorkerInfo(name, list(groups), processes, list(devices), [order.model_dump() for order in work])
        self._redis.set(_key(name), json.dumps(asdict(seen)), ex=_REPORT_S)
        self._redis.sadd(_NAMES, name)

    def forget(self, name: str) -> None:
        self._redis.delete(_key(name))
        self._redis.srem(_NAMES, name)

    def alive(self) -> list[WorkerInfo]:
        """Return the supervisors that are alive now."""
        return self.alive_among(self._redis.smembers(_NAMES))

    def alive_among(self, reported: Collection[str]) -> list[WorkerInfo]:
        """Return those of the supervisors that have reported lately; forget the others."""
        names = sorted(reported)
        found = self._redis.mget([_key(name) for name in names]) if names else []
        for name, info in zip(names, found, strict=True):
            if info is None:
                self._redis.srem(_NAMES, name)
        return [WorkerInfo(**json.loads(info)) for info in found if info]

    def window(self, group: str) -> int:
        """Return how many tickets may wait in a task's queue: enough that no process waits, few enough to be fair."""
        return max(2, 2 * sum(worker.processes for worker in self.alive() if group in worker.groups))


def _key(name: str) -> str:
    return f"nightshift:worker:{name}"
