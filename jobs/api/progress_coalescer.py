"""How is Redis asked for the progress of jobs, if many requests want it at once? One query serves them all.

A request that comes while a query is under way waits for the next one, which asks for every job that is waited for. So
a busy server shares the price of a thread and a round trip, and a single request waits for no other.
"""

import asyncio
from collections.abc import Callable, Sequence

from anyio import CapacityLimiter, to_thread

from jobs.state import Progress

#: The progress of a job as Redis knows it, and whether Redis answered at all.
Seen = tuple[Progress | None, bool]
#: Jobs of one query: Redis does nothing else while it answers.
_MOST = 100


class ProgressCoalescer:
    """Use it from the event loop alone. `ask` is called in a thread with the ids of jobs, and returns what is seen."""

    def __init__(self, ask: Callable[[Sequence[str]], Sequence[Seen]]) -> None:
        self._ask = ask
        self._waiting: dict[str, asyncio.Future[Seen]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._thread = CapacityLimiter(1)

    async def of(self, job: str) -> Seen:
        """Return the job's progress at some moment after this call."""
        if job not in self._waiting:
            self._waiting[job] = asyncio.get_running_loop().create_future()
        found = self._waiting[job]
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._run())
        return await asyncio.shield(found)  # others may wait for the same

    async def _run(self) -> None:
        while self._waiting:
            jobs = list(self._waiting)[:_MOST]
            asked = [self._waiting.pop(job) for job in jobs]
            try:
                answers = await to_thread.run_sync(self._ask, jobs, limiter=self._thread)
            except Exception as error:  # noqa: BLE001 (passed to the requests that wait)
                for future in asked:
                    future.set_exception(error)
                continue
            for future, seen in zip(asked, answers, strict=True):
                future.set_result(seen)
            if not answers[0][1]:  # Redis is away: don't ask again for those that still wait
                for future in self._waiting.values():
                    future.set_result((None, False))
                self._waiting.clear()
