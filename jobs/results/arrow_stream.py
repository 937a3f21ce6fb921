"""How are results sent as an Arrow IPC stream? Piece by piece, as they are read."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa


def limited(batches: Iterable[pa.RecordBatch], limit: int | None) -> Iterator[pa.RecordBatch]:
    """Yield the batches, cut to so many rows in all; every row if `limit` is None."""
    left = limit
    for batch in batches:
        if left is None:
            yield batch
            continue
        if left <= 0:
            return
        yield batch.slice(0, left)
        left -= min(left, batch.num_rows)


def ipc_stream(batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
    """Yield an Arrow IPC stream of the batches, piece by piece. Without batches it is empty and has no columns."""
    first = next(batches, None)
    sink = _Sink()
    schema = pa.schema([]) if first is None else first.schema
    with pa.ipc.new_stream(sink, schema) as writer:
        if first is not None:
            writer.write_batch(first)
            yield sink.take()
            for batch in batches:
                writer.write_batch(batch if batch.schema.equals(schema) else batch.cast(schema))
                yield sink.take()
    yield sink.take()


class _Sink:
    """A file that is only written to. What was written is taken out to be sent."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        return len(piece)

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def take(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken
