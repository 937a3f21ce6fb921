"""Where jobs stand, asked of Redis for many requests at once.

A request that comes while a question is under way waits for the next one, which asks for all that wait. So the price of
a thread and a round trip is shared by as many as are in a hurry, and who comes alone waits for nobody.
"""

import asyncio
from collections.abc import Callable, Sequence

from anyio import CapacityLimiter, to_thread

from jobs.state import Progress

#: What Redis knows of a job, and whether it answered at all.
Seen = tuple[Progress | None, bool]
#: Jobs of one question: Redis does nothing else while it answers.
_MOST = 100


class Looks:
    """Asked from the event loop alone. `ask` is called in a thread, with the ids of jobs, and says how each stands."""

    def __init__(self, ask: Callable[[Sequence[str]], Sequence[Seen]]) -> None:
        self._ask = ask
        self._waiting: dict[str, asyncio.Future[Seen]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._thread = CapacityLimiter(1)

    async def at(self, job: str) -> Seen:
        """How the job stands after this was called."""
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
            except Exception as error:  # noqa: BLE001 (whoever asked gets it)
                for future in asked:
                    future.set_exception(error)
                continue
            for future, seen in zip(asked, answers, strict=True):
                future.set_result(seen)
            if not answers[0][1]:  # Redis is away: they needn't find that out one after the other
                for future in self._waiting.values():
                    future.set_result((None, False))
                self._waiting.clear()
