"""When does a worker process stop taking shards? A circuit breaker: when so many in a row fail here and not elsewhere.

closed      shards are taken
open        none are taken, for a while that doubles each time
half-open   the while is over, and the machine looks sound: one shard is taken, whose end closes or opens it again
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

#: Suspect failures in a row that open it.
FAILURES = 3
#: Seconds that it stays open the first time, and at most.
FIRST_S, LONGEST_S = 5.0, 300.0
#: Seconds that a job is left to others after it failed here, the first time.
AVOID_S = 2.0


@dataclass
class Breaker:
    """Counts failures that may be this machine's own. `clock` is in seconds."""

    clock: Callable[[], float] = time.monotonic
    failures: int = 0
    why: str = ""
    _opened: int = 0
    _until: float = 0.0
    _avoided: dict[str, tuple[int, float]] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        return self.failures >= FAILURES

    @property
    def wait_s(self) -> float:
        """Seconds until a shard may be taken: 0 if it is closed, or half-open."""
        return max(0.0, self._until - self.clock()) if self.is_open else 0.0

    def failed(self, why: str, job: str = "") -> None:
        """Note a failure that may be this machine's own; `job` is the one whose shard it was."""
        self.failures += 1
        self.why = why
        if job:
            times = self._avoided.get(job, (0, 0.0))[0] + 1
            self._avoided[job] = times, self.clock() + _doubled(AVOID_S, times)
        if self.is_open:
            self._opened += 1
            self._until = self.clock() + _doubled(FIRST_S, self._opened)

    def trip(self, why: str) -> None:
        """Open it at once: the machine is known to be unsound."""
        self.failures = max(self.failures, FAILURES - 1)
        self.failed(why)

    def recall(self, failures: Sequence[str]) -> None:
        """Take up the failures of processes that this one replaces."""
        for why in failures:
            self.failed(why)

    def succeeded(self, job: str) -> None:
        """Close it."""
        self.failures, self._opened, self.why = 0, 0, ""
        self._avoided.pop(job, None)

    @property
    def avoided(self) -> list[str]:
        """The jobs whose shards failed here lately."""
        now = self.clock()
        # Remembered for as long again, so that the next failure counts as one more in a row.
        self._avoided = {job: seen for job, seen in self._avoided.items() if now < seen[1] + LONGEST_S}
        return [job for job, (_, until) in self._avoided.items() if now < until]


def _doubled(first: float, times: int) -> float:
    return min(LONGEST_S, first * 2.0 ** min(times - 1, 30))
