"""The checker itself: each way of breaking a finished job is told by the invariant that it breaks."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.settings import Settings
from jobs.storage import Storage
from schemas.layout import part_name
from tests.faults.invariants import Ended, check
from tests.faults.stage import BOUND_S
from tests.integration.harness import House, spec_for, write_reviews
from tests.texts import sentences

Break = Callable[[Path], None]


def _rewrite(part: int, change: Callable[[pa.Table], pa.Table], *, tell: bool) -> Break:
    """Change a part's table; `tell` corrects what the manifest says of its size and etag."""

    def break_it(output: Path) -> None:
        file = output / "data" / part_name(part, 3)
        pq.write_table(change(pq.read_table(file)), file)
        if tell:
            manifest = json.loads((output / "_manifest.json").read_text())
            said = manifest["parts"][part]
            said |= {"bytes": file.stat().st_size, "etag": Storage().stat(str(file)).etag}
            said["rows"] = pq.read_metadata(file).num_rows
            manifest["rows"] = sum(p["rows"] for p in manifest["parts"])
            (output / "_manifest.json").write_text(json.dumps(manifest))

    return break_it


def _emptied(table: pa.Table) -> pa.Table:
    at = table.column_names.index("prediction")
    return table.set_column(at, table.schema.field(at), pa.nulls(len(table), table.schema.field(at).type))


def _one_more(output: Path) -> None:
    (output / "data" / part_name(3, 4)).touch()


BROKEN: list[tuple[str, Break]] = [
    ("I1: 1 rows neither there", _rewrite(1, lambda t: t.slice(1), tell=True)),
    ("I1: 10 rows more than once", _rewrite(1, lambda t: pa.concat_tables([t, t]), tell=True)),
    ("I1: not in the order", _rewrite(1, lambda t: t.take(list(range(9, -1, -1))), tell=True)),
    ("neither answered nor an error", _rewrite(1, _emptied, tell=True)),
    ("I2: part-00001.parquet is not the one", _rewrite(1, lambda t: t, tell=False)),
    ("I2: parts that the manifest doesn't name", _one_more),
]  # fmt: skip


@pytest.fixture
def output(settings: Settings, classifier: Path, tmp_path: Path) -> Path:
    """A finished job of three shards."""
    file = write_reviews(tmp_path / "in.parquet", sentences(30))
    House(settings).run(spec_for(classifier, str(file), f"{tmp_path}/out", shard={"rows": 10}))
    return tmp_path / "out"


def _files(output: Path) -> list[Path]:
    return [file for file in output.rglob("*") if file.is_file()]


def test_a_finished_job_passes_and_each_break_is_told(output: Path) -> None:
    inputs = [str(output.parent / "in.parquet")]
    ended = Ended.seen(str(output), Storage())
    check(ended, inputs, BOUND_S, attempts={0: 1}, meanwhile=[])
    kept = {file: (file.read_bytes(), file.stat()) for file in _files(output)}
    for message, break_it in BROKEN:
        break_it(output)
        with pytest.raises(AssertionError, match=message):
            check(Ended.seen(str(output), Storage()), inputs, BOUND_S)
        for file in _files(output):
            file.unlink()
        for file, (data, stat) in kept.items():
            file.write_bytes(data)
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(AssertionError, match="I4: ended after"):
        check(ended, inputs, 0)
    with pytest.raises(AssertionError, match="I5: shard 1 ran 3 times, 2 at most"):
        check(ended, inputs, BOUND_S, attempts={1: 3}, most_attempts=2)
    with pytest.raises(AssertionError, match=r"I6: .* had to wait"):
        check(ended, inputs, BOUND_S, meanwhile=[ended])
    with (output / "_manifest.json").open("a") as manifest:
        manifest.write(" ")
    with pytest.raises(AssertionError, match="I3: the manifest changed"):
        check(ended, inputs, BOUND_S)
