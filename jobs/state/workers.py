"""The workers in Redis: the supervisors that are alive, what their processes do, and which of them take no shards."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from jobs.settings import Settings
from jobs.state.connection import Connection
from schemas.plan import ShardOrder
from schemas.tasks import all_tasks

_NAMES = "nightshift:workers"
_SUSPENDED = "nightshift:suspended"
_SINCE = "nightshift:reported_since"
#: Seconds after which a supervisor that no longer reports counts as gone.
_REPORT_S = 60
#: Seconds for which a process remembers which workers there are.
_REMEMBERED_S = 2.0


@dataclass(frozen=True)
class Suspension:
    """A process that takes no shards for now: so many in a row failed on it, and not elsewhere.

    Times are Unix seconds.
    """

    process: str
    worker: str
    why: str
    failures: int
    since: float
    until: float


@dataclass(frozen=True)
class WorkerInfo:
    """A supervisor that has reported within the last minute, and how many shards it can run at once.

    `work` are the orders of the shards that its processes have in hand, `suspended` those processes that take none.
    """

    name: str
    groups: list[str]
    processes: int
    devices: list[str] = field(default_factory=list)
    work: list[dict[str, Any]] = field(default_factory=list)
    host: str = ""
    suspended: list[Suspension] = field(default_factory=list)

    @property
    def is_able(self) -> bool:
        """Whether one of its processes takes shards."""
        return len(self.suspended) < self.processes


#: What a report says. An earlier version reads it too, and knows no more than these.
_REPORTED = ("name", "groups", "processes", "devices", "work")


class Workers:
    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._redis = connection.redis
        self._connection = connection
        self._settings = settings
        self._known: tuple[float, list[WorkerInfo], int] = (float("-inf"), [], 0)

    def report(
        self,
        name: str,
        groups: Sequence[str],
        processes: int,
        devices: Sequence[str] = (),
        work: Sequence[ShardOrder] = (),
        host: str = "",
    ) -> None:
        """Say that a supervisor is alive, where it is, and what it and its processes do."""
        seen = WorkerInfo(name, list(groups), processes, list(devices), [order.model_dump() for order in work])
        told = {key: value for key, value in asdict(seen).items() if key in _REPORTED}
        with self._redis.pipeline() as pipe:
            pipe.set(_key(name), json.dumps(told), ex=_REPORT_S)
            pipe.set(_health_key(name), json.dumps({"host": host}), ex=_REPORT_S)
            pipe.sadd(_NAMES, name)
            pipe.execute()

    def begin(self) -> None:
        """Note that supervisors report to this Redis from now on, if that isn't noted yet.

        Until each had the time to do so, nobody knows which machines there are.
        """
        self._redis.set(_SINCE, self._connection.now(), nx=True)

    def forget(self, name: str) -> None:
        self._redis.delete(_key(name), _health_key(name))
        self._redis.srem(_NAMES, name)

    def suspend(self, suspension: Suspension) -> None:
        """Say that a process takes no shards for now, and why."""
        self._redis.hset(_SUSPENDED, suspension.process, json.dumps(asdict(suspension)))

    def resume(self, process: str) -> None:
        """Say that a process takes shards again."""
        self._redis.hdel(_SUSPENDED, process)

    def alive(self) -> list[WorkerInfo]:
        """Return the supervisors that are alive now."""
        return self.alive_among(self._redis.smembers(_NAMES))

    def alive_among(self, reported: Collection[str]) -> list[WorkerInfo]:
        """Return those of the supervisors that have reported lately; forget the others."""
        names = sorted(reported)
        if not names:
            return []
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.mget([_key(name) for name in names])
            pipe.mget([_health_key(name) for name in names])
            pipe.hvals(_SUSPENDED)
            told, health, suspended = pipe.execute()
        by_worker = self._suspended(suspended, {name for name, info in zip(names, told, strict=True) if info})
        found = []
        for name, info, extra in zip(names, told, health, strict=True):
            if info is None:
                self._redis.srem(_NAMES, name)
                continue
            # An earlier version's name begins with its host, and is followed by a process id.
            host = json.loads(extra or "{}").get("host") or name.rpartition("-")[0]
            known = {key: value for key, value in json.loads(info).items() if key in _REPORTED}
            found.append(WorkerInfo(**known, host=host, suspended=by_worker[name]))
        return found

    def _suspended(self, told: Sequence[str], alive: Collection[str]) -> defaultdict[str, list[Suspension]]:
        """Return the suspended processes by worker; forget those whose worker is gone."""
        found: defaultdict[str, list[Suspension]] = defaultdict(list)
        names = {each.name for each in fields(Suspension)}
        for text in told:
            one = Suspension(**{key: value for key, value in json.loads(text).items() if key in names})
            if one.worker in alive:
                found[one.worker].append(one)
            elif one.worker:
                self.resume(one.process)
        return found

    def known(self) -> list[WorkerInfo]:
        """Return the supervisors that are alive, as seen within the last seconds."""
        return self._seen()[0]

    def _seen(self) -> tuple[list[WorkerInfo], int]:
        """Return the supervisors that are alive, and 1 if another may be there that had no time to report."""
        at, found, supposed = self._known
        if time.monotonic() - at > _REMEMBERED_S:
            found, supposed = self.alive(), int(self._is_new())
            self._known = time.monotonic(), found, supposed
        return found, supposed

    def _is_new(self) -> bool:
        """Return whether other machines may be there that had no time to report yet."""
        if not self._settings.rebuild:
            return False
        since = self._redis.get(_SINCE)
        if since is None:  # emptied, unless this process has no supervisor, which would have reported
            return bool(self._settings.worker)
        return self._connection.now() - float(since) < self._settings.lease_s

    def able_hosts(self, tasks: Collection[str]) -> list[str]:
        """Return the machines with a worker that serves one of these tasks and takes shards."""
        groups = {task.group for task in all_tasks().values() if task.id in tasks}
        able = {worker.host for worker in self.known() if worker.is_able and groups.intersection(worker.groups)}
        return sorted(able)

    def count_able(self, task: str, host: str) -> int:
        """Return how many machines could run a shard of the task: this one, those that are able, and one that may be
        there, as long as Redis is new."""
        return len({host, *self.able_hosts([task])}) + self._seen()[1]

    def able_by_task(self) -> dict[str, int]:
        """Return how many machines could run a shard of each task, with one that may be there."""
        found, supposed = self._seen()
        hosts = {(worker.host, group) for worker in found if worker.is_able for group in worker.groups}
        count = Counter(group for _, group in hosts)
        return {task.id: count[task.group] + supposed for task in all_tasks().values()}

    def window(self, group: str) -> int:
        """Return how many tickets may wait in a task's queue: enough that no process waits, few enough to be fair."""
        return max(2, 2 * sum(worker.processes for worker in self.known() if group in worker.groups))


def _key(name: str) -> str:
    return f"nightshift:worker:{name}"


def _health_key(name: str) -> str:
    return f"nightshift:health:{name}"
