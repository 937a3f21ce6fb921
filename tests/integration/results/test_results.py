"""`results`: as a table, filtered, joined with the input, in files, as they come; by a job's id and by a pointer."""

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs.cli.results import results
from jobs.results.read import followed_batches
from schemas.job import AcceptedJob
from tests.integration.harness import House, spec_for, write_reviews
from tests.texts import sentences


@pytest.fixture
def job(house: House, classifier: Path, tmp_path: Path) -> AcceptedJob:
    """A job of three parts that keeps the ids alone, with two nulls among 50 texts."""
    texts = [None if n in (7, 31) else text for n, text in enumerate(sentences(50))]
    source = write_reviews(tmp_path / "in.parquet", texts, row_group=15)
    spec = spec_for(classifier, str(source), f"{tmp_path}/out/", input={"keep": ["id"]}, shard={"rows": 20})
    found = house.catalog.job(house.run(spec).job)
    assert found is not None
    return found


def shown(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(results, arguments)
    assert result.exit_code == code, result.output
    return result.stdout


def test_rows_are_shown_filtered_joined_and_written(job: AcceptedJob, tmp_path: Path) -> None:
    header, *lines = shown(job.id, "--head", "3").splitlines()
    assert header.split() == ["id", "label", "score", "truncated"]
    assert [line.split()[0] for line in lines] == ["0", "1", "2"]

    errors = shown(job.output, "--errors").splitlines()
    assert [line.split()[0] for line in errors[1:]] == ["7", "31"]
    assert "null_input: text is null" in errors[1]
    codes = json.loads(shown(job.id, "--by-code", "--json"))
    assert codes["null_input"]["rows"] == 2
    assert codes["null_input"]["first"]["source_row"] == 7
    assert shown(job.id, "--by-code").splitlines()[1].split()[:2] == ["2", "null_input"]

    rows = [json.loads(line) for line in shown(job.id, "-n", "0", "--json").splitlines()]
    low = [json.loads(line) for line in shown(job.id, "-n", "0", "--json", "--where", "score < 0.9").splitlines()]
    assert low == [row for row in rows if row["prediction"] and row["prediction"]["score"] < 0.9]
    assert 0 < len(low) < len(rows)

    both = [json.loads(line) for line in shown(job.id, "--join", "-n", "0", "--json").splitlines()]
    assert [row["review"] for row in both] == pq.read_table(job.spec.input.uris[0])["review"].to_pylist()
    assert list(both[0]) == ["id", "review", "prediction", "error", "source_uri", "source_row"]
    where = "review is None"
    assert [json.loads(line)["id"] for line in shown(job.id, "--join", "--where", where, "--json").splitlines()] == [
        7,
        31,
    ]

    kinds = {line.split()[0]: line.split()[1] for line in shown(job.id, "--schema").splitlines()}
    assert (kinds["id"], kinds["label"], kinds["error"]) == ("int64", "string", "struct")

    for kind in ("csv", "jsonl", "parquet"):
        shown(job.id, "--to", kind, str(tmp_path / kind))
    assert pq.read_table(tmp_path / "parquet")["id"].to_pylist() == list(range(50))
    assert [json.loads(line)["id"] for line in (tmp_path / "jsonl").read_text().splitlines()] == list(range(50))
    table = list(csv.DictReader(io.StringIO((tmp_path / "csv").read_text())))
    assert [row["prediction.label"] for row in table] == [
        r["prediction"]["label"] if r["prediction"] else "" for r in rows
    ]
    assert json.loads(table[0]["prediction.top"]) == rows[0]["prediction"]["top"]
    shown(job.id, "--to", "parquet", str(tmp_path / "none"), "--where", "id < 0")
    assert pq.read_table(tmp_path / "none").num_rows == 0
    assert shown(job.id, "--to", "csv", "-", "-n", "2").splitlines()[1].split(",")[0] == "0"
    assert not list(tmp_path.glob("*.partial"))


def test_rows_come_as_parts_are_committed(house: House, classifier: Path, texts: Path, tmp_path: Path) -> None:
    job = house.submit(spec_for(classifier, str(texts), f"{tmp_path}/out/", shard={"rows": 20}))
    house.plan(job)
    waits = 0

    def wait(seconds: float) -> None:
        """What goes on meanwhile: a shard is done and, after the last, the job ends."""
        nonlocal waits
        waits += 1
        assert waits < 20
        if house.next() is None:
            house.finish(job)

    seen = followed_batches(job, house.storage, wait=wait)
    first = next(seen)
    assert (first.num_rows, waits) == (20, 1)
    assert sorted(id for batch in [first, *seen] for id in batch["id"].to_pylist()) == list(range(100))
