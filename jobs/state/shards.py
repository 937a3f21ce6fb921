"""The shards in Redis: handed out under a lease, renewed, committed, put back, given up or lost."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jobs.settings import Settings
from jobs.state.connection import Connection, job_key
from jobs.state.workers import Workers
from schemas.errors import LeftToOthers
from schemas.loss import Death, Loss
from schemas.manifest import ErrorInfo
from schemas.plan import ShardOrder


@dataclass(frozen=True)
class WarmLimits:
    """How far a job whose model a worker holds goes before the job whose turn it is.

    By so many shards, and while that job has waited no more than so many seconds since its last shard. A job that
    never had a shard waits for `new_seconds` since it was planned, and only for others that never had one.
    """

    shards: int = 8
    seconds: float = 600
    new_seconds: float = 60


@dataclass(frozen=True)
class ShardsNow:
    """Of some of a job's shards: those that are committed, that a worker has in hand, and that were given up."""

    done: set[int]
    held: set[int]
    failed: dict[int, ErrorInfo]


@dataclass(frozen=True)
class Swept:
    """Jobs that control is to be asked to finish and to plan, each with its output, and how many leases had run out."""

    finish: list[tuple[str, str]]
    plan: list[tuple[str, str]]
    expired: int


@dataclass(frozen=True)
class Verdict:
    """What became of a shard whose attempt failed.

    `stands`: what the attempt asked for was done: the shard is given up, or the job fails; else the shard was released
    again. `finish`: the job is to be finished. `suspect`: others do the job's shards, so this machine may be at fault.
    """

    stands: bool
    finish: bool
    suspect: bool


class Shards:
    def __init__(self, connection: Connection, workers: Workers, settings: Settings) -> None:
        self._redis = connection.redis
        self._run = connection.run
        self._workers = workers
        self._host = settings.host
        self._lease_s = settings.lease_s
        #: After a longer gap between two sweeps leases are let last once more: nobody could renew them.
        self._gap_s = max(3 * settings.sweep_s, settings.lease_s / 2)
        unnamed, named, in_a_row = settings.losses
        self._losses = {"max_unnamed": unnamed, "max_named": named, "max_shards": in_a_row}
        self.warm = WarmLimits()

    def tickets_missing(self, task: str, window: int, queue: str) -> int:
        """Return how many messages to send, so that the task's queue has one for each waiting shard, up to the
        window. Others count these as sent until `tickets_sent` is called, for some seconds."""
        return int(self._run("tickets_missing", task=task, window=window, queue=queue))

    def tickets_sent(self, task: str, count: int) -> None:
        """Say that so many messages that were missing are sent, or won't be."""
        self._run("tickets_sent", task=task, sent=count)

    def take(
        self, tasks: Collection[str], models: Sequence[str], attempt: str, avoid: Collection[str] = ()
    ) -> ShardOrder | None:
        """Take the lease of the shard that is to run now, of all jobs of these tasks; return None if none waits.

        `models` are those that the worker holds: their jobs go first as far as `warm` allows. `avoid` are jobs that
        failed here lately. Raise LeftToOthers if all that wait are better run by other machines.
        """
        found = self._run(
            "shard_take",
            attempt=attempt,
            host=self._host,
            able=json.dumps(self._workers.able_hosts(tasks)),
            avoid=json.dumps(list(avoid)),
            lease=self._lease_s,
            tasks=json.dumps(list(tasks)),
            models=json.dumps(list(models)),
            warm_shards=self.warm.shards,
            warm_s=self.warm.seconds,
            new_s=self.warm.new_seconds,
        )
        if found is None:
            return None
        if found == 0:
            raise LeftToOthers("the shards that wait failed on this machine and not on others, which are to run them")
        job, task, output, shard, shards = found
        return ShardOrder(job=job, task=task, output=output, shard=shard, shards=shards)

    def give_back(self, attempt: str) -> None:
        """Give back the shard that this attempt took, if it did: the answer was lost on its way."""
        self._run("shard_return", attempt=attempt)

    def renew(self, order: ShardOrder, attempt: str, rows: int) -> str:
        """Renew the lease, and say how many rows are done. Return the job's status, or `lost`."""
        return str(self._of(order, "shard_renew", attempt=attempt, lease=self._lease_s, rows=rows))

    def reclaim(self, order: ShardOrder, attempt: str, age_s: float) -> str:
        """Take a lease again that is `age_s` old and that Redis doesn't know, if Redis was emptied since.

        Return the job's status, `unknown` if the job has not been entered again yet, `lost` if the lease is another's.
        """
        return str(self._of(order, "shard_reclaim", attempt=attempt, host=self._host, lease=self._lease_s, age=age_s))

    def commit(self, order: ShardOrder, attempt: str, rows: int, errors: dict[str, int]) -> bool:
        """Note that the shard's part is in storage. Return True if the job is to be finished."""
        told = json.dumps(errors)
        return bool(self._of(order, "shard_commit", attempt=attempt, host=self._host, rows=rows, errors=told))

    def requeue(self, order: ShardOrder, attempt: str, delay_s: float = 0) -> bool:
        """Drop the lease; the shard is released again, after the delay. Return True if the job is to be finished."""
        return bool(self._of(order, "shard_requeue", attempt=attempt, delay=delay_s))

    def fail(
        self, order: ShardOrder, attempt: str, error: ErrorInfo, kind: str = "", times: int = 1, delay_s: float = 0,
        *, is_certain: bool = True,
    ) -> Verdict:  # fmt: skip
        """Give the shard up, if a fault of this kind happened so many times; the job goes on.

        Unless one machine is to be believed (`is_certain`), another must have seen it too, if there is another. Until
        then the shard is released again after the delay.
        """
        able = 1 if is_certain else self._able(order)
        told = self._of(
            order, "shard_fail", attempt=attempt, host=self._host, error=error.model_dump_json(),
            kind=kind or error.code, most=times, delay=delay_s, able=able,
        )  # fmt: skip
        return Verdict(*map(bool, told[1:]))

    def refuse(self, order: ShardOrder, attempt: str, error: ErrorInfo, times: int, delay_s: float) -> Verdict:
        """Fail the job for this error, if it happened so many times since a shard was last committed, and on another
        machine too if there is one. Until then the shard is released again after the delay."""
        told = self._of(
            order, "shard_refuse", attempt=attempt, host=self._host, error=error.model_dump_json(), code=error.code,
            most=times, delay=delay_s, able=self._able(order),
        )  # fmt: skip
        return Verdict(*map(bool, told[1:]))

    def _able(self, order: ShardOrder) -> int:
        return self._workers.count_able(order.task, self._host)

    def set_position(self, order: ShardOrder, attempt: str, work: tuple[int, int] | Literal["load"] | None) -> bool:
        """Say what the attempt works on: only the rows start…stop-1 of its shard, or loading its model. Return False if
        its lease is lost."""
        text = f"{work[0]}-{work[1]}" if isinstance(work, tuple) else work or ""
        return bool(self._of(order, "shard_set_position", attempt=attempt, position=text))

    def lost(self, order: ShardOrder, attempt: str, why: Loss) -> Verdict:
        """Note that the attempt's process is gone. The verdict `stands` if it still held its lease."""
        held, finish, suspect = self._of(
            order, "shard_lost", attempt=attempt, why=why, able=self._able(order), **self._losses
        )
        return Verdict(bool(held), bool(finish), bool(suspect))

    def deaths(self, order: ShardOrder) -> list[Death]:
        """Return the losses of workers over this shard, in order."""
        found = json.loads(self._redis.hget(job_key(order.job, "lost"), str(order.shard)) or "[]")
        return [Death(Loss(why), *rows) for why, *rows in found]

    def is_confirmed(self, order: ShardOrder) -> bool:
        """Return whether another machine failed at this shard before, or there is none that could try it."""
        seen = json.loads(self._redis.hget(job_key(order.job, "blamed"), str(order.shard)) or "{}")
        return bool(seen.keys() - {self._host}) or self._able(order) < 2

    def tries(self, order: ShardOrder) -> int:
        """Return how often the shard was put back for a fault that should pass."""
        return int(self._redis.hget(job_key(order.job, "tries"), str(order.shard)) or 0)

    def now(self, job: str, shards: Sequence[int]) -> ShardsNow:
        """Return where these shards of the job stand."""
        with self._redis.pipeline(transaction=False) as pipe:
            for shard in shards:
                pipe.getbit(job_key(job, "done"), shard)
            pipe.hkeys(job_key(job, "held"))
            pipe.hgetall(job_key(job, "failed"))
            *bits, held, failed = pipe.execute()
        return ShardsNow(
            {shard for shard, bit in zip(shards, bits, strict=True) if bit},
            {int(shard) for shard in held},
            {int(shard): ErrorInfo.model_validate_json(error) for shard, error in failed.items()},
        )

    def sweep(self, queue: str) -> Swept:
        """Release the shards whose lease has run out or whose delay is over. `queue` is control's Celery queue."""
        finish, plan, expired = self._run(
            "sweep", queue=queue, able=json.dumps(self._workers.able_by_task()), lease=self._lease_s, gap_s=self._gap_s,
            ask_s=self._lease_s / 4, **self._losses,
        )  # fmt: skip
        return Swept(_in_pairs(finish), _in_pairs(plan), int(expired))

    def _of(self, order: ShardOrder, script: str, **named: str | float) -> Any:
        return self._run(script, job=order.job, shard=order.shard, **named)


def _in_pairs(flat: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
