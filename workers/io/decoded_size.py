"""How many rows of a row group may be decoded at once? A few bytes of a file can stand for gigabytes of rows."""

import pyarrow.parquet as pq

from jobs.storage import PinnedReader

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
    file.seek(column.dictionary_page_offset)
    head = file.read(24)
    # A Thrift struct in the compact protocol: fields 1, the page's type, and 2, its uncompressed size, both zigzag.
    place, values = 0, []
    for _ in range(2):
        if place >= len(head) or head[place] != 0x15:
            return int(column.total_uncompressed_size)
        place += 1
        value = shift = 0
        while place < len(head):
            value |= (head[place] & 0x7F) << shift
            shift += 7
            place += 1
            if not head[place - 1] & 0x80:
                break
        values.append(value >> 1)
    return min(values[1], int(column.total_uncompressed_size))
