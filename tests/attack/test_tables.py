"""A tenant who may write to a table's location: its metadata lead neither code nor files out of it."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.submission.accept import new_job
from jobs.tables import check_apart
from schemas.errors import Permanent
from schemas.job import AcceptedJob, ResolvedModel, parse_spec
from tests.tables import said_by, sql_catalog

pytestmark = pytest.mark.slow

COLUMNS = pa.schema([("id", pa.int64())])
_MAKE = """
import json, sys
import pyarrow as pa
from pyiceberg.catalog import load_catalog
catalog = load_catalog("lake")
catalog.create_namespace_if_not_exists("nightly")
table = catalog.create_table("nightly.mine", pa.schema([("id", pa.int64())]), location=json.load(sys.stdin))
json.dump(table.metadata_location, sys.stdout)
"""


@pytest.fixture
def metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The metadata file of an Iceberg table."""
    for name, value in sql_catalog(tmp_path).items():
        monkeypatch.setenv(name, value)
    return Path(said_by(_MAKE, f"{tmp_path}/mine"))


def forge(metadata: Path, **properties: str) -> None:
    written = json.loads(metadata.read_text())
    written["properties"] |= {name.replace("__", "."): value for name, value in properties.items()}
    metadata.write_text(json.dumps(written))


def job_at(location: Path) -> AcceptedJob:
    table = {"format": "iceberg", "location": f"{location}/", "catalog": "lake", "name": "nightly.mine"}
    output = {"uri": f"{location}/one/", "table": table}
    spec = parse_spec({"task": "text-classification", "model": "m", "input": {"uri": "/in/"}, "output": output})
    return new_job(spec, ResolvedModel(source="m", kind="local", revision="1"))


def test_a_table_s_properties_choose_no_code(metadata: Path, tmp_path: Path) -> None:
    """Neither the class that reads and writes its files, nor the endpoint that is asked for them."""
    forge(metadata, **{"py-io-impl": "antigravity.IO", "s3__endpoint": "http://127.0.0.1:9"})
    check_apart(job_at(tmp_path / "mine"), COLUMNS, 120)


@pytest.mark.parametrize("name", ["write__metadata__path", "write__py-location-provider__impl"])
def test_properties_that_lead_elsewhere_are_refused(metadata: Path, tmp_path: Path, name: str) -> None:
    forge(metadata, **{name: f"{tmp_path}/another-s"})
    with pytest.raises(Permanent, match="leads out of its location"):
        check_apart(job_at(tmp_path / "mine"), COLUMNS, 120)


def test_a_table_of_this_name_that_lies_elsewhere_is_refused(metadata: Path, tmp_path: Path) -> None:
    """Its metadata are outside of what the job's submitter may use: they are not even read."""
    with pytest.raises(Permanent, match="is outside of the table's location"):
        check_apart(job_at(tmp_path / "another-s"), COLUMNS, 120)


def test_a_log_that_ends_its_reader_ends_no_other_process(tmp_path: Path) -> None:
    """Whatever Delta's library makes of a broken log, here it is an error."""
    log = tmp_path / "mine" / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text('{"metaData":' + "[" * 100_000)
    job = job_at(tmp_path / "mine")
    table = {"format": "delta", "location": f"{tmp_path}/mine/"}
    spec = parse_spec(job.spec.model_dump(mode="json") | {"output": {"uri": f"{tmp_path}/mine/one/", "table": table}})
    with pytest.raises(Exception, match=r"delta table|ended \("):
        check_apart(job.model_copy(update={"spec": spec}), COLUMNS, 120)
