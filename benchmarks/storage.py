"""Storage: ranged reads of one S3 object, many small objects and listings, by `jobs.storage`, boto3 and pyarrow.

The server is SeaweedFS on this machine, so that the client's own cost shows and not the network's.
"""

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from pyarrow.fs import S3FileSystem

from benchmarks.inputs import tell
from jobs.storage import ObjectInfo, Storage
from tests.servers import S3_ENV, s3_client, seaweedfs
from workers.io.media_reader import FETCHERS

SIZE = 400 << 20
READS_MIB = (1, 4, 8)
ROUNDS = 5
#: Small objects, and their size.
OBJECTS = 3000
OBJECT_BYTES = 8000


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


def make_objects(client: Any) -> None:
    """Small objects, as many as OBJECTS."""
    bodies = [os.urandom(OBJECT_BYTES) for _ in range(16)]

    def put(number: int) -> None:
        client.put_object(Bucket="bench", Key=f"small/{number:06}.png", Body=bodies[number % 16])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(OBJECTS)))


def list_with_boto3(client: Any) -> int:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="bench", Prefix="small/")
    return sum(len(page["Contents"]) for page in pages)


def compare_listing(storage: Storage, client: Any) -> None:
    """CPU seconds of this process a million keys."""

    def cpu(count: Callable[[], int]) -> float:
        start = time.process_time()
        assert count() == OBJECTS
        return (time.process_time() - start) / OBJECTS * 1e6

    ways = (lambda: sum(1 for _ in storage.list("s3://bench/small/")), lambda: list_with_boto3(client))
    ours, boto3 = zip(*[[cpu(way) for way in ways] for _ in range(ROUNDS)], strict=True)
    print(f"  listing {OBJECTS:,} keys, CPU s a million: storage {median(ours):.0f}, boto3 {median(boto3):.0f}")
    tell("storage takes", f"{median(one / other for one, other in zip(ours, boto3, strict=True)):.2f}x boto3's")


def compare_objects(storage: Storage, client: Any, filesystem: S3FileSystem) -> None:
    """Objects a second with FETCHERS threads. pyarrow's reads are not pinned by an etag."""
    infos = list(storage.list("s3://bench/small/"))

    def ours(info: ObjectInfo) -> int:
        with storage.open(info) as source:
            return len(source.read())

    def boto3(info: ObjectInfo) -> int:
        key = info.uri.removeprefix("s3://bench/")
        return len(client.get_object(Bucket="bench", Key=key, IfMatch=info.etag)["Body"].read())

    def pyarrow(info: ObjectInfo) -> int:
        with filesystem.open_input_stream(info.uri.removeprefix("s3://")) as source:
            return len(source.read())

    def rate(read: Callable[[ObjectInfo], int]) -> float:
        start = time.monotonic()
        with ThreadPoolExecutor(FETCHERS) as pool:
            assert sum(pool.map(read, infos)) == OBJECTS * OBJECT_BYTES
        return OBJECTS / (time.monotonic() - start)

    rounds = [[rate(read) for read in (ours, boto3, pyarrow)] for _ in range(ROUNDS)]
    one, two, three = (median(column) for column in zip(*rounds, strict=True))
    print(f"{OBJECTS:,} objects of {OBJECT_BYTES:,} bytes, {FETCHERS} threads, objects a second:")
    print(f"  storage {one:,.0f}, boto3 {two:,.0f}, pyarrow {three:,.0f}")
    tell("storage over boto3", f"{median(row[0] / row[1] for row in rounds):.2f}x as fast")
    tell("storage over pyarrow", f"{median(row[0] / row[2] for row in rounds):.2f}x as fast")


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
    make_objects(client)
    compare_listing(storage, client)
    compare_objects(storage, client, filesystem)


def main() -> bool:
    """Print the comparison; True, as the bytes are counted on the way."""
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as temporary:
        folder = Path(temporary) / "s3"
        folder.mkdir()
        with seaweedfs(folder) as endpoint, patch.dict(os.environ, S3_ENV | {"AWS_ENDPOINT_URL": endpoint}):
            compare(endpoint)
    return True
