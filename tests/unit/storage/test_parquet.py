"""A broken footer is an error of the one who asked for it, and of nobody else."""

import multiprocessing
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.storage import Storage, parquet
from jobs.storage.parquet import BrokenFooter, open_parquet, read_metadata


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": range(100), "b": [None] * 100}), file, row_group_size=10)
    return file


def metadata_of(file: Path, max_footer: int = parquet.MAX_FOOTER_BYTES) -> pq.FileMetaData:
    with Storage().open(Storage().stat(str(file))) as source:
        return read_metadata(source, max_footer)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Children that run this file instead of ours."""
    file = tmp_path / "child.py"
    monkeypatch.setattr(parquet, "_CHILD", file)
    parquet._end_all()
    parquet._after_fork()
    return file


def test_whole(table: Path) -> None:
    assert metadata_of(table).equals(pq.read_metadata(table))
    with Storage().open(Storage().stat(str(table))) as source:
        assert open_parquet(source, pre_buffer=False).read() == pq.read_table(table)


def test_a_footer_larger_than_the_first_read(tmp_path: Path) -> None:
    wide = tmp_path / "wide.parquet"
    pq.write_table(pa.table({f"column {n}": [n] for n in range(1000)}), wide)
    assert metadata_of(wide).serialized_size > parquet._TAIL
    assert metadata_of(wide).equals(pq.read_metadata(wide))
    with pytest.raises(BrokenFooter, match=r"has a footer of .*; max_footer_mb allows 100"):
        metadata_of(wide, 100)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1PAR1", b"x" * 100 + b"PARE", b"PAR1" + b"\xff\xff\0\0PAR1"])
def test_no_footer(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(BrokenFooter, match=r"is encrypted|is not a"):
        metadata_of(tmp_path / "a")


def test_a_footer_that_ends_its_reader(table: Path, program: Path) -> None:
    program.write_text("import os\nos.abort()\n")
    with pytest.raises(BrokenFooter, match="reading it ends the process"):
        metadata_of(table)
    program.write_text(Path(parquet.__file__).with_name("footer_child.py").read_text())
    assert metadata_of(table).num_rows == 100


@pytest.mark.parametrize("ends", [1, 2, 3])
def test_a_reader_that_ends_for_another_cause(table: Path, program: Path, tmp_path: Path, ends: int) -> None:
    """Killed, say: a footer is broken only if three processes end with it."""
    count = tmp_path / "count"
    count.write_text("")
    dying = f"p = {str(count)!r}\nopen(p, 'a').write('x')\nimport os\nif len(open(p).read()) <= {ends}: os.abort()\n"
    program.write_text(dying + Path(parquet.__file__).with_name("footer_child.py").read_text())
    if ends < 3:
        assert metadata_of(table).num_rows == 100
    else:
        with pytest.raises(BrokenFooter, match="reading it ends the process"):
            metadata_of(table)


def test_a_footer_that_its_reader_hangs_at(table: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_LIMIT_S", 0.2)
    program.write_text("import time\ntime.sleep(100)\n")
    with pytest.raises(BrokenFooter, match=r"takes more than"):
        metadata_of(table)
    assert not parquet._running


def bomb(groups: int, chunks: int) -> bytes:
    """A file whose footer lists empty row groups: four bytes of it for each of the many objects that stand for them."""

    def counted(field: int, count: int, body: bytes) -> bytes:
        size = bytes((count & 0x7F | 0x80, count >> 7 & 0x7F | 0x80, count >> 14))
        return bytes((field << 4 | 9, 0xFC)) + size + body * count

    chunk = b"\x26\x00\x00"  # file_offset: 0
    group = counted(1, chunks, chunk) + b"\x16\x00\x16\x00\x00"
    root = b"\x48\x01a\x15\x02\x00"
    column = b"\x15\x02\x25\x00\x18\x01b\x00"
    footer = b"\x15\x04" + b"\x19\x2c" + root + column + b"\x16\x00" + counted(1, groups, group) + b"\x00"
    return b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"


@pytest.mark.skipif(not Path("/proc").exists(), reason="only Linux holds a process to RLIMIT_DATA")
def test_a_footer_that_stands_for_gigabytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bomb(20, 400_000))
    with pytest.raises(BrokenFooter, match=r"memory|bad_alloc|ends the process"):
        metadata_of(tmp_path / "a")


def test_many_at_once_and_after_a_fork(table: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert {found.num_rows for found in pool.map(metadata_of, [table] * 40)} == {100}
    children = set(parquet._running)
    assert 1 <= len(children) <= 3  # one is for large footers
    if hasattr(os, "fork"):
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, as Celery's are
        forked = multiprocessing.get_context("fork").Process(target=metadata_of, args=(table,))
        forked.start()
        forked.join(30)
        assert forked.exitcode == 0
    assert metadata_of(table).num_rows == 100
    assert parquet._running == children
