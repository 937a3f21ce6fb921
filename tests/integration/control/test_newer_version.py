"""Files that a newer version wrote are read: a field more in each of their objects changes nothing."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.settings import Settings
from jobs.storage.catalog import BoundKey
from jobs.submission.accept import Found
from schemas import __version__
from schemas.errors import Damaged, Permanent, SpecError
from schemas.job import parse_spec
from schemas.layout import JOB, MANIFEST, PLAN
from schemas.manifest import JobStatus
from tests.integration.harness import House, read_output, spec_for

#: In these any key means something.
FREE = {"labels", "columns", "errors", "seconds", "skipped", "versions", "params"}


def with_more(value: Any, name: str = "") -> Any:
    """A file's content with a field more in each object."""
    if isinstance(value, list):
        return [with_more(item) for item in value]
    if not isinstance(value, dict) or name in FREE:
        return value
    return {key: with_more(inner, key) for key, inner in value.items()} | {"of_a_newer_version": [1]}


def rewrite(file: Path) -> None:
    file.write_text(json.dumps(with_more(json.loads(file.read_text()))))


def rewrite_plan(file: Path) -> None:
    """A column more, and a field more in each slice."""
    table = pq.read_table(file)
    slices = [[part | {"more": "x"} for part in shard] for shard in table["slices"].to_pylist()]
    field = table.schema.field("slices")
    part = pa.struct([*field.type.value_type, ("more", pa.string())])
    newer = table.set_column(table.schema.get_field_index("slices"), "slices", pa.array(slices, pa.list_(part)))
    newer = newer.append_column("more", pa.nulls(len(table), pa.int64()))
    pq.write_table(newer.replace_schema_metadata(table.schema.metadata), file)


def test_a_job_of_a_newer_version_is_run_and_ended(house: House, classifier: Path, texts: Path) -> None:
    spec = spec_for(classifier, str(texts), f"{texts.parent.parent}/out", shard={"rows": 30})
    job = house.submit(spec)
    for file in (Path(job.output, JOB), Path(house.settings.catalog_uri, "jobs", f"{job.id}.json")):
        rewrite(file)
    assert house.plan(job) == 4
    rewrite_plan(Path(job.output, PLAN))
    while house.next() is not None:
        pass
    assert house.finish(job).status is JobStatus.SUCCEEDED
    rewrite(Path(job.output, MANIFEST))
    found = house.submitter.find(job.spec)
    assert found is not None
    assert (found.found, found.job.id) == (Found.ENDED, job.id)
    assert found.manifest is not None
    assert (found.manifest.rows, found.manifest.version) == (100, __version__)
    assert len(read_output(job.output)) == 100


def test_a_key_of_a_newer_version(house: House, classifier: Path, texts: Path) -> None:
    spec = spec_for(classifier, str(texts), f"{texts.parent.parent}/out")
    house.catalog.bind_key("", "key", BoundKey.of(spec, "20261120-031500-k3v9x2"))
    (file,) = Path(house.settings.catalog_uri, "keys").iterdir()
    rewrite(file)
    bound = house.catalog.key("", "key")
    assert bound is not None
    assert bound.is_for(spec)


def test_a_parameter_of_a_newer_version_is_not_ignored(house: House, classifier: Path, texts: Path) -> None:
    """The job can be shown and ended; its rows would not be what was asked for."""
    job = house.submit(spec_for(classifier, str(texts), f"{texts.parent.parent}/out"))
    file = Path(house.settings.catalog_uri, "jobs", f"{job.id}.json")
    told = json.loads(file.read_text())
    told["job"]["spec"]["params"]["of_a_newer_version"] = 1
    file.write_text(json.dumps(told))
    house.plan(job)
    there = house.catalog.job(job.id)
    assert there is not None
    with pytest.raises(Permanent, match="has no parameter of_a_newer_version in this version"):
        _ = there.spec.task_params
    house.state.jobs.cancel(job.id)
    assert house.finish(job).status is JobStatus.CANCELLED


def test_a_submitted_spec_has_no_field_more(settings: Settings) -> None:
    spec = {"task": "text-classification", "model": "m", "input": {"uri": "/in/"}, "output": {"uri": "/out/"}}
    for more in ({"retries": 3}, {"params": {"temperature": 1}}, {"output": {"uri": "/out/", "mode": "w"}}):
        with pytest.raises(SpecError, match="unknown key"):
            parse_spec(spec | more)


def test_a_file_that_cannot_be_read_names_both_versions(house: House, classifier: Path, texts: Path) -> None:
    job = house.submit(spec_for(classifier, str(texts), f"{texts.parent.parent}/out"))
    folder = house.catalog.folder(job.output)
    entry = Path(house.settings.catalog_uri, "jobs", f"{job.id}.json")
    job_file = Path(job.output, JOB)
    for file, read in ((job_file, folder.read_job), (entry, lambda: house.catalog.find(job.id))):
        told = json.loads(file.read_text())
        accepted = told.get("job", told)
        accepted["version"] = "7.1.0"
        accepted["model"]["kind"] = "ftp"
        file.write_text(json.dumps(told))
        with pytest.raises(Damaged, match=f"Nightshift 7.1.0 wrote it, {__version__} reads it") as raised:
            read()
        assert str(file) in raised.value.message
    Path(job.output, MANIFEST).write_text("[" * 100_000)
    with pytest.raises(Damaged, match=f"nothing says which version of Nightshift wrote it, {__version__} reads it"):
        folder.read_manifest()
