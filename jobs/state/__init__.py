"""State: what Redis knows of the jobs in flight. A cache: all of it can be rebuilt from storage.

Each change that needs a decision is one Lua script in `lua/`, atomic in Redis and by Redis's clock; `lua/prelude.lua`
names the keys.
"""

from datetime import UTC, datetime

from jobs.settings import Settings
from jobs.state.connection import Connection
from jobs.state.epoch import Epoch
from jobs.state.jobs import Jobs
from jobs.state.locks import Locks
from jobs.state.progress import Progress, Rate, rate_of
from jobs.state.schedules import ScheduleChanges
from jobs.state.shards import Shards, ShardsNow, Verdict, WarmLimits
from jobs.state.webhook_queue import WebhookQueue
from jobs.state.workers import Suspension, WorkerInfo, Workers

__all__ = ["Progress", "Rate", "ShardsNow", "State", "Suspension", "Verdict", "WarmLimits", "WorkerInfo", "rate_of"]


class State:
    """The jobs in flight, by what they consist of. Every method raises ServiceUnavailable if Redis can't be reached."""

    def __init__(self, settings: Settings) -> None:
        connection = Connection(settings)
        self._redis = connection.redis
        self.workers = Workers(connection, settings)
        self.jobs = Jobs(connection, self.workers, settings)
        self.shards = Shards(connection, self.workers, settings)
        self.locks = Locks(connection)
        self.epoch = Epoch(connection)
        self.webhooks = WebhookQueue(connection)
        self.schedules = ScheduleChanges(connection)
        self._connection = connection

    def ping(self) -> None:
        self._redis.ping()

    def now(self) -> datetime:
        """Return the time by Redis's clock, which is one for all machines, in UTC."""
        return datetime.fromtimestamp(self._connection.now(), UTC)

    def queue_length(self, queue: str) -> int:
        """Return how many messages wait in a Celery queue."""
        return int(self._redis.llen(queue))
