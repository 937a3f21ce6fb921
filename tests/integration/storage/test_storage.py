"""Both stores, by the same tests: create-once, pinned reads, listing; S3 is a real server."""

import gc
import io
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import boto3
import pyarrow.parquet as pq
import pytest

from jobs.storage import ObjectInfo, PinnedReader, Storage, local, s3
from schemas.errors import AccessDenied, AlreadyExists, InputChanged, NotFound, Transient
from tests.servers import wait_for


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else str(request.getfixturevalue("s3"))


def test_create_then_read(place: str) -> None:
    storage = Storage()
    made = storage.create(f"{place}/a/b.txt", b"hello", "me")
    assert made.size == 5
    assert storage.stat(f"{place}/a/b.txt") == made
    assert storage.read(f"{place}/a/b.txt") == b"hello"


def test_nothing_is_ever_overwritten(place: str) -> None:
    storage = Storage()
    storage.create(f"{place}/x", b"first", "one")
    with pytest.raises(AlreadyExists, match="exists already"):
        storage.create(f"{place}/x", b"second", "two")
    assert storage.read(f"{place}/x") == b"first"
    assert storage.refuses_overwrite(f"{place}/x")


def test_of_many_writers_one_wins(place: str) -> None:
    storage = Storage()
    for round_number in range(2):
        won: list[int] = []
        start = threading.Barrier(8)

        uri = f"{place}/round-{round_number}"
        threads = [threading.Thread(target=race, args=(storage, uri, start, n, won)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert storage.read(uri) == str(won[0]).encode()


def race(storage: Storage, uri: str, start: threading.Barrier, number: int, won: list[int]) -> None:
    start.wait()
    try:
        storage.create(uri, f"{number}".encode(), f"writer-{number}")
    except AlreadyExists:
        return
    won.append(number)


def test_a_large_file_goes_up_in_pieces(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PIECE", 5 << 20)
    data = bytes(range(256)) * (12 << 12)
    storage = Storage()
    made = storage.create(f"{place}/large", io.BytesIO(data), "me")
    assert made.size == len(data)
    assert storage.read(f"{place}/large") == data
    with pytest.raises(AlreadyExists):
        storage.create(f"{place}/large", io.BytesIO(data), "you")


def test_a_lost_answer_is_recognised_by_its_owner(s3: str) -> None:
    """The first request worked and its answer was lost: the client's retry gets a 412 for its own object."""
    storage = Storage()
    first = storage.create(f"{s3}/x", b"data", "attempt-1")
    assert storage.create(f"{s3}/x", b"data", "attempt-1") == first
    with pytest.raises(AlreadyExists):
        storage.create(f"{s3}/x", b"data", "attempt-2")


def test_listing_is_in_order_and_whole(place: str) -> None:
    storage = Storage()
    for name in ("b", "a/2", "a/10", "c/d/e", "a/1"):
        storage.create(f"{place}/in/{name}", b"1", "me")
    names = [info.uri.removeprefix(f"{place}/in/") for info in storage.list(f"{place}/in/")]
    assert names == ["a/1", "a/10", "a/2", "b", "c/d/e"]
    assert [info.uri for info in storage.list(f"{place}/in/a/1")] == [f"{place}/in/a/1", f"{place}/in/a/10"]
    assert list(storage.list(f"{place}/nothing/")) == []


def test_a_local_folder_lists_as_s3_does(tmp_path: Path) -> None:
    storage = Storage()
    for name in ("a/1", "a.x", "ab", "a-"):
        storage.create(f"{tmp_path}/{name}", b"1", "me")
    names = [info.uri.removeprefix(f"{tmp_path}/") for info in storage.list(f"{tmp_path}/")]
    assert names == ["a-", "a.x", "a/1", "ab"]


def test_a_reader_is_pinned_to_what_was_seen(place: str, tmp_path: Path) -> None:
    storage = Storage()
    info = storage.create(f"{place}/x", b"0123456789", "me")
    with storage.open(info) as reader:
        reader.seek(4)
        assert reader.read(3) == b"456"
        assert reader.read() == b"789"
        assert reader.read() == b""
        replace(f"{place}/x", b"abcdefghij")
        reader.seek(0)
        with pytest.raises(InputChanged, match="was changed after the job was planned"):
            reader.read(2)
        assert isinstance(reader.failure, InputChanged)


def replace(uri: str, data: bytes) -> None:
    """What a stranger may do to an object."""
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=data)
    else:
        Path(uri).write_bytes(data)


ODD_KEYS = ["a b+c", "per%20cent%", "umlaut-ä-日本", "q?x=1&y#z", "quote'\"<>", "tab\t", "in/in/x", "z" * 200]


@pytest.mark.parametrize("way", ["signed", "boto3"])
def test_both_ways_to_read_from_s3_give_the_same(way: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What boto3 signs is enough for whatever goes well; whatever doesn't is boto3's own, with the same results."""
    storage = Storage()
    for key in ODD_KEYS:
        storage.create(f"{s3}/{key}", key.encode() * 100, "me")
    for n in range(1100):
        storage.create(f"{s3}/many/{n:04}", b"", "me")
    store: Any = storage._store(s3)
    if way == "boto3":
        monkeypatch.setattr(store._signed, "_get", lambda *_: None)
    else:
        refused = Mock(side_effect=AssertionError("boto3 was asked"))
        monkeypatch.setattr(store._client, "get_object", refused)
        monkeypatch.setattr(store._client, "list_objects_v2", refused)
    found = {info.uri: info for info in storage.list(f"{s3}/")}
    many = [f"{s3}/many/{n:04}" for n in range(1100)]
    assert set(found) == {f"{s3}/{key}" for key in ODD_KEYS} | set(many)
    assert [info.uri for info in storage.list(f"{s3}/many/")] == many
    for key in ODD_KEYS:
        info = found[f"{s3}/{key}"]
        assert info == storage.stat(info.uri)
        with storage.open(info) as source:
            assert source.read() == key.encode() * 100
            source.seek(7)
            assert source.read(5) == (key.encode() * 100)[7:12]


def test_a_missing_object(place: str) -> None:
    storage = Storage()
    with pytest.raises(NotFound, match="missing"):
        storage.stat(f"{place}/missing")
    with pytest.raises(NotFound):
        storage.read(f"{place}/missing")
    with pytest.raises((NotFound, InputChanged)):
        storage.open(ObjectInfo(f"{place}/missing", 5, '"x"')).read()


def test_a_file_that_is_being_written_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "_tmp-me-1234").write_bytes(b"half")
    (tmp_path / "whole").write_bytes(b"whole")
    assert [info.uri for info in Storage().list(f"{tmp_path}/")] == [f"{tmp_path}/whole"]


def test_links_lead_nowhere_else(tmp_path: Path) -> None:
    """A confined store follows a link to a file inside its folders only, whichever way the file is named."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        (folder / "below").mkdir(parents=True)
        (folder / "below" / "rows").write_text(folder.name)
    (mine / "inside").symlink_to(mine / "below" / "rows")
    storage = Storage()
    confined = storage.within([f"{mine}/"])
    assert [info.uri for info in confined.list(f"{mine}/")] == [f"{mine}/below/rows", f"{mine}/inside"]
    assert confined.read(f"{mine}/inside") == b"mine"
    assert storage.within([f"{mine}/", "*"]).read(f"{theirs}/below/rows") == b"theirs"
    (mine / "link").symlink_to(theirs / "below" / "rows")
    (mine / "folder").symlink_to(theirs)
    for uri in (f"{mine}/link", f"{mine}/folder/below/rows", f"{theirs}/below/rows"):
        info = storage.stat(uri)
        uses: list[Callable[[], object]] = [
            partial(confined.stat, uri),
            partial(confined.read, uri),
            partial(confined.open, info),
            partial(confined.content, info),
        ]
        for use in uses:
            with pytest.raises(AccessDenied, match="outside of what may be used here"):
                use()
        with pytest.raises(AccessDenied):
            confined.create(f"{mine}/folder/new", b"", "me")
        with pytest.raises(AccessDenied):
            list(confined.list(f"{mine}/"))


def test_a_link_that_is_changed_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("mine/rows", "theirs"):
        (tmp_path / name).write_text(name)
    link = tmp_path / "mine" / "link"
    link.symlink_to(tmp_path / "theirs")
    check = local.LocalStore._check

    def change(store: local.LocalStore, path: str) -> None:
        link.unlink()
        link.symlink_to(tmp_path / "mine" / "rows")
        check(store, path)

    monkeypatch.setattr(local.LocalStore, "_check", change)
    with pytest.raises(AccessDenied, match="was replaced while it was opened"):
        Storage().within([f"{tmp_path}/mine/"]).read(str(link))


def test_a_file_that_is_gone_leaves_no_broken_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    storage = Storage()
    info = storage.create(f"{tmp_path}/file", b"hello", "me")
    (tmp_path / "file").unlink()
    with pytest.raises(InputChanged, match="is gone"):
        storage.open(info)
    gc.collect()
    assert not ignored


def test_a_listing_that_breaks_off_is_an_error_and_no_end(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that says that there is more, and not where."""
    storage = Storage()
    storage.create(f"{s3}/a", b"1", "me")
    store: Any = storage._store(s3)
    page = b"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
    page += b"<Contents><Key>a</Key><Size>1</Size><ETag>e</ETag></Contents></ListBucketResult>"
    monkeypatch.setattr(store._signed, "_get", lambda *_: page)
    assert [info.uri for info in storage.list(f"{s3}/")] == [f"{s3}/a"], "boto3 is asked again, and has a whole one"
    listed = {"IsTruncated": True, "Contents": [{"Key": "a", "Size": 1, "ETag": "e"}]}
    monkeypatch.setattr(store._client, "list_objects_v2", lambda **_: listed)
    with pytest.raises(Transient, match="no token for the rest"):
        list(storage.list(f"{s3}/"))


def test_a_missing_bucket_is_named(s3: str) -> None:
    storage = Storage()
    with pytest.raises(NotFound, match="s3://no-such-bucket-here"):
        list(storage.list("s3://no-such-bucket-here/x/"))


def test_wrong_credentials(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone-else")
    with pytest.raises(AccessDenied, match="may not be accessed with these credentials"):
        list(Storage().list(f"{s3}/x/"))


def test_no_credentials(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(AccessDenied, match="no AWS credentials"):
        list(Storage().list(f"{s3}/x/"))


def test_a_store_that_is_away_is_transient(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with pytest.raises(Transient, match="while talking to S3"):
        Storage().stat(f"{s3}/x")


def test_no_permission_on_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotFound):
        Storage().read(f"{tmp_path}/file/below")


def test_a_failed_local_write_leaves_nothing(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, *args: object) -> bytes:
            raise OSError(28, "No space left on device")

    with pytest.raises(Transient, match="No space left"):
        Storage().create(f"{tmp_path}/x", Broken(b"data"), "me")
    assert list(tmp_path.iterdir()) == []


def test_pyarrow_reads_through_a_pinned_reader(place: str) -> None:
    import pyarrow as pa

    table = pa.table({"a": range(10_000), "b": [str(i) for i in range(10_000)]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    storage = Storage()
    info = storage.create(f"{place}/t.parquet", buffer.getvalue(), "me")
    with storage.open(info) as reader:
        assert pq.ParquetFile(reader, buffer_size=1 << 16).read() == table


def test_what_stands_for_content_changes_with_it(place: str) -> None:
    storage = Storage()
    storage.create(f"{place}/model/weights", b"one" * 100, "me")
    first = storage.content(storage.stat(f"{place}/model/weights"))
    storage.create(f"{place}/model/other", b"two" * 100, "me")
    assert storage.content(storage.stat(f"{place}/model/other")) != first
    assert storage.content(storage.stat(f"{place}/model/weights")) == first


def test_a_local_file_is_hashed_again_only_where_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_SETTLED_S", 0.05)
    file, store = tmp_path / "weights", local.LocalStore()
    read: list[str] = []
    opened = store.open

    def open_and_count(info: ObjectInfo) -> PinnedReader:
        read.append(info.uri)
        return opened(info)

    monkeypatch.setattr(store, "open", open_and_count)
    file.write_bytes(b"one")
    fresh = store.content(store.stat(str(file)))

    def remembered() -> bool:
        read.clear()
        assert store.content(store.stat(str(file))) == fresh
        return not read

    wait_for("the file has settled", remembered)
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(b"two")  # as long, and its time set back: only the inode's own time tells
    os.utime(file, ns=times)
    assert store.content(store.stat(str(file))) != fresh


def test_content_of_a_file_that_changed_since_it_was_listed(tmp_path: Path) -> None:
    file, storage = tmp_path / "weights", Storage()
    file.write_bytes(b"one")
    info = storage.stat(str(file))
    file.write_bytes(b"other")
    with pytest.raises(InputChanged):
        storage.content(info)
