"""How many rows of a row group may be decoded at once? A few bytes of a file can stand for gigabytes of rows."""

import pyarrow.parquet as pq

from jobs.storage import PinnedReader
from workers.io.pages import read_header

#: Rows that are decoded at once; bytes that these are expected to have, and can have at most.
BATCH_ROWS = 1024
BATCH_BYTES = 1 << 20
MAX_BATCH_BYTES = 64 << 20


def batch_rows(metadata: pq.FileMetaData, group: int, columns: set[str], file: PinnedReader) -> int:
    """Return how many rows to decode at once, so that they stay within MAX_BATCH_BYTES whatever they hold.

    A value that is often in a column may be stored once, in a dictionary: then each of the rows may be as large as the
    dictionary. A single value is decoded whatever its size: the limit on the process's memory holds for it.
    """
    found = metadata.row_group(group)
    expected = max(1, found.total_byte_size // max(1, found.num_rows))
    largest = 1
    for index in range(found.num_columns):
        column = found.column(index)
        if column.physical_type != "BYTE_ARRAY" or column.path_in_schema.split(".")[0] not in columns:
            continue
        if column.has_dictionary_page:
            largest += _dictionary_bytes(file, column)
    return max(1, min(BATCH_ROWS, BATCH_BYTES // int(expected), MAX_BATCH_BYTES // largest))


def _dictionary_bytes(file: PinnedReader, column: pq.ColumnChunkMetaData) -> int:
    """Return the uncompressed size of a column's dictionary: by the header of its page, or else the column's own."""
    size, start = int(column.total_uncompressed_size), int(column.dictionary_page_offset)
    page = read_header(file, start, file.info.size)
    return size if page is None else min(page.unpacked, size)
