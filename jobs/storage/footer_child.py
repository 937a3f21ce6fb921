"""The program of the child processes of `jobs.storage.parquet`: it reads footers, and may end with a broken one.

It is run as a file, and imports nothing of ours: it starts in a fraction of a second. Each request is the footer's
length (eight bytes, big end first) and its bytes; each answer is a line, empty if the footer can be read.
"""

import sys

import pyarrow as pa
import pyarrow.parquet as pq

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

#: Bytes that this process may have: for itself, and for each byte of a footer.
_OWN, _PER_BYTE = 1 << 30, 16


def look(footer: bytes) -> str:
    """Read everything that a footer says. Return why it can't be read, or nothing."""
    if resource is not None:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (_OWN + _PER_BYTE * len(footer), hard))
    try:
        metadata = pq.read_metadata(pa.BufferReader(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"))
        metadata.schema.to_arrow_schema()
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            if group.num_columns != metadata.num_columns:
                return f"row group {index} has {group.num_columns} columns, the schema {metadata.num_columns}"
            for column in range(group.num_columns):
                _ = group.column(column).statistics  # whose values may be no UTF-8: that is their records' matter
    except MemoryError:
        return "it stands for more than memory allows"
    except Exception as error:  # noqa: BLE001 - whatever pyarrow raises is the answer
        return " ".join(str(error).split()) or repr(error)
    return ""


def main() -> None:
    """Answer requests from standard input until it ends."""
    source, out = sys.stdin.buffer, sys.stdout.buffer
    while length := source.read(8):
        out.write(look(source.read(int.from_bytes(length, "big"))).encode(errors="replace") + b"\n")
        out.flush()


if __name__ == "__main__":
    main()
