"""What is left out of a file: rows by their keys, or those that were annotated before, cut at row groups."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.planning.parquet_footers import Footer, read_footer
from jobs.planning.planner import Limits, plan_shards
from jobs.planning.unseen import PartialFooter, Unseen, with_keys
from jobs.storage import Storage
from jobs.storage.annotated import version_of
from jobs.storage.hashes import hashes
from jobs.storage.series import Seen
from schemas.incremental import SeriesRun

RUN = SeriesRun(series="s/", run=2, fingerprint="f", known=1)


def footer_of(folder: Path, name: str, keys: list[Any], row_group: int = 4) -> Footer:
    pq.write_table(pa.table({"id": pa.array(keys, pa.string())}), folder / name, row_group_size=row_group)
    storage = Storage()
    return read_footer(storage, storage.stat(str(folder / name)), 1 << 20)


def rows_of(footer: Footer) -> list[int]:
    """The rows of a file that a plan would read, by their row groups."""
    found: list[int] = []
    for group in footer.row_groups({"id"}):
        assert 0 <= group.start < group.start + group.rows <= footer.metadata.row_group(group.index).num_rows
        found += range(group.first_row + group.start, group.first_row + group.start + group.rows)
    return found


@settings(max_examples=25)
@given(st.sets(st.integers(0, 39)), st.integers(1, 15))
def test_any_rows_are_read_and_no_others(tmp_path_factory: Any, wanted: set[int], row_group: int) -> None:
    folder = tmp_path_factory.mktemp("x")
    footer = footer_of(folder, "a.parquet", list(map(str, range(40))), row_group)
    partial = PartialFooter(footer.info, footer.schema, footer.metadata, [(row, 1) for row in sorted(wanted)])
    assert rows_of(partial) == sorted(wanted)
    slices = [part for shard in plan_shards([partial], {"id"}, Limits(7, 1 << 20)) for part in shard.slices]
    assert [part.source_row + i for part in slices for i in range(part.rows)] == sorted(wanted)
    for part in slices:
        first = sum(footer.metadata.row_group(index).num_rows for index in range(part.row_group))
        assert part.source_row == first + part.start


def test_the_first_row_of_a_key_is_taken(tmp_path: Path) -> None:
    storage = Storage()
    files = [
        footer_of(tmp_path, "a.parquet", ["x", "seen", None, "y", "x", "z"]),
        footer_of(tmp_path, "b.parquet", ["z", "seen", "w"]),
    ]
    before = Seen()
    before.add(hashes([b"seen"]))
    skipped: Counter[str] = Counter()
    keyed = [with_keys(footer, "id", storage) for footer in files]
    found = list(Unseen(before, "id", RUN).rows(keyed, skipped))
    assert [rows_of(footer) for footer in found if isinstance(footer, Footer)] == [[0, 3, 5], [2]]
    assert skipped == {"rows annotated before": 2, "rows with a null key": 1, "rows with a repeated key": 2}


def test_of_a_file_the_rest_is_read(tmp_path: Path) -> None:
    footer = footer_of(tmp_path, "a.parquet", list("abcdefghij"))
    other = footer_of(tmp_path, "b.parquet", list("abc"))
    before = Seen()
    before.add_rows(hashes([version_of(footer.info.uri, footer.info.etag)]).tobytes(), [(6, 3), (0, 2)])
    skipped: Counter[str] = Counter()
    first, second = Unseen(before, None, RUN).rows([footer, other], skipped)
    assert isinstance(first, Footer)
    assert rows_of(first) == [2, 3, 4, 5, 9]
    assert second is other
    assert skipped == {"rows annotated before": 5}


def test_a_file_without_the_key_is_left_to_the_check_of_its_schema(tmp_path: Path) -> None:
    footer = footer_of(tmp_path, "a.parquet", ["x"])
    assert with_keys(footer, "nope", Storage()) is footer
