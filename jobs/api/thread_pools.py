"""In which thread is a request answered? There is a pool for each duration of answers.

So a request for a job's progress never waits behind submissions, or behind results that are being read.
"""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any, Literal, ParamSpec, TypeVar, get_args

from anyio import CapacityLimiter, to_thread

from jobs.api.auth import Principal

P = ParamSpec("P")
T = TypeVar("T")

#: `quick` asks Redis and memory, and takes milliseconds. `read` and `submit` ask storage, and may take seconds.
Pool = Literal["quick", "read", "submit"]
#: Threads of a pool. More would not answer sooner: only one of them runs Python at a time, the others wait for storage.
_THREADS = 16
#: Threads of a pool that one tenant may have: others find one free, whatever it asks for.
_OF_A_TENANT = 6


class ThreadPools:
    """The pools of one server."""

    def __init__(self) -> None:
        self._pools: dict[Pool, CapacityLimiter] = {pool: CapacityLimiter(_THREADS) for pool in get_args(Pool)}
        self._shares: dict[tuple[Pool, str], CapacityLimiter] = {}

    def share(self, pool: Pool, who: Principal) -> CapacityLimiter:
        """Return the limiter of the tenant's share of a pool.

        A tenant with a quota of jobs submits them one after the other, so that each is counted before the next. The
        requests that wait hold no thread.
        """
        one_by_one = pool == "submit" and who.max_running_jobs is not None
        threads = 1 if one_by_one else _OF_A_TENANT if who.token_id else _THREADS
        share = self._shares.setdefault((pool, who.tenant), CapacityLimiter(threads))
        share.total_tokens = threads  # another token of the tenant's may have a quota, or none
        return share

    async def run(self, pool: Pool, who: Principal, function: Callable[[], T]) -> T:
        """Call the function in a thread of the pool, and return what it returns."""
        async with self.share(pool, who):
            return await to_thread.run_sync(function, limiter=self._pools[pool])


def in_pool(pool: Pool) -> Callable[[Callable[P, T]], Callable[P, Awaitable[T]]]:
    """Run a route's function, which blocks, in a thread of this pool. The function has a parameter `asked`."""

    def wrapped(function: Callable[P, T]) -> Callable[P, Awaitable[T]]:
        @wraps(function)
        async def run(*args: P.args, **kwargs: P.kwargs) -> T:
            asked: Any = kwargs["asked"]
            pools: ThreadPools = asked.service.pools
            return await pools.run(pool, asked.who, partial(function, *args, **kwargs))

        return run

    return wrapped
