"""Threads in which requests are answered, apart by how long that takes: nobody who asks where a job stands waits behind
submissions or results that are being read.
"""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any, Literal, ParamSpec, TypeVar, get_args

from anyio import CapacityLimiter, to_thread

from jobs.api.auth import Principal

P = ParamSpec("P")
T = TypeVar("T")

#: `look` asks Redis and memory, and takes milliseconds; `read` and `submit` ask storage, and may take seconds.
Lane = Literal["look", "read", "submit"]
#: Threads of a lane. More would not answer sooner: only one of them runs Python at a time, the others wait for storage.
_THREADS = 16


class Lanes:
    """Those of one server."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, CapacityLimiter] = {lane: CapacityLimiter(_THREADS) for lane in get_args(Lane)}
        self._alone: dict[str, CapacityLimiter] = {}

    def of(self, lane: Lane, who: Principal) -> CapacityLimiter:
        """What lets requests of this lane in. A tenant with a quota of jobs submits them one after the other, so that
        each is counted before the next is let in; those that wait hold no thread."""
        if lane == "submit" and who.max_running_jobs is not None:
            return self._alone.setdefault(who.tenant, CapacityLimiter(1))
        return self._lanes[lane]

    async def run(self, lane: Lane, who: Principal, function: Callable[[], T]) -> T:
        """What the function returns, called in a thread of the lane."""
        return await to_thread.run_sync(function, limiter=self.of(lane, who))


def in_lane(lane: Lane) -> Callable[[Callable[P, T]], Callable[P, Awaitable[T]]]:
    """Make a route's function, which blocks, one that runs in a thread of this lane. It has a parameter `asked`."""

    def wrapped(function: Callable[P, T]) -> Callable[P, Awaitable[T]]:
        @wraps(function)
        async def run(*args: P.args, **kwargs: P.kwargs) -> T:
            asked: Any = kwargs["asked"]
            lanes: Lanes = asked.service.lanes
            return await lanes.run(lane, asked.who, partial(function, *args, **kwargs))

        return run

    return wrapped
