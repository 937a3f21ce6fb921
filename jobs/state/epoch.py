"""Redis lost and rebuilt: how a Redis that may have forgotten jobs is known, and a lease that outlives it.

A whole Redis bears, as its epoch, the run id of the server process that every unfinished job was entered into. One
that was emptied has no epoch; one that was restarted from a snapshot, or was a replica, has another process's.
"""

import secrets
from dataclasses import dataclass

from jobs.state import State, _guarded
from schemas.shard import ShardOrder

_EPOCH = "nightshift:epoch"
_REBUILDING = "nightshift:rebuilding"


@dataclass(frozen=True)
class Rebuilding:
    """A rebuilding under way: what is noted at its end counts only for the server process that it began with."""

    token: str
    run: str


@_guarded
def is_whole(state: State) -> bool:
    """Whether every unfinished job was entered into this Redis since it was started."""
    found: str | None = state._redis.get(_EPOCH)
    return found is not None and found == _run_id(state)


@_guarded
def begin(state: State) -> Rebuilding:
    begun = Rebuilding(secrets.token_hex(8), _run_id(state))
    state._redis.set(_REBUILDING, begun.token)
    return begun


@_guarded
def end(state: State, begun: Rebuilding) -> bool:
    """Note that Redis is whole. False where it was emptied meanwhile, or another rebuilding began."""
    return bool(state._run("epoch_set", begun.token, begun.run))


@_guarded
def reclaim(state: State, order: ShardOrder, attempt: str, age_s: float, lease_s: float) -> str:
    """Take a lease again that is `age_s` old and that Redis doesn't know, where Redis was emptied since.

    The job's status, `unknown` where the job has not been entered again yet, `lost` where the lease is another's.
    """
    return str(state._run("shard_reclaim", order.job, order.shard, attempt, lease_s, age_s))


def _run_id(state: State) -> str:
    return str(state._redis.info("server").get("run_id", ""))
