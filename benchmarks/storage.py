"""Storage: ranged reads of one S3 object, by `jobs.storage` (boto3, each read pinned by If-Match) and by pyarrow.

The server is SeaweedFS on this machine, so that the client's own cost shows and not the network's.
"""

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from pyarrow.fs import S3FileSystem

from benchmarks.material import tell
from jobs.storage import ObjectInfo, Storage
from tests.servers import S3_ENV, s3_client, seaweedfs

SIZE = 400 << 20
READS_MIB = (1, 4, 8)
ROUNDS = 5


def read_with_storage(storage: Storage, info: ObjectInfo, length: int) -> int:
    """Read the whole object in pieces; how many bytes came."""
    total = 0
    with storage.open(info) as source:
        while data := source.read(length):
            total += len(data)
    return total


def read_with_pyarrow(filesystem: S3FileSystem, info: ObjectInfo, length: int) -> int:
    total = 0
    with filesystem.open_input_file(info.uri.removeprefix("s3://")) as source:
        for offset in range(0, info.size, length):
            total += len(source.read_at(min(length, info.size - offset), offset))
    return total


def speed(read: Callable[[], int], expected: int) -> float:
    """MB a second."""
    start = time.monotonic()
    total = read()
    seconds = time.monotonic() - start
    assert total == expected, f"{total:,} bytes read of {expected:,}"
    return total / seconds / 1e6


def compare(endpoint: str) -> None:
    client: Any = s3_client(endpoint)
    client.create_bucket(Bucket="bench")
    storage = Storage()
    with tempfile.TemporaryFile() as body:
        for _ in range(SIZE >> 20):
            body.write(os.urandom(1 << 20))
        info = storage.create("s3://bench/object", body, "bench")
    filesystem = S3FileSystem(
        access_key=S3_ENV["AWS_ACCESS_KEY_ID"],
        secret_key=S3_ENV["AWS_SECRET_ACCESS_KEY"],
        endpoint_override=endpoint.removeprefix("http://"),
        scheme="http",
        region="us-east-1",
    )
    print(f"Storage: reading {SIZE >> 20} MiB in ranges from SeaweedFS, one at a time", flush=True)
    for mib in READS_MIB:
        ours = partial(read_with_storage, storage, info, mib << 20)
        theirs = partial(read_with_pyarrow, filesystem, info, mib << 20)
        rounds = [(speed(ours, SIZE), speed(theirs, SIZE)) for _ in range(ROUNDS)]
        ratio = median(one / other for one, other in rounds)
        one, other = (median(column) for column in zip(*rounds, strict=True))
        tell(f"{mib} MiB: storage {one:,.0f} MB/s, pyarrow {other:,.0f} MB/s; storage is", f"{ratio:.2f}x as fast")


def main() -> bool:
    """Print the comparison; True, as the bytes are counted on the way."""
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as temporary:
        folder = Path(temporary) / "s3"
        folder.mkdir()
        with seaweedfs(folder) as endpoint, patch.dict(os.environ, S3_ENV | {"AWS_ENDPOINT_URL": endpoint}):
            compare(endpoint)
    return True
