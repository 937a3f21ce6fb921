"""State: what Redis knows of the jobs in flight. A cache: all of it can be rebuilt from storage.

Each change is one Lua script beside this file, atomic in Redis and by Redis's clock; `prelude.lua` names the keys.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, wraps
from importlib.resources import files
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from jobs.settings import Settings
from jobs.state.progress import Progress, WorkerInfo, progress_from
from schemas.errors import ServiceUnavailable
from schemas.heartbeat import Death, Loss
from schemas.manifest import ErrorInfo, JobStatus
from schemas.shard import ShardOrder

__all__ = ["Progress", "State", "WarmLimits", "WorkerInfo"]

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def _translated(address: str) -> Iterator[None]:
    try:
        yield
    except redis.AuthenticationError:
        raise ServiceUnavailable(f"Redis at {address} refuses the password in NIGHTSHIFT_REDIS_URL") from None
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise ServiceUnavailable(
            f"Redis at {address} can't be reached: {error}. Start it, correct NIGHTSHIFT_REDIS_URL, or unset that "
            "to run everything on this machine"
        ) from error


def _guarded(
    method: Callable[Concatenate["State", P], R],
) -> Callable[Concatenate["State", P], R]:
    """Translates Redis's errors, once, where they enter."""

    @wraps(method)
    def call(self: "State", *args: P.args, **kwargs: P.kwargs) -> R:
        with _translated(self.address):
            return method(self, *args, **kwargs)

    return call  # type: ignore[return-value]


@dataclass(frozen=True)
class WarmLimits:
    """How far a job whose model a worker holds goes before the one whose turn it is.

    By so many shards, and while that one has waited no more than so many seconds since its last shard. One that never
    had a shard waits so many since it was planned, and for others that never had one alone.
    """

    shards: int = 8
    seconds: float = 600
    new_seconds: float = 60


class State:
    """The jobs in flight. Every method raises ServiceUnavailable where Redis can't be reached."""

    def __init__(self, settings: Settings) -> None:
        if settings.redis_url is None:
            raise ServiceUnavailable("no Redis is set up: set NIGHTSHIFT_REDIS_URL, such as redis://localhost:6379/0")
        url = settings.redis_url.get_secret_value()
        self._redis: Any = redis.Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=10,
            socket_connect_timeout=5,
            health_check_interval=30,
            retry=Retry(ExponentialBackoff(cap=1.0, base=0.1), 3),
        )
        where = self._redis.connection_pool.connection_kwargs
        self.address = str(where.get("path") or f"{where.get('host')}:{where.get('port')}")
        self._settings = settings
        self.warm = WarmLimits()
        self._scripts: dict[str, Any] = {}

    def _run(self, script: str, *args: str | float) -> Any:
        if script not in self._scripts:
            folder = files("jobs.state") / "lua"
            source = (folder / "prelude.lua").read_text() + (folder / f"{script}.lua").read_text()
            self._scripts[script] = self._redis.register_script(source)
        return self._scripts[script](args=args)

    def _key(self, job: str, part: str = "") -> str:
        return f"nightshift:job:{job}" + (f":{part}" if part else "")

    # --- the producer's side -------------------------------------------------------------------------------------

    @_guarded
    def ping(self) -> None:
        self._redis.ping()

    @_guarded
    def add(
        self, job: str, task: str, output: str, priority: int, accepted: float, tenant: str = "", model: str = ""
    ) -> bool:
        """Enter an accepted job, to be planned. False where it is known and has not ended: it goes on as it is.

        Tenants get equal shares; jobs with the same `model` are run by workers that hold it, within `warm`.
        """
        return bool(self._run("job_add", job, task, output, priority, accepted, tenant, model))

    @_guarded
    def start(
        self,
        job: str,
        shards: int,
        rows: int,
        max_errors: int | None,
        done: Sequence[int],
        rows_done: int,
        errors: dict[str, int],
    ) -> bool:
        """The plan stands; the shards that aren't done may be released. True where none is left to do."""
        limit = "" if max_errors is None else max_errors
        done_json = json.dumps(list(done)) if done else "[]"
        return bool(self._run("job_start", job, shards, rows, limit, done_json, rows_done, json.dumps(errors)))

    @_guarded
    def cancel(self, job: str) -> bool:
        """Stop the job. False where it had ended, or was being stopped, or is not known."""
        return int(self._run("job_stop", job, JobStatus.CANCELLING, "")) >= 0

    @_guarded
    def pause(self, job: str) -> bool:
        """Hand out none of the job's shards; those in hand go on. False where it isn't under way, or is paused."""
        return bool(self._run("job_pause", job))

    @_guarded
    def unpause(self, job: str) -> bool:
        """Hand out its shards again. False where it was not paused."""
        return bool(self._run("job_resume", job))

    @_guarded
    def fail(self, job: str, error: ErrorInfo) -> bool:
        """Stop the job for an error that trying again won't mend. True where only the manifest is left to write."""
        return int(self._run("job_stop", job, JobStatus.FAILING, error.model_dump_json())) == 1

    @_guarded
    def plan_tried(self, job: str) -> int:
        """Count a fault that kept the job from being planned; how many there were."""
        return int(self._redis.hincrby(self._key(job), "plan_tries", 1))

    @_guarded
    def finish(self, job: str, status: JobStatus) -> None:
        self._run("job_finish", job, status, self._settings.keep_state_s)

    @_guarded
    def status(self, job: str) -> JobStatus | None:
        found = self._redis.hget(self._key(job), "status")
        return JobStatus(found) if found else None

    @_guarded
    def progress(self, job: str) -> Progress | None:
        """How far the job is, or None where Redis doesn't know it."""
        return self.progress_of([job])[0]

    @_guarded
    def progress_of(self, jobs: Sequence[str]) -> list[Progress | None]:
        """How far each of these jobs is, asked at once; None for those that Redis doesn't know."""
        with self._redis.pipeline() as pipe:
            for job in jobs:
                pipe.hgetall(self._key(job))
                pipe.hvals(self._key(job, "live"))
                pipe.hgetall(self._key(job, "errors"))
                pipe.hlen(self._key(job, "held"))
                pipe.hlen(self._key(job, "failed"))
            pipe.time()
            pipe.smembers("nightshift:workers")
            *told, (seconds, micros), reported = pipe.execute()
        now = seconds + micros / 1e6
        # Of every job that no worker has a shard of, asked once.
        groups = cache(lambda: {group for worker in self._alive(reported) for group in worker.groups})
        return [progress_from(job, told[5 * n : 5 * n + 5], now, groups) for n, job in enumerate(jobs)]

    @_guarded
    def failed_shards(self, job: str) -> dict[int, ErrorInfo]:
        """The shards that were given up, and why."""
        found = self._redis.hgetall(self._key(job, "failed"))
        return {int(shard): ErrorInfo.model_validate_json(error) for shard, error in found.items()}

    @_guarded
    def active_jobs(self) -> list[str]:
        """The jobs that have not ended, oldest first."""
        return list(self._redis.zrange("nightshift:active", 0, -1))

    # --- the worker's side ---------------------------------------------------------------------------------------

    @_guarded
    def release(self, task: str, window: int, queue: str) -> int:
        """How many messages to send, so that one waits in the task's queue for each waiting shard, up to the window."""
        return int(self._run("tickets_missing", task, window, queue))

    @_guarded
    def take(self, tasks: Collection[str], models: Sequence[str], attempt: str) -> ShardOrder | None:
        """The shard that is to run now of all jobs of these tasks, its lease taken; None where none waits.

        `models` are those that the worker holds: their jobs go first as far as `warm` allows.
        """
        limits = (self.warm.shards, self.warm.seconds, self.warm.new_seconds)
        served = json.dumps(list(tasks)) if tasks else "[]"
        held = json.dumps(list(models)) if models else "[]"
        found = self._run("shard_take", attempt, self._settings.lease_s, served, held, *limits)
        if found is None:
            return None
        job, task, output, shard, shards = found
        return ShardOrder(job=job, task=task, output=output, shard=shard, shards=shards)

    @_guarded
    def claim(self, order: ShardOrder, attempt: str) -> str:
        """Take the lease of this very shard. `claimed` where that worked; what stood against it otherwise."""
        return str(self._run("shard_claim", order.job, order.shard, attempt, self._settings.lease_s))

    @_guarded
    def renew(self, order: ShardOrder, attempt: str, rows: int) -> str:
        """Renew the lease, and say how many rows are done. The job's status, or `lost`."""
        return str(self._run("shard_renew", order.job, order.shard, attempt, self._settings.lease_s, rows))

    @_guarded
    def commit(self, order: ShardOrder, attempt: str, rows: int, errors: dict[str, int]) -> bool:
        """The shard's part is in storage. True where the job wants finishing."""
        return bool(self._run("shard_commit", order.job, order.shard, attempt, rows, json.dumps(errors)))

    @_guarded
    def put_back(self, order: ShardOrder, attempt: str, delay_s: float = 0) -> bool:
        """Let the lease go; the shard is released again, after the delay. True where the job wants finishing."""
        return bool(self._run("shard_requeue", order.job, order.shard, attempt, delay_s))

    @_guarded
    def fail_shard(self, order: ShardOrder, attempt: str, error: ErrorInfo) -> bool:
        """Give the shard up; the job goes on. True where the job wants finishing."""
        return bool(self._run("shard_fail", order.job, order.shard, attempt, error.model_dump_json()))

    @_guarded
    def name_work(self, order: ShardOrder, attempt: str, work: tuple[int, int] | Literal["load"] | None) -> bool:
        """Say what the attempt works on: rows of its shard alone, start…stop-1, or its model. False where its lease is
        lost."""
        text = f"{work[0]}-{work[1]}" if isinstance(work, tuple) else work or ""
        return bool(self._run("shard_set_position", order.job, order.shard, attempt, text))

    @_guarded
    def lost(self, order: ShardOrder, attempt: str, why: Loss) -> tuple[bool, bool]:
        """The attempt's process is gone. Whether it still held its lease, and whether the job wants finishing."""
        held, finish = self._run("shard_lost", order.job, order.shard, attempt, why, *self._settings.losses)
        return bool(held), bool(finish)

    @_guarded
    def deaths(self, order: ShardOrder) -> list[Death]:
        """The workers that were lost over this shard, in order."""
        found = json.loads(self._redis.hget(self._key(order.job, "lost"), str(order.shard)) or "[]")
        return [Death(Loss(why), *rows) for why, *rows in found]

    @_guarded
    def tries(self, order: ShardOrder) -> int:
        """How often the shard was put back for a fault that should pass."""
        return int(self._redis.hget(self._key(order.job, "tries"), str(order.shard)) or 0)

    # --- the sweep's side ----------------------------------------------------------------------------------------

    @_guarded
    def lock(self, name: str, owner: str, seconds: float) -> bool:
        """Take or renew a lock for so long. False where another owner has it."""
        key = f"nightshift:lock:{name}"
        if self._redis.set(key, owner, nx=True, px=int(seconds * 1000)):
            return True
        return self._redis.get(key) == owner and bool(self._redis.pexpire(key, int(seconds * 1000)))

    @_guarded
    def unlock(self, name: str, owner: str) -> None:
        key = f"nightshift:lock:{name}"
        if self._redis.get(key) == owner:
            self._redis.delete(key)

    @_guarded
    def sweep(self) -> tuple[list[str], list[str], int]:
        """Release what nobody works on. The jobs to finish, the jobs to plan, how many leases had run out."""
        finish, plan, expired = self._run("sweep", *self._settings.losses)
        return finish, plan, int(expired)

    @_guarded
    def report_worker(
        self,
        name: str,
        groups: Sequence[str],
        processes: int,
        devices: Sequence[str] = (),
        work: Sequence[ShardOrder] = (),
    ) -> None:
        """Say that a supervisor is alive, and what it and its processes do."""
        seen = WorkerInfo(name, list(groups), processes, list(devices), [order.model_dump() for order in work])
        info = json.dumps(asdict(seen))
        self._redis.set(f"nightshift:worker:{name}", info, ex=60)
        self._redis.sadd("nightshift:workers", name)

    @_guarded
    def forget_worker(self, name: str) -> None:
        self._redis.delete(f"nightshift:worker:{name}")
        self._redis.srem("nightshift:workers", name)

    @_guarded
    def workers(self) -> list[WorkerInfo]:
        """The supervisors alive now."""
        return self._alive(self._redis.smembers("nightshift:workers"))

    def _alive(self, reported: Collection[str]) -> list[WorkerInfo]:
        """Those of the supervisors that once reported that still do; the others are forgotten."""
        names = sorted(reported)
        found = self._redis.mget([f"nightshift:worker:{name}" for name in names]) if names else []
        for name, info in zip(names, found, strict=True):
            if info is None:
                self._redis.srem("nightshift:workers", name)
        return [WorkerInfo(**json.loads(info)) for info in found if info]

    def window(self, group: str) -> int:
        """How many of a task's shards may wait unclaimed: enough that no process waits, few enough to be fair."""
        return max(2, 2 * sum(worker.processes for worker in self.workers() if group in worker.groups))

    # --- measured rates ------------------------------------------------------------------------------------------

    @_guarded
    def note_rate(self, task: str, model: str, rows_per_s: float) -> None:
        """Remember how fast a process last worked on this model, for planning."""
        self._redis.hset("nightshift:rates", f"{task} {model}", rows_per_s)

    @_guarded
    def rate(self, task: str, model: str) -> float | None:
        """Records a second that a process last did with this model."""
        found = self._redis.hget("nightshift:rates", f"{task} {model}")
        return float(found) if found else None
