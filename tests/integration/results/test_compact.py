"""`compact`: few files with the same rows, elsewhere; gone on with after a crash; nothing that isn't the job's."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs.cli.compact import compact
from jobs.results.compact import Compactor
from jobs.storage import ObjectInfo, Storage
from jobs.storage.checksum import RowChecksum
from schemas.errors import Permanent, SpecError, Transient
from schemas.job import AcceptedJob
from tests.integration.harness import House, spec_for


@pytest.fixture
def job(house: House, classifier: Path, texts: Path, tmp_path: Path) -> AcceptedJob:
    """A job of ten parts."""
    found = house.catalog.job(house.run(spec_for(classifier, str(texts), f"{tmp_path}/out/", shard={"rows": 10})).job)
    assert found is not None
    return found


def checksum(folder: Path) -> str:
    table = ds.dataset(folder, format="parquet").to_table()
    found = RowChecksum(table.schema)
    found.add(table)
    return str(found)


def test_few_files_have_the_same_rows(job: AcceptedJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(Path(job.output).rglob("*"))
    result = CliRunner().invoke(compact, [job.id, "--to", f"{tmp_path}/compact"])
    assert (result.exit_code, result.stdout.split(",")[0]) == (0, "10 parts → 1 file with 100 rows"), result.output
    (file,) = (tmp_path / "compact" / "data").iterdir()
    assert pq.read_metadata(file).num_row_groups == 1
    assert checksum(tmp_path / "compact" / "data") == checksum(Path(job.output, "data"))
    assert sorted(Path(job.output).rglob("*")) == before
    said = json.loads((tmp_path / "compact" / "_compacted.json").read_text())
    assert (said["job"], said["rows"], said["parts"]) == (job.id, 100, 10)
    again = CliRunner().invoke(compact, [job.id, "--to", f"{tmp_path}/compact/"])
    assert again.stdout == result.stdout
    inside = CliRunner().invoke(compact, [job.id, "--to", f"{job.output}compact/"])
    assert isinstance(inside.exception, SpecError)


def test_a_crash_is_gone_on_with(job: AcceptedJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one row group each, and a store that goes away after the second."""
    monkeypatch.setattr("jobs.results.compact.GROUP_ROWS", 30)
    create, made = Storage.create, 0

    def goes_away(self: Storage, uri: str, body: bytes | BinaryIO, owner: str) -> ObjectInfo:
        nonlocal made
        made += 1
        if made > 2:
            raise Transient("the store is away")
        return create(self, uri, body, owner)

    compactor = Compactor(job, f"{tmp_path}/compact/", Storage(), 1)
    with monkeypatch.context() as away:
        away.setattr(Storage, "create", goes_away)
        with pytest.raises(Transient):
            compactor.run()
    assert not (tmp_path / "compact" / "_compacted.json").exists()
    compactor.run()
    assert checksum(tmp_path / "compact" / "data") == checksum(Path(job.output, "data"))


def test_what_is_not_the_job_s_is_not_made_to_look_so(job: AcceptedJob, tmp_path: Path) -> None:
    part = sorted(Path(job.output, "data").iterdir())[3]
    whole = part.read_bytes()
    table = pq.read_table(part)
    buffer = io.BytesIO()
    pq.write_table(table.take(list(reversed(range(10)))), buffer)
    part.write_bytes(buffer.getvalue())
    with pytest.raises(Permanent, match="isn't what the manifest says"):
        Compactor(job, f"{tmp_path}/compact/", Storage(), 1 << 29).run()
    part.write_bytes(whole)
    (tmp_path / "taken" / "data").mkdir(parents=True)
    pq.write_table(table, tmp_path / "taken" / "data" / "part-00000.parquet")
    with pytest.raises(SpecError, match="something else"):
        Compactor(job, f"{tmp_path}/taken/", Storage(), 1 << 29).run()


COUNTRIES = ["DE", "FR", None, "U/K", "DE"]
_READ = """
import json, sys
import duckdb
import pyarrow.dataset as ds
import polars
place = sys.argv[1]
arrow = ds.dataset(place, format="parquet", partitioning="hive").to_table().to_pylist()
found = duckdb.sql(f"select * from read_parquet('{place}**/*.parquet', hive_partitioning=true)")
duck = found.to_arrow_table().to_pylist()
pola = polars.scan_parquet(place + "**/*.parquet", hive_partitioning=True).collect().to_dicts()
print(json.dumps([sorted((row["id"], row["country"]) for row in rows) for rows in (arrow, duck, pola)]))
"""


@pytest.mark.parametrize("as_dictionary", [False, True])
def test_folders_by_the_values_of_a_column(house: House, classifier: Path, tmp_path: Path, as_dictionary: bool) -> None:
    values = pa.array(COUNTRIES * 8, pa.string())
    rows = {"id": range(40), "review": [f"text {n}" for n in range(40)], "country": values}
    if as_dictionary:
        rows["country"] = values.dictionary_encode()
    pq.write_table(pa.table(rows), tmp_path / "in.parquet")
    manifest = house.run(spec_for(classifier, f"{tmp_path}/in.parquet", f"{tmp_path}/out/", shard={"rows": 10}))
    asked = [manifest.job, "--to", f"{tmp_path}/by", "--partition-by"]
    result = CliRunner().invoke(compact, [*asked, "country"])
    assert result.exit_code == 0, result.output
    there = sorted(
        path.relative_to(tmp_path / "by" / "data").as_posix() for path in (tmp_path / "by").rglob("*.parquet")
    )
    places = ("DE", "FR", "U%2FK", "__HIVE_DEFAULT_PARTITION__")
    assert there == [f"country={place}/part-00000.parquet" for place in places]
    assert CliRunner().invoke(compact, [*asked, "country"]).stdout == result.stdout, "again, it is there"
    done = subprocess.run(
        [sys.executable, "-c", _READ, f"{tmp_path}/by/data/"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout):
        assert found == [[n, COUNTRIES[n % 5]] for n in range(40)]
    again = CliRunner().invoke(compact, [*asked, "id"])
    assert isinstance(again.exception, SpecError)
    assert "partitioned by country" in str(again.exception)


@pytest.mark.parametrize(("column", "says"), [("nothing", "no column 'nothing'"), ("prediction", "is struct")])
def test_a_column_that_folders_cannot_be_named_by(job: AcceptedJob, tmp_path: Path, column: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Compactor(job, f"{tmp_path}/by/", Storage(), 1, column).run()
