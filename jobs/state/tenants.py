"""What a tenant has under way, and what each of a job's shards is doing: questions that only the API asks."""

from dataclasses import dataclass

from jobs.state import State, _guarded
from schemas.manifest import ErrorInfo


@_guarded
def running_jobs(state: State, tenant: str) -> int:
    """How many of the tenant's jobs have not ended."""
    ids = state._redis.zrange("nightshift:active", 0, -1)
    with state._redis.pipeline(transaction=False) as pipe:
        for id in ids:
            pipe.hget(state._key(id), "tenant")
        return sum((found or "") == tenant for found in pipe.execute())


@dataclass(frozen=True)
class ShardsNow:
    """Of some of a job's shards: those that are committed, that a worker has in hand, and that were given up."""

    done: set[int]
    held: set[int]
    failed: dict[int, ErrorInfo]


@_guarded
def shards_now(state: State, job: str, shards: list[int]) -> ShardsNow:
    with state._redis.pipeline(transaction=False) as pipe:
        for shard in shards:
            pipe.getbit(state._key(job, "done"), shard)
        pipe.hkeys(state._key(job, "held"))
        pipe.hgetall(state._key(job, "failed"))
        *bits, held, failed = pipe.execute()
    return ShardsNow(
        {shard for shard, bit in zip(shards, bits, strict=True) if bit},
        {int(shard) for shard in held},
        {int(shard): ErrorInfo.model_validate_json(error) for shard, error in failed.items()},
    )
