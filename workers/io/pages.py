"""Where are the pages of a Parquet column, and how many rows has each? pyarrow doesn't say; their headers do.

https://github.com/apache/parquet-format: a column's pages follow each other, each after a header of its own, which is a
Thrift struct in the compact protocol.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from jobs.storage import PinnedReader

#: Bytes in which a header is looked for: most have fewer than 100, those with long statistics more.
_HEADS = (4 << 10, 1 << 20)
#: Structs within structs in a header: the page's, the data page's, its statistics.
_DEPTH = 3
#: Bytes of an integer.
_LONGEST = 10

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_TRUE, _FALSE, _BYTE, _INTS, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, (4, 5, 6), 7, 8, 12


@dataclass(frozen=True)
class Page:
    """A page: the offset of its header in the file, the bytes of the header and of all, and its content unpacked.

    `values` counts the values of a data page, which are its rows if the column isn't repeated. `crc` is that of the
    content as stored, if the file has it.
    """

    offset: int
    header: int
    size: int
    unpacked: int
    values: int
    is_dictionary: bool
    crc: int | None


def start_of(column: pq.ColumnChunkMetaData) -> int:
    """Return the offset in the file of a column's first page."""
    first = int(column.data_page_offset)
    dictionary = int(column.dictionary_page_offset or 0) if column.has_dictionary_page else 0
    return dictionary if 0 < dictionary < first else first


def pages_of(file: PinnedReader, column: pq.ColumnChunkMetaData) -> Iterator[Page]:
    """Yield a column's pages in order, as far as their headers can be read."""
    offset = start_of(column)
    end = offset + int(column.total_compressed_size)
    while offset < end:
        page = read_header(file, offset, end)
        if page is None or offset + page.size > end:
            return
        yield page
        offset += page.size


def read_header(file: PinnedReader, offset: int, end: int) -> Page | None:
    """Return the page whose header is at this offset; None if there is no header before `end`."""
    for length in _HEADS:
        file.seek(offset)
        head = file.read(min(length, end - offset))
        try:
            fields, size = _struct(head, 0, 1)
            return _page(fields, offset, size)
        except IndexError:  # it is longer, or the file ends
            continue
        except (KeyError, TypeError, ValueError):
            return None
    return None


def _page(fields: dict[int, Any], offset: int, header: int) -> Page:
    kind, unpacked, packed = fields[1], fields[2], fields[3]
    if min(unpacked, packed) < 0:
        raise ValueError("a page of less than no bytes")
    data = fields.get({_DATA: 5, _DATA_V2: 8}.get(kind, 0), {})
    values = data[1] if kind in (_DATA, _DATA_V2) else 0
    if values < 0:
        raise ValueError("a page of less than no values")
    return Page(offset, header, header + packed, unpacked, values, kind == _DICTIONARY, fields.get(4))


def _struct(data: bytes, place: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return a struct's integers and structs by the numbers of their fields, and where it ends."""
    if depth > _DEPTH:
        raise ValueError("too many structs within each other")
    fields: dict[int, Any] = {}
    number = 0
    while head := data[place]:
        place += 1
        if head >> 4:
            number += head >> 4
        else:
            number, place = _integer(data, place)
        kind = head & 0xF
        if kind in _INTS:
            fields[number], place = _integer(data, place)
        elif kind == _STRUCT:
            fields[number], place = _struct(data, place, depth + 1)
        elif kind == _BINARY:
            length, place = _varint(data, place)
            place += length
        elif kind in (_BYTE, _DOUBLE):
            place += 1 if kind == _BYTE else 8
        elif kind not in (_TRUE, _FALSE):
            raise ValueError(f"no page's header has a field of type {kind}")
    return fields, place + 1


def _integer(data: bytes, place: int) -> tuple[int, int]:
    """Return a signed integer, which is stored zigzag, and where it ends."""
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for index in range(_LONGEST):
        byte = data[place + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, place + index + 1
    raise ValueError("an integer of too many bytes")
