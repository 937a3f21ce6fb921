"""Media as they are read: from listed objects, from URIs in rows and from cells, each row in its place."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.planning.input_files import MEDIA, InputFiles
from jobs.planning.parquet_footers import read_footer
from jobs.planning.planner import Limits, plan_objects, plan_shards
from jobs.settings import Settings
from jobs.storage import Storage
from schemas.errors import AccessDenied, RecordError, Transient
from schemas.plan import Shard
from schemas.task import Kind
from tests.faults.proxy import S3Proxy, s3_proxy
from tests.servers import s3_client
from workers.io import media_reader
from workers.io.block import Block, Reading
from workers.io.media_reader import MediaReader, ObjectReader
from workers.io.parquet_reader import ParquetReader


def seen(blocks: list[Block]) -> list[Any]:
    """What each row got: its bytes, or its error's code."""
    records = [record for block in blocks for record in block.records]
    return [record.code if isinstance(record, RecordError) else record["image"] for record in records]


def of_objects(storage: Storage, settings: Settings | None = None) -> MediaReader:
    return MediaReader(ObjectReader("image"), "image", bytes, storage, settings or Settings())


def of_table(storage: Storage, schema: pa.Schema, settings: Settings | None = None) -> MediaReader:
    inner = ParquetReader(storage, schema, 1 << 20, {"image": Kind.IMAGE})
    return MediaReader(inner, "image", bytes, storage, settings or Settings())


def table_shard(file: Path, table: pa.Table) -> Shard:
    pq.write_table(table, file)
    storage = Storage()
    footer = read_footer(storage, storage.stat(str(file)), 1 << 20)
    (shard,) = plan_shards([footer], set(table.schema.names), Limits(10_000, 1 << 30))
    return shard


def listed(prefix: str, storage: Storage) -> Shard:
    (shard,) = plan_objects(InputFiles(storage, [prefix], MEDIA[Kind.IMAGE]), Limits(10_000, 1 << 30))
    return shard


def fill(folder: Path, count: int) -> list[bytes]:
    folder.mkdir(exist_ok=True)
    contents = [b"picture %d " % n * (n % 7 + 1) for n in range(count)]
    for n, data in enumerate(contents):
        (folder / f"{n:05}.png").write_bytes(data)
    return contents


@pytest.mark.parametrize("limits", [(1 << 20, 256), (200, 256), (1 << 20, 3)])
def test_objects_come_in_order_in_blocks_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int]
) -> None:
    monkeypatch.setattr(media_reader, "BLOCK_BYTES", limits[0])
    monkeypatch.setattr(media_reader, "BLOCK_RECORDS", limits[1])
    contents = fill(tmp_path / "in", 300)
    storage = Storage()
    blocks = list(of_objects(storage).blocks(listed(f"{tmp_path}/in/", storage), {}))
    assert seen(blocks) == contents
    assert [uri for block in blocks for uri in block.source_uris] == [f"{tmp_path}/in/{n:05}.png" for n in range(300)]
    assert {row for block in blocks for row in block.source_rows} == {0}
    for block in blocks:
        assert len(block) <= limits[1]
        assert sum(map(len, seen([block])[:-1])) < limits[0]


def test_an_object_that_is_gone_or_changed_is_an_error_row(tmp_path: Path) -> None:
    contents = fill(tmp_path / "in", 5)
    storage = Storage()
    shard = listed(f"{tmp_path}/in/", storage)
    (tmp_path / "in" / "00001.png").unlink()
    (tmp_path / "in" / "00003.png").write_bytes(b"another picture")
    got = seen(list(of_objects(storage).blocks(shard, {})))
    assert got == [contents[0], "input_changed", contents[2], "input_changed", contents[4]]


def test_the_same_from_s3(s3: str, s3_endpoint: str) -> None:
    client = s3_client(s3_endpoint)
    bucket = s3.removeprefix("s3://")
    contents = [b"", b"one", b"two" * 1000, b"three", b"four"]
    for n, data in enumerate(contents):
        client.put_object(Bucket=bucket, Key=f"in/{n}.png", Body=data)
    client.put_object(Bucket=bucket, Key="in/folder/", Body=b"")
    client.put_object(Bucket=bucket, Key="in/notes.txt", Body=b"x")
    storage = Storage()
    files = InputFiles(storage, [f"{s3}/in/"], MEDIA[Kind.IMAGE])
    (shard,) = plan_objects(files, Limits(100, 1 << 20))
    assert files.skipped["files of other kinds"] == 1
    client.delete_object(Bucket=bucket, Key="in/1.png")
    client.put_object(Bucket=bucket, Key="in/3.png", Body=b"other")
    got = seen(list(of_objects(storage).blocks(shard, {})))
    assert got == [b"", "input_changed", contents[2], "input_changed", contents[4]]


@pytest.fixture
def proxy(s3_endpoint: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Proxy]:
    """A proxy before the store, which this process uses."""
    with s3_proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        yield proxy


#: A fault that doesn't pass by itself.
FOR_EVER = 10**6
TRY_AGAIN = Reading(lambda: False)


def put(s3: str, s3_endpoint: str, count: int) -> list[bytes]:
    """Fill the bucket with so many pictures."""
    contents = [b"picture %d" % n for n in range(count)]
    for n, data in enumerate(contents):
        s3_client(s3_endpoint).put_object(Bucket=s3.removeprefix("s3://"), Key=f"in/{n:03}.png", Body=data)
    return contents


def test_refused_access_that_passes_is_no_error_of_a_record(s3: str, s3_endpoint: str, proxy: S3Proxy) -> None:
    contents, storage = put(s3, s3_endpoint, 40), Storage()
    shard, reader = listed(f"{s3}/in/", storage), of_objects(storage)
    proxy.fail("403", "*", "in/", FOR_EVER)
    for _ in range(2):
        with pytest.raises(AccessDenied, match="may not be accessed with these credentials"):
            list(reader.blocks(shard, {}, TRY_AGAIN))
    proxy.rules.clear()
    assert seen(list(reader.blocks(shard, {}, TRY_AGAIN))) == contents


@pytest.mark.parametrize("row", [0, 17, 39])
def test_an_object_that_alone_is_denied_is_an_error_row(row: int, s3: str, s3_endpoint: str, proxy: S3Proxy) -> None:
    contents, storage = put(s3, s3_endpoint, 40), Storage()
    shard = listed(f"{s3}/in/", storage)
    proxy.fail("403", "*", f"in/{row:03}", FOR_EVER)
    got = seen(list(of_objects(storage).blocks(shard, {}, TRY_AGAIN)))
    assert got == [*contents[:row], "access_denied", *contents[row + 1 :]]


@pytest.mark.parametrize("last", [False, True])
def test_credentials_that_expire_within_a_shard_make_no_error_rows(
    last: bool, s3: str, s3_endpoint: str, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the blocks that were read by then nor on the last try, though one object is denied in any case."""
    monkeypatch.setattr(media_reader, "BLOCK_RECORDS", 10)
    monkeypatch.setattr(media_reader, "FETCHERS", 4)
    contents, storage = put(s3, s3_endpoint, 40), Storage()
    blocks = of_objects(storage).blocks(listed(f"{s3}/in/", storage), {}, Reading(lambda: last))
    proxy.fail("403", "*", "in/004", FOR_EVER)
    assert seen([next(blocks)]) == [*contents[:4], "access_denied", *contents[5:10]]
    proxy.fail("403", "*", "in/", FOR_EVER)
    with pytest.raises(AccessDenied):
        list(blocks)


def test_credentials_that_are_back_by_the_second_look(s3: str, s3_endpoint: str, proxy: S3Proxy) -> None:
    """The witness can be read by then: it doesn't make an error row of what can be read too."""
    put(s3, s3_endpoint, 40)
    storage = Storage()
    proxy.fail("403", "*", "in/020")  # a signed GET, and boto3's own
    proxy.fail("403", "*", "in/020")
    with pytest.raises(Transient, match=r"020\.png may not be accessed .* a moment later it could be read"):
        list(of_objects(storage).blocks(listed(f"{s3}/in/", storage), {}, TRY_AGAIN))


def test_a_witness_that_is_gone_still_shows_that_access_works(s3: str, s3_endpoint: str, proxy: S3Proxy) -> None:
    put(s3, s3_endpoint, 2)
    storage = Storage()
    shard = listed(f"{s3}/in/", storage)
    reader = of_objects(storage)
    assert len(list(reader.blocks(listed(f"{s3}/in/001.png", storage), {}, TRY_AGAIN))) == 1
    for name in ("000", "001"):
        s3_client(s3_endpoint).delete_object(Bucket=s3.removeprefix("s3://"), Key=f"in/{name}.png")
    proxy.fail("403", "*", "in/000", FOR_EVER)
    assert seen(list(reader.blocks(shard, {}, TRY_AGAIN))) == ["access_denied", "input_changed"]


def test_on_the_last_try_what_nobody_could_ever_read_is_denied(s3: str, s3_endpoint: str, proxy: S3Proxy) -> None:
    put(s3, s3_endpoint, 40)
    storage = Storage()
    shard = listed(f"{s3}/in/", storage)
    proxy.fail("403", "*", "in/", FOR_EVER)
    assert seen(list(of_objects(storage).blocks(shard, {}, Reading(lambda: True)))) == ["access_denied"] * 40


def test_each_bucket_has_a_witness_of_its_own(s3: str, s3_endpoint: str, proxy: S3Proxy, tmp_path: Path) -> None:
    """A picture that can be read in one place says nothing of another place."""
    contents = put(s3, s3_endpoint, 2)
    near = fill(tmp_path / "in", 1)
    table = pa.table({"image": [f"{tmp_path}/in/00000.png", f"{s3}/in/000.png", f"{s3}/in/001.png"]})
    shard, reader = table_shard(tmp_path / "in.parquet", table), of_table(Storage(), table.schema)
    proxy.fail("403", "*", "in/", FOR_EVER)
    with pytest.raises(AccessDenied):
        list(reader.blocks(shard, {"image": "image"}, TRY_AGAIN))
    proxy.rules.clear()
    proxy.fail("403", "*", "in/001", FOR_EVER)
    got = seen(list(reader.blocks(shard, {"image": "image"}, TRY_AGAIN)))
    assert got == [near[0], contents[0], "access_denied"]


CELLS: dict[str, Callable[[list[Any]], pa.Array]] = {
    "binary": lambda values: pa.array(values, pa.binary()),
    "large_binary": lambda values: pa.array(values, pa.large_binary()),
    "struct": lambda values: pa.array(
        [{"bytes": value, "path": None} for value in values],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    ),
    "struct without path": lambda values: pa.array(
        [{"bytes": value} for value in values], pa.struct([("bytes", pa.large_binary())])
    ),
}


@pytest.mark.parametrize("kind", list(CELLS))
def test_cells_with_the_bytes_in_them(tmp_path: Path, kind: str) -> None:
    column = CELLS[kind]([b"one", None, b"", b"x" * (1 << 20), b"y" * ((1 << 20) + 1)])
    table = pa.table({"id": range(5), "image": column})
    shard = table_shard(tmp_path / "in.parquet", table)
    blocks = list(of_table(Storage(), table.schema).blocks(shard, {"image": "image"}))
    assert seen(blocks) == [b"one", "null_input", b"", b"x" * (1 << 20), "too_large"]
    assert [n for block in blocks for n in block.table["id"].to_pylist()] == list(range(5))
    assert [n for block in blocks for n in block.source_rows] == list(range(5))


def test_rows_that_name_their_pictures(tmp_path: Path) -> None:
    contents = fill(tmp_path / "in", 3)
    (tmp_path / "outside.png").write_bytes(b"secret")
    uris = [
        f"{tmp_path}/in/00000.png",
        "in/00001.png",
        f"file://{tmp_path}/in/00002.png",
        None,
        "in/missing.png",
        "in/../outside.png",
        "http://example.com/x.png",
        "s3://",
        "",
    ]
    settings = Settings(allowed_inputs=[f"{tmp_path}/in/"])
    table = pa.table({"image": uris})
    shard = table_shard(tmp_path / "in.parquet", table)
    got = seen(list(of_table(Storage(), table.schema, settings).blocks(shard, {"image": "image"})))
    assert got[:3] == contents
    assert got[3:] == ["null_input", "not_found", *["uri_not_allowed"] * 4]
    struct = pa.array([{"bytes": None, "path": "in/00001.png"}, None], CELLS["struct"]([]).type)
    table = pa.table({"image": struct})
    shard = table_shard(tmp_path / "in2.parquet", table)
    assert seen(list(of_table(Storage(), table.schema, settings).blocks(shard, {"image": "image"}))) == [
        contents[1],
        "null_input",
    ]


def test_an_object_over_the_limit_is_not_fetched(tmp_path: Path) -> None:
    fill(tmp_path / "in", 2)
    with (tmp_path / "in" / "00001.png").open("wb") as file:
        file.truncate((1 << 20) + 1)
    storage = Storage()
    shard = listed(f"{tmp_path}/in/", storage)
    got = seen(list(of_objects(storage, Settings(max_object_mb=1)).blocks(shard, {})))
    assert got[1] == "too_large"


def test_a_reader_that_is_left_early_leaves_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(media_reader, "BLOCK_RECORDS", 2)
    fill(tmp_path / "in", 50)
    storage = Storage()
    before = threading.active_count()
    blocks = of_objects(storage).blocks(listed(f"{tmp_path}/in/", storage), {})
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
