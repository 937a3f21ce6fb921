"""What is a checksum of rows, and not of the file that holds them? Equal rows in equal order have equal checksums.

Each column is taken apart into streams: the places of its nulls, the lengths of its texts and lists, its values. Each
stream has a digest of its own, fed batch by batch. So the checksum doesn't depend on how the rows are cut into batches
and row groups, on compression, or on whether a column is stored as a dictionary.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: The form described here. A checksum begins with it, so that another form can be told apart.
FORM = "rows1"
#: Digits of a SHA-256 that are kept: 128 bits.
_DIGITS = 32
#: Types that are stored in several ways, by how they are written down here.
_ALIKE = {
    "large_string": "string",
    "string_view": "string",
    "large_binary": "binary",
    "binary_view": "binary",
}
#: Types that Arrow has few functions for, and what they are looked at as.
_VIEWS = {"string_view": pa.large_string(), "binary_view": pa.large_binary()}


class RowChecksum:
    """The checksum of rows with this schema, which are added batch by batch."""

    def __init__(self, schema: pa.Schema) -> None:
        self._columns = [_Column(field.name, field.type) for field in schema]
        self._rows = 0

    def add(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Add these rows. They have the schema's columns, in its order."""
        batches = rows.to_batches() if isinstance(rows, pa.Table) else [rows]
        for batch in batches:
            for column, array in zip(self._columns, batch.columns, strict=True):
                column.add(array)
            self._rows += batch.num_rows

    def __str__(self) -> str:
        digest = hashlib.sha256(f"{FORM}\n{self._rows}\n".encode())
        for column in self._columns:
            for line in column.lines():
                digest.update(line.encode("utf-8", "surrogatepass"))
        return f"{FORM}:{digest.hexdigest()[:_DIGITS]}"


class _Stream:
    """A digest of bytes that come piece by piece, and their number."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._bytes = 0

    def add(self, data: np.ndarray) -> None:
        view = np.ascontiguousarray(data).view(np.uint8)
        self._digest.update(view.data)
        self._bytes += view.nbytes

    def __str__(self) -> str:
        return f"{self._bytes} {self._digest.hexdigest()}"


class _Column:
    """A column, or what is nested in one: its own streams, and the columns in it."""

    def __init__(self, name: str, arrow: pa.DataType) -> None:
        arrow = _plain(arrow)
        self._name, self._type = name, arrow
        self._rows = 0
        self._nulls, self._lengths, self._values = _Stream(), _Stream(), _Stream()
        self._inner: list[_Column] = []
        if pa.types.is_struct(arrow):
            self._inner = [_Column(arrow.field(i).name, arrow.field(i).type) for i in range(arrow.num_fields)]
        elif _is_list(arrow):
            self._inner = [_Column("item", arrow.value_type)]

    def add(self, array: pa.Array) -> None:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if str(array.type) in _VIEWS:
            array = array.cast(_VIEWS[str(array.type)])
        if pa.types.is_map(array.type):
            array = array.cast(self._type)
        if array.null_count:
            self._nulls.add(np.flatnonzero(_numbers(pc.is_null(array).cast(pa.uint8()))) + self._rows)
        self._rows += len(array)
        if pa.types.is_null(array.type):
            return
        if pa.types.is_struct(array.type):
            # Flattened, what is in a null struct is null, whatever lies in its place.
            for column, inner in zip(self._inner, array.flatten(), strict=True):
                column.add(inner)
            return
        if array.null_count:
            array = array.drop_null()
        if _is_list(array.type):
            self._lengths.add(_numbers(pc.list_value_length(array).cast(pa.int64())))
            self._inner[0].add(array.flatten())
        elif _is_text(array.type):
            self._add_texts(array)
        elif pa.types.is_boolean(array.type):
            self._values.add(_numbers(array.cast(pa.uint8())))
        else:
            self._values.add(_fixed(array))

    def _add_texts(self, array: pa.Array) -> None:
        if not len(array):
            return
        _, offsets, data = array.buffers()
        width = np.int64 if "large" in str(array.type) else np.int32
        places = np.frombuffer(offsets, width)[array.offset : array.offset + len(array) + 1]
        self._lengths.add(np.diff(places).astype(np.int64))
        if data is not None:
            self._values.add(np.frombuffer(data, np.uint8)[places[0] : places[-1]])

    def lines(self) -> Iterator[str]:
        """Yield what the column comes down to, in lines. A name can't be taken for another line."""
        kind = "struct" if pa.types.is_struct(self._type) else "list" if _is_list(self._type) else str(self._type)
        kind = _ALIKE.get(kind, kind)
        yield f"{self._name!r} {kind} {len(self._inner)} {self._rows} {self._nulls} {self._lengths} {self._values}\n"
        for column in self._inner:
            yield from column.lines()


def checksum_of(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> str:
    """Return the checksum of these rows."""
    checksum = RowChecksum(schema)
    for batch in batches:
        checksum.add(batch)
    return str(checksum)


def _plain(arrow: pa.DataType) -> pa.DataType:
    """Return the type of the values: without a dictionary or an extension around them; of a map, its list of pairs."""
    if isinstance(arrow, pa.BaseExtensionType):
        return _plain(arrow.storage_type)
    if pa.types.is_dictionary(arrow):
        return _plain(arrow.value_type)
    if pa.types.is_map(arrow):
        return pa.list_(pa.struct([pa.field("key", arrow.key_type, False), pa.field("value", arrow.item_type)]))
    return arrow


def _is_list(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow))


def _is_text(arrow: pa.DataType) -> bool:
    return _ALIKE.get(str(arrow), str(arrow)) in ("string", "binary")


def _numbers(array: pa.Array) -> np.ndarray:
    numbers: np.ndarray = array.to_numpy(zero_copy_only=False)
    return numbers


def _fixed(array: pa.Array) -> np.ndarray:
    """Return the bytes of values of a fixed width, of an array without nulls."""
    width: int = array.type.bit_width // 8
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.empty(0, np.uint8)
    return np.frombuffer(data, np.uint8)[array.offset * width : (array.offset + len(array)) * width]
