"""Isolate poison records: process the shard in small spans until the record that kills the worker is found.

Such a shard is processed in spans of rows, one after the other. Before a span is begun, it is recorded in a place that
survives the process. The span in which a process dies is suspect, and in the next attempt each of its rows is a span of
its own. A row with which a process dies again, now alone, becomes an error row and is left out from then on. So a
record that kills its process costs two more deaths, or one if another record of its span was found before. If no span
kills any more, the shard is run as a whole: so its numbers are those of a shard that nothing happened to.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isqrt

from schemas.errors import RecordError
from schemas.loss import Death, Loss
from workers.io.block import Block

#: Poison records are isolated once a shard's process was lost this often, or once its supervisor ended the process.
CAREFUL_AFTER = 2
#: How often a lease must run out over a row alone; a single time may have another cause, such as Redis being away.
UNSEEN = 2

Span = tuple[int, int]


@dataclass(frozen=True)
class Findings:
    """What deaths over a shard show: `suspects`, spans with a poison record, and `killers`, such rows and the cause."""

    suspects: tuple[Span, ...]
    killers: Mapping[int, Loss]


def findings(deaths: Sequence[Death]) -> Findings | None:
    """Return what these deaths, in order, show; None if there are too few of them to isolate poison records."""
    deaths = [death for death in deaths if not death.at_io]
    if len(deaths) < CAREFUL_AFTER and all(death.why in (Loss.WORKER_LOST, Loss.LEASE_EXPIRED) for death in deaths):
        return None
    suspects: list[Span] = []
    killers: dict[int, Loss] = {}
    unseen: dict[int, int] = {}
    for why, start, stop in deaths:
        if start is None or stop is None:
            continue
        if stop - start > 1 or not any(first <= start < last for first, last in suspects):
            suspects.append((start, stop))
        elif why is not Loss.LEASE_EXPIRED:
            killers[start] = why
        else:
            unseen[start] = unseen.get(start, 0) + 1
            if unseen[start] >= UNSEEN:
                killers[start] = Loss.WORKER_LOST
    return Findings(tuple(suspects), killers)


def spans(start: int, stop: int, rows: int, found: Findings) -> Iterator[Span]:
    """Yield the rows start…stop-1 of a shard of `rows` rows in spans. Each row of a suspect span is a span of its own.

    Other spans have the square root of the shard's rows, so that there are about as many spans as rows in a span.
    """
    size = max(1, isqrt(rows))
    alone = {row for first, last in found.suspects for row in range(max(first, start), min(last, stop))}
    row = start
    while row < stop:
        end = row + 1
        if row not in alone:
            while end < stop and end not in alone and end - row < size:
                end += 1
        yield row, end
        row = end


@dataclass(frozen=True)
class Careful:
    """How the runner isolates a shard's poison records. `name` records the next span, or None, where it survives."""

    found: Findings
    errors: Mapping[int, RecordError]
    name: Callable[[Span | None], None]

    def may_run_whole(self, rows: int) -> bool:
        """Return whether the shard may be run as a whole once its spans went well: it did not die of that before.

        A span has other batches than the whole shard, and numbers that may differ in their last digits.
        """
        return rows > 1 and (0, rows) not in self.found.suspects

    def blocks(self, read: Iterator[Block]) -> Iterator[Block]:
        """Yield a shard's blocks, with errors in place of its poison records."""
        start = 0
        for block in read:
            yield self.without_killers(block, start)
            start += len(block)

    def without_killers(self, block: Block, start: int) -> Block:
        """Return the block, whose first row is the shard's `start`, with errors in place of its poison records."""
        records = [self.errors.get(row, record) for row, record in enumerate(block.records, start)]
        return replace(block, records=records)


def careful_after(
    deaths: Sequence[Death], timeout_s: float, memory_gb: float | None, name: Callable[[Span | None], None]
) -> Careful | None:
    """Return how to isolate poison records after these deaths over a shard, or None if that isn't needed."""
    found = findings(deaths)
    if found is None:
        return None
    messages = {
        Loss.WORKER_LOST: "the worker process ended each time that it worked on this record",
        Loss.TIMEOUT: f"the worker process hung at this record alone: a step takes {timeout_s:g} s at most",
        Loss.MEMORY_EXCEEDED: f"the worker process outgrew {memory_gb or 0:g} GB when it worked on this record alone",
    }
    errors = {row: RecordError(why.value, messages[why]) for row, why in found.killers.items()}
    return Careful(found, errors, name)
