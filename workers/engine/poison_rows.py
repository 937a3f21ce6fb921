"""Careful: how to go through a shard that its worker was lost for, until the records that do it stand alone.

Such a shard's rows are worked on in spans, one after the other, each named where it survives before anything is done
with its records. The span in which a process dies is suspect; in the next attempt each row of a suspect span is a span
of its own. A row that a process dies with alone, after it did so in company, is left out from then on: it becomes an
error row. So a record that ends its process costs two more deaths, or one where another of its span was found before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isqrt

from schemas.errors import RecordError
from schemas.heartbeat import Death, Loss
from workers.io.block import Block

#: A shard is worked on with care once its process was lost this often, or was ended by its supervisor.
CAREFUL_AFTER = 2
#: Leases that must have run out over a row alone: that may have other causes, such as Redis being away.
UNSEEN = 2

Span = tuple[int, int]


@dataclass(frozen=True)
class Findings:
    """What the deaths over a shard tell: spans that hold a killer, and rows that are one, with why."""

    suspects: tuple[Span, ...]
    killers: Mapping[int, Loss]


def findings(deaths: Sequence[Death]) -> Findings | None:
    """What these deaths tell, in their order; None where the shard needs no care yet."""
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
    """The rows start…stop-1 of a shard of so many, in the spans to work on: rows of suspect spans are alone.

    Other spans are the square root of the shard's rows, so that there are about as many spans as rows in a suspect one.
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
    """How the runner is to go through a shard. `name` says where it survives which rows are worked on next, if any."""

    found: Findings
    errors: Mapping[int, RecordError]
    name: Callable[[Span | None], None]

    def without_killers(self, block: Block, start: int) -> Block:
        """The block, whose first row is the shard's `start`, with errors in the place of records that are left out."""
        records = [self.errors.get(row, record) for row, record in enumerate(block.records, start)]
        return replace(block, records=records)


def careful_after(
    deaths: Sequence[Death], timeout_s: float, memory_gb: float | None, name: Callable[[Span | None], None]
) -> Careful | None:
    """How to go through a shard after these deaths over it; None where it needs no care."""
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
