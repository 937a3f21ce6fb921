"""Which of a block's records were answered before? They are looked up in a ledger, and their answers copied.

The hashes of a ledger are read once a job and process. Answers are read as they are found, and those near one another
at once: an input that comes in the order of last night's is read in few requests.
"""

import logging
import tempfile
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.logs import event
from jobs.storage import ObjectInfo
from jobs.storage.hashes import Hashes, HashIndex, from_bytes
from jobs.storage.ledger import Ledger
from schemas.errors import InputChanged, NotFound, Permanent
from workers.handler import Prediction

_log = logging.getLogger(__name__)
#: Answers that a process knows of, the latest ones: 20 bytes each.
MOST = 10_000_000
#: Answers of a row group: what is read to copy one of them.
ROW_GROUP = 1024
#: Bytes of answers that are kept decoded.
KEPT_BYTES = 64 << 20
#: A file of answers larger than this many bytes is on disk until it is committed.
IN_MEMORY = 8 << 20
#: Footers that are kept.
_FOOTERS = 64


class KnownAnswers:
    """The answers in a ledger, as it was when this was made. For one thread at a time."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._files: list[ObjectInfo] = []
        self._starts = [0]
        self._metadata: OrderedDict[int, pq.FileMetaData] = OrderedDict()
        self._groups: OrderedDict[tuple[int, int], pa.Array] = OrderedDict()
        self._kept = 0
        found: list[Hashes] = []
        for info, some in ledger.hashes():
            if self._starts[-1] + len(some) > MOST:
                event(_log, "ledger_cut", logging.WARNING, ledger=ledger.uri, answers=self._starts[-1])
                break
            found.append(some)
            self._files.append(info)
            self._starts.append(self._starts[-1] + len(some))
        self._index = HashIndex(np.concatenate([from_bytes(b""), *found]))

    def __len__(self) -> int:
        return len(self._index)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Prediction]:
        """Return the answers that are known, by the key of their record.

        An answer whose file is gone, or damaged, isn't known. Raise Transient if the store is away.
        """
        places = self._index.places(from_bytes(b"".join(keys)))
        wanted: defaultdict[int, list[tuple[int, bytes]]] = defaultdict(list)
        hits = np.flatnonzero(places >= 0)
        files = np.searchsorted(self._starts, places[hits], side="right") - 1
        for hit, file in zip(hits.tolist(), files.tolist(), strict=True):
            wanted[file].append((int(places[hit]) - self._starts[file], keys[hit]))
        answers: dict[bytes, Prediction] = {}
        for number, rows in sorted(wanted.items()):
            answers |= self._read(number, rows)
        return answers

    def _read(self, number: int, rows: list[tuple[int, bytes]]) -> dict[bytes, Prediction]:
        """Return the answers at these rows of a file, by their keys."""
        by_group: defaultdict[int, list[tuple[int, bytes]]] = defaultdict(list)
        try:
            starts = self._group_starts(number)
            for row, key in rows:
                group = int(np.searchsorted(starts, row, side="right")) - 1
                by_group[group].append((row - int(starts[group]), key))
            answers: dict[bytes, Prediction] = {}
            for group, some in by_group.items():
                found = self._group(number, group).take(pa.array([row for row, _ in some]))
                answers |= zip((key for _, key in some), found.to_pylist(), strict=True)
        except (Permanent, NotFound, InputChanged) as error:
            event(_log, "ledger_file_left_out", logging.WARNING, error=error.message)
            return {}
        return answers

    def _group_starts(self, number: int) -> list[int]:
        """Return the first row of each row group of a file."""
        metadata = self._metadata.get(number)
        if metadata is None:
            with self.ledger.opened(self._files[number]) as file:
                metadata = file.metadata
            self._metadata[number] = metadata
            if len(self._metadata) > _FOOTERS:
                self._metadata.popitem(last=False)
        starts = [0]
        for group in range(metadata.num_row_groups):
            starts.append(starts[-1] + metadata.row_group(group).num_rows)
        return starts[:-1]

    def _group(self, number: int, group: int) -> pa.Array:
        """Return the answers in a row group. The ones read last are kept."""
        if (number, group) not in self._groups:
            found = self.ledger.read(self._files[number], self._metadata[number], group)
            self._groups[number, group] = found
            self._kept += found.nbytes
            while self._kept > KEPT_BYTES and len(self._groups) > 1:
                self._kept -= self._groups.popitem(last=False)[1].nbytes
        self._groups.move_to_end((number, group))
        return self._groups[number, group]


class AnswerWriter:
    """Writes a file of a ledger. Use it as a context manager: its temporary file is deleted on exit."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY, prefix="nightshift-answers-")  # noqa: SIM115 (see __exit__)
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd")
        self.rows = 0

    def __enter__(self) -> "AnswerWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()
        self._file.close()

    def write(self, answers: dict[bytes, Prediction]) -> None:
        """Add answers, by the key of their record."""
        if answers:
            record, prediction = self._schema.types
            columns = [pa.array(list(answers), record), pa.array(list(answers.values()), prediction)]
            self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=ROW_GROUP)
            self.rows += len(answers)

    def close(self) -> BinaryIO:
        """Finish the file and return it."""
        self._writer.close()
        return cast(BinaryIO, self._file)


@dataclass(frozen=True)
class Reuse:
    """How an attempt copies answers: from those that are known, and by adding its own."""

    known: KnownAnswers
    new: AnswerWriter
