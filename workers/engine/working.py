"""What does the runner keep of a block while its stages overlap, and how long does each stage take?"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import RecordError
from workers.engine.heartbeat import Watch
from workers.handler import Piece, Prediction
from workers.io.block import Block


@dataclass
class Working:
    """A block in progress. `first[i]` is the row whose answer row i shares; `copied` are rows answered before the job.

    For each record whose pieces are not all computed yet, `found` has the computed ones with their outputs.
    """

    block: Block
    first: list[int]
    keys: dict[int, bytes]
    answers: dict[int, Prediction | RecordError]
    copied: set[int]
    found: defaultdict[int, list[tuple[Piece, Any]]] = field(default_factory=lambda: defaultdict(list))


@dataclass
class Timer:
    """Measures seconds by stage, and tells the watch of each step."""

    watch: Watch
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def timed(self, stage: str, function: Callable[[], Any]) -> Any:
        start = time.monotonic()
        self.watch.begin(stage)
        try:
            return function()
        finally:
            self.watch.end(stage)
            self.seconds[stage] += time.monotonic() - start
