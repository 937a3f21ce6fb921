"""Webhooks that are due, in Redis: a job from the moment its manifest stands until its webhook is settled.

If Redis is lost, the catalog finds them again: a job with a webhook is marked as ended only once that is settled.
"""

from jobs.state.connection import Connection

_DUE = "nightshift:notices"


class WebhookQueue:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._redis = connection.redis

    def add(self, job: str, output: str) -> None:
        """Note that a job has ended that wants a webhook. A job that is noted already stays as it is."""
        now = self._connection.now()
        with self._redis.pipeline() as pipe:
            pipe.hsetnx(_key(job), "output", output)
            pipe.zadd(_DUE, {job: now}, nx=True)
            pipe.execute()

    def take_due(self, lease_s: float) -> list[tuple[str, str]]:
        """Return jobs whose webhook is due, and their outputs; each is due again after `lease_s`, unless settled."""
        return [(job, output) for job, output in self._connection.run("webhook_due", lease=lease_s)]

    def begin(self, job: str) -> int | None:
        """Count a try and return how many there were. Return None if the job's webhook is settled, or not due again."""
        return int(self._connection.run("webhook_begin", job=job)) or None

    def again(self, job: str, delay_s: float) -> None:
        """Make the job's webhook due after so long, unless it is settled."""
        self._connection.run("webhook_again", job=job, delay=delay_s)

    def settle(self, job: str) -> None:
        """Forget the job's webhook: it was delivered, or given up."""
        with self._redis.pipeline() as pipe:
            pipe.zrem(_DUE, job)
            pipe.delete(_key(job))
            pipe.execute()

    def waiting(self) -> int:
        """Return how many webhooks are not settled."""
        return int(self._redis.zcard(_DUE))


def _key(job: str) -> str:
    return f"nightshift:notice:{job}"
