"""From URIs to files: a file, a prefix, a glob, a list."""

from pathlib import Path

import pytest

from jobs.planning.input_files import MEDIA, PARQUET, FileKind, InputFiles
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.base import normalized
from schemas.errors import SpecError
from schemas.task import Kind


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ["b.parquet", "a.parquet", "sub/c.PARQUET", "_hidden.parquet", ".x.parquet", "notes.txt",
                 "_tmp/d.parquet", "sub/deep/e.pq", "a10.parquet"]:  # fmt: skip
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"1")
    (tmp_path / "empty.parquet").touch()
    return tmp_path


def names(folder: Path, *uris: str, kind: FileKind = PARQUET) -> list[str]:
    full = [f"{folder}/{uri}" for uri in uris]
    return [info.uri.removeprefix(f"{folder}/") for info in InputFiles(Storage(), full, kind)]


def test_a_prefix_has_the_parquet_files_below_it_in_order(folder: Path) -> None:
    expected = ["a.parquet", "a10.parquet", "b.parquet", "empty.parquet", "sub/c.PARQUET", "sub/deep/e.pq"]
    assert names(folder, "") == expected
    assert names(folder, "sub") == names(folder, "sub/") == ["sub/c.PARQUET", "sub/deep/e.pq"]


def test_a_file_named_outright_is_taken_as_it_is(folder: Path) -> None:
    assert names(folder, "notes.txt") == ["notes.txt"]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("a*.parquet", ["a.parquet", "a10.parquet"]),
        ("?.parquet", ["a.parquet", "b.parquet"]),
        ("[ab].parquet", ["a.parquet", "b.parquet"]),
        ("**/*.pq", ["sub/deep/e.pq"]),
        ("sub/*", ["sub/c.PARQUET"]),
        ("*", ["a.parquet", "a10.parquet", "b.parquet", "empty.parquet"]),
        ("*.txt", ["notes.txt"]),
        ("_h*", ["_hidden.parquet"]),
    ],
)
def test_globs(folder: Path, glob: str, expected: list[str]) -> None:
    assert names(folder, glob) == expected


def test_a_name_with_brackets_is_tried_as_it_stands(folder: Path) -> None:
    (folder / "x[1].parquet").write_bytes(b"1")
    (folder / "y[2]").mkdir()
    (folder / "y[2]" / "z.parquet").write_bytes(b"1")
    assert names(folder, "x[1].parquet") == ["x[1].parquet"]
    assert names(folder, "y[2]/") == ["y[2]/z.parquet"]


def test_a_list_keeps_its_order_and_reads_each_file_once(folder: Path) -> None:
    assert names(folder, "b.parquet", "a*.parquet", "?.parquet") == ["b.parquet", "a.parquet", "a10.parquet"]


def test_a_later_pattern_adds_what_an_earlier_one_left_out(folder: Path) -> None:
    assert names(folder, "sub/", "notes.txt", "*.txt", "sub/deep/e.pq") == [
        "sub/c.PARQUET",
        "sub/deep/e.pq",
        "notes.txt",
    ]
    (folder / "x[1].parquet").write_bytes(b"1")
    (folder / "x1.parquet").write_bytes(b"1")
    assert names(folder, "x[1].parquet", "x1.parquet") == ["x[1].parquet", "x1.parquet"]


def test_what_is_skipped_is_counted(folder: Path) -> None:
    for name in ("cat.JPG", "dog.webp", "sub/bird.tiff", "_thumb.png", "zero.png", "sound.wav"):
        (folder / name).write_bytes(b"")
    files = InputFiles(Storage(), [f"{folder}/"], MEDIA[Kind.IMAGE])
    found = [info.uri.removeprefix(f"{folder}/") for info in files]
    assert found == ["cat.JPG", "dog.webp", "sub/bird.tiff", "zero.png"]
    assert files.skipped == {"files of other kinds": 8, "hidden files": 4}
    assert names(folder, "", kind=MEDIA[Kind.AUDIO]) == ["sound.wav"]
    with pytest.raises(SpecError, match=r"no audio file matches .*/sub/'; what is there: 3 files of other kinds"):
        names(folder, "sub/", kind=MEDIA[Kind.AUDIO])


@pytest.mark.parametrize("uri", ["nothing/", "z*.parquet", "missing.parquet", "sub/deep/none/"])
def test_no_match_is_an_error_that_names_the_uri(folder: Path, uri: str) -> None:
    with pytest.raises(SpecError, match=f"no parquet file matches .*{uri.replace('*', '.')}"):
        names(folder, uri)


def test_an_empty_entry_of_a_list_is_named_by_its_place(folder: Path) -> None:
    with pytest.raises(SpecError) as caught:
        names(folder, "a.parquet", "nothing/")
    assert caught.value.problems[0].field == "input.uri.1"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://b/x/", "s3://b/x/"),
        ("s3://b/a b/%20", "s3://b/a b/%20"),
        ("file:///a/b%20c/", "/a/b c/"),
        ("/a/./b/../c", "/a/c"),
    ],
)
def test_uris_are_written_one_way(uri: str, expected: str) -> None:
    assert normalized(uri, "x") == expected


@pytest.mark.parametrize("uri", ["s3://b/raw/../other/x", "s3://b/..", "s3://b/./x"])
def test_a_way_out_of_a_prefix_is_refused(uri: str) -> None:
    with pytest.raises(SpecError, match=r"'\.' or '\.\.' in its path"):
        normalized(uri, "input.uri")
    assert normalized("s3://b/a..b/...", "x") == "s3://b/a..b/..."


@pytest.mark.parametrize("uri", ["http://x/y", "gs://x/y", "s3:///key", "s3://"])
def test_foreign_uris_are_refused(uri: str) -> None:
    with pytest.raises(SpecError, match="s3://"):
        normalized(uri, "input.uri")


def test_only_allowed_prefixes() -> None:
    closed = Settings(allowed_inputs=["s3://raw/search/"], allow_files=False)
    closed.check_allowed("s3://raw/search/x", closed.allowed_inputs, "input.uri")
    for uri in ("s3://raw/search", "s3://raw/other/", "s3://rawer/search/", "/etc/passwd"):
        with pytest.raises(SpecError, match=r"input\.uri"):
            closed.check_allowed(uri, closed.allowed_inputs, "input.uri")
