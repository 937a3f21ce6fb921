"""What does a reader return? Blocks of rows, with the records in them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from jobs.storage import ObjectInfo
from schemas.errors import RecordError
from schemas.plan import Shard
from workers.handler import Record


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a shard: the rows as read, their places in the input, and their records or errors."""

    table: pa.Table
    source_uris: list[str]
    source_rows: list[int]
    records: list[Record | RecordError]

    def __len__(self) -> int:
        return len(self.records)

    def slice(self, start: int, stop: int) -> "Block":
        """Return the rows start…stop-1 of the block."""
        return Block(
            self.table.slice(start, stop - start),
            self.source_uris[start:stop],
            self.source_rows[start:stop],
            self.records[start:stop],
        )


@dataclass(frozen=True)
class Reading:
    """What a reader is told of the attempt that it reads for.

    `is_last` returns whether the shard gets no other try. `moved` is to be called whenever bytes have come, by any
    thread.
    """

    is_last: Callable[[], bool] = lambda: True
    moved: Callable[[], None] = lambda: None


#: A reading that is tried once.
ONCE = Reading()


class Reader(Protocol):
    """Reads a shard's rows. For one thread at a time."""

    def blocks(self, shard: Shard, task_columns: dict[str, str], reading: Reading = ONCE) -> Iterator[Block]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Reference:
    """An object that a media column names instead of holding its bytes: by a URI of the table, or from a listing."""

    uri: str
    info: ObjectInfo | None = None
