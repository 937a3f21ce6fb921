"""Parts: how their rows are gathered into row groups, what that keeps in memory, and which columns are whose."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import RecordError
from schemas.job import JobSpec, parse_spec
from schemas.output import output_schema
from schemas.report import ShardReport
from workers.io import part_writer
from workers.io.block import Block
from workers.io.part_writer import PartWriter

REPORT = ShardReport(
    job="j", shard=0, attempt="a", worker="w", fingerprint="f", rows=0, errors={}, batches=0, tokens=0,
    padded_tokens=0, seconds={}, device="cpu", dtype="float32", versions={},
)  # fmt: skip


def spec_of(task: str, prefix: str = "") -> JobSpec:
    places = {"input": {"uri": "/in/"}, "output": {"uri": "/out/", "prefix": prefix}}
    return parse_spec({"task": task, "model": "m", **places})


def written(blocks: list[tuple[pa.Table, list[Any]]], spec: JobSpec, file: Path) -> pq.ParquetFile:
    """The part of these blocks, each a table of kept columns and its answers."""
    with PartWriter(output_schema(spec, blocks[0][0].schema)) as writer:
        first = 0
        for table, answers in blocks:
            places = list(range(first, first + len(table)))
            writer.write(Block(table, ["s3://in/a"] * len(table), places, [{}] * len(table)), answers)
            first += len(table)
        assert writer.rows == first
        body = writer.close(REPORT)
        body.seek(0)
        file.write_bytes(body.read())
    return pq.ParquetFile(file)


def groups_of(part: pq.ParquetFile) -> list[int]:
    return [part.metadata.row_group(group).num_rows for group in range(part.num_row_groups)]


def embeddings(rows: int, size: int, first: int = 0) -> tuple[pa.Table, list[Any]]:
    answer = {"embedding": [0.5] * size, "truncated": False}
    return pa.table({"id": pa.array(range(first, first + rows))}), [answer] * rows


def test_a_row_group_has_a_hundred_thousand_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [embeddings(4096, 1, 4096 * number) for number in range(25)]
    part = written(blocks, spec_of("feature-extraction"), tmp_path / "part.parquet")
    assert groups_of(part) == [100_000, 2400]
    assert part.read(["id"])["id"].to_pylist() == list(range(102_400))
    assert ShardReport.from_metadata(part.metadata.metadata) == REPORT
    monkeypatch.setattr(part_writer, "ROW_GROUP_ROWS", 10)
    assert groups_of(written([embeddings(35, 1)], spec_of("feature-extraction"), tmp_path / "b")) == [10, 10, 10, 5]


def test_a_row_group_ends_with_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_writer, "ROW_GROUP_BYTES", 1 << 20)
    blocks = [embeddings(100, 1024, 100 * number) for number in range(8)]  # 400 KiB each
    part = written(blocks, spec_of("feature-extraction"), tmp_path / "part.parquet")
    assert groups_of(part) == [300, 300, 200]


def test_a_row_of_a_large_batch_does_not_keep_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries read rows that stand apart."""
    monkeypatch.setattr(part_writer, "ROW_GROUP_BYTES", 1 << 20)
    batches = [pa.table({"text": ["x" * 1000] * 1000}) for _ in range(8)]  # each a megabyte
    rows = pa.concat_tables([batch.slice(500, 1) for batch in batches])
    answer = {"embedding": [0.5], "truncated": False}
    part = written([(rows, [answer] * 8)] * 3, spec_of("feature-extraction"), tmp_path / "part.parquet")
    assert groups_of(part) == [24]


@pytest.mark.parametrize("pieces", [1, 3])
def test_dictionaries_that_cannot_be_one(tmp_path: Path, pieces: int) -> None:
    """A kept column of int8 numbers, as pandas writes categories, with other values in each file of the input."""

    def categories(first: int) -> pa.Table:
        values = pa.array([f"value {number}" for number in range(first, first + 100)])
        return pa.table({"kind": values.cast(pa.dictionary(pa.int8(), pa.string()))})

    answers = [{"embedding": [0.5], "truncated": False}] * 100
    tables = [categories(100 * number) for number in range(3)]
    blocks = [(table, answers) for table in tables] if pieces == 1 else [(pa.concat_tables(tables), answers * 3)]
    part = written(blocks, spec_of("feature-extraction"), tmp_path / "part.parquet")
    assert groups_of(part) == [100, 100, 100]
    read = [value for batch in part.iter_batches(64) for value in batch["kind"].to_pylist()]
    assert read == [f"value {number}" for number in range(300)]


def test_our_columns_have_the_prefix(tmp_path: Path) -> None:
    table = pa.table({"error": ["theirs", "as well"], "prediction": [1, 2]})
    answers = [{"embedding": [0.5], "truncated": False}, RecordError("odd", "it is odd")]
    part = written([(table, answers)], spec_of("feature-extraction", "ns_"), tmp_path / "part.parquet")
    first, second = part.read().to_pylist()
    assert list(first) == ["error", "prediction", "ns_prediction", "ns_error", "ns_source_uri", "ns_source_row"]
    assert (first["error"], first["ns_error"], first["ns_prediction"]) == ("theirs", None, answers[0])
    assert (second["ns_error"], second["prediction"]) == ({"code": "odd", "message": "it is odd"}, 2)
