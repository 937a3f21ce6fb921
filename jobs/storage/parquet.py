"""Opening Parquet files that others wrote: a broken footer is an error, whatever it does to pyarrow.

pyarrow ends the whole process for some broken footers, and a small one can stand for gigabytes. So a child process
reads every footer first, with a limit on its memory and time; what it has read can be read here.
"""

import atexit
import os
import queue
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.storage.base import PinnedReader
from schemas.errors import NightshiftError

#: Bytes of a footer at most, where no setting says else.
MAX_FOOTER_BYTES = 64 << 20
#: Bytes that pyarrow requests from a store at once: a column of a row group may have hundreds of megabytes.
READ_BUFFER = 4 << 20
#: What pyarrow raises for a file that is broken, or other than it says.
BROKEN = (pa.ArrowException, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError)
#: Bytes that are read at a file's end at once: most footers are smaller.
_TAIL = 64 << 10
#: Footers above this size wait for each other, not the small ones for them.
_SMALL = 1 << 20
#: Seconds that a footer may take.
_LIMIT_S = 60.0
_CHILD = Path(__file__).with_name("footer_child.py")


class BrokenFooter(ValueError):
    """The file has no footer that can be read. The text goes on after the file's name."""


def read_metadata(source: PinnedReader, max_footer: int = MAX_FOOTER_BYTES) -> pq.FileMetaData:
    """Return what a Parquet file says of itself. Raise BrokenFooter; raise the store's error if reading fails."""
    size = source.info.size
    source.seek(max(0, size - _TAIL))
    tail = source.read(min(size, _TAIL))
    if len(tail) < 12 or tail[-4:] != b"PAR1":
        what = "encrypted Parquet, which can't be read" if tail[-4:] == b"PARE" else "not a (whole) Parquet file"
        raise BrokenFooter(f"is {what}: it ends in {tail[-4:]!r}, not b'PAR1'")
    length = struct.unpack("<I", tail[-8:-4])[0]
    if length > max_footer:
        raise BrokenFooter(f"has a footer of {length:,} bytes; max_footer_mb allows {max_footer:,}")
    if length > size - 12:
        raise BrokenFooter(f"is not a (whole) Parquet file: {size:,} bytes with a footer of {length:,}")
    if length + 8 > len(tail):
        source.seek(size - 8 - length)
        tail = source.read(length + 8)
    footer = tail[-8 - length : -8]
    _try(footer)
    return pq.read_metadata(pa.BufferReader(b"PAR1" + footer + tail[-8:]))


def open_parquet(source: PinnedReader, max_footer: int = MAX_FOOTER_BYTES, **options: Any) -> pq.ParquetFile:
    """Open a Parquet file with pyarrow's own options. Raise as `read_metadata` does."""
    return pq.ParquetFile(source, metadata=read_metadata(source, max_footer), **options)


@contextmanager
def translated(source: PinnedReader, refusal: Callable[[Exception], NightshiftError]) -> Iterator[None]:
    """Raise `refusal` of an error that a broken file causes; the store's own error if that is the cause."""
    try:
        yield
    except BROKEN as error:
        if source.failure is not None:
            raise source.failure from None
        raise refusal(error) from error


def _try(footer: bytes) -> None:
    """Raise BrokenFooter if a child process can't read the footer."""
    children = _small if len(footer) <= _SMALL else _large
    child = children.get()
    try:
        child = child or _Child()
        refusal = child.look(footer)
    except BaseException:
        if child is not None:
            child.end()
            child = None
        raise
    finally:
        children.put(child)
    if refusal:
        raise BrokenFooter(f"has a corrupt Parquet footer: {refusal}")


class _Child:
    """A process that reads footers, one at a time. It ends with this one, whose end closes its input."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C reaches us alone
        )
        _running.add(self)

    def look(self, footer: bytes) -> str:
        """Return why a footer can't be read, or nothing. Raise BrokenFooter if the process ended with it or hangs."""
        source, answers = self._pipes()
        request = memoryview(len(footer).to_bytes(8, "big") + footer)
        try:
            while request:
                request = request[source.write(request) or 0 :]
        except BrokenPipeError:
            pass  # it ended, which its answer shows
        ready = wait([answers.fileno()], _LIMIT_S)
        answer = answers.readline() if ready else b""
        if not answer.endswith(b"\n"):
            what = "reading it ends the process" if ready else f"reading it takes more than {_LIMIT_S:.0f} s"
            raise BrokenFooter(f"has a corrupt Parquet footer: {what}")
        return answer[:-1].decode(errors="replace")

    def end(self) -> None:
        """End the process."""
        _running.discard(self)
        self._process.kill()
        self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Close this process's ends of the pipes: it is another's child, or has ended."""
        for pipe in self._pipes():
            pipe.close()
        self._process.returncode = 0

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def _places(count: int) -> "queue.LifoQueue[_Child | None]":
    """Return a queue of children that wait for work; None stands for one that isn't started."""
    places: queue.LifoQueue[_Child | None] = queue.LifoQueue()
    for _ in range(count):
        places.put(None)
    return places


def _after_fork() -> None:
    global _small, _large  # a fork has no children of its own
    for child in _running:
        child.forget()
    _running.clear()
    _small, _large = _places(2), _places(1)


def _end_all() -> None:
    for child in list(_running):
        child.end()


_running: set[_Child] = set()
_small, _large = _places(2), _places(1)
os.register_at_fork(after_in_child=_after_fork)
atexit.register(_end_all)
