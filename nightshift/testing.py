"""Tests that every task passes, for packages that add a task. Needs pytest, and the extras `worker` and `embedded`.

A test file imports everything from here, and defines a fixture `case`:

    from nightshift.testing import *

    @pytest.fixture
    def case(model: Path) -> Case:
        return Case(TASK, model, records, params, reference, schema)

The tests run whole jobs in their own process: the code of a worker, on a Redis server that is started for them.
"""

import hashlib
import json
import math
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from jobs.broker import Broker, make_app
from jobs.control.controller import Control
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.submission.accept import Submitter, enqueue, new_job
from jobs.submission.validate import validate
from jobs.supervisor.embedded import private_redis, redis_server
from schemas.job import AcceptedJob, JobSpec, parse_spec
from schemas.manifest import JobStatus, Manifest
from schemas.task import Kind, Task
from workers.execution.process import Process
from workers.execution.ticket import run_next

__all__ = [
    "Case",
    "close",
    "nightshift_settings",
    "run_case",
    "test_a_null_is_an_error_row_in_its_place",
    "test_an_output_schema_changes_only_with_its_version",
    "test_same_answer_as_the_reference_whatever_the_batch",
    "test_same_answer_in_any_order",
]

#: How a table holds the values of a column of this kind: media as in Hugging Face datasets.
_STORED = {
    Kind.TEXT: pa.string(),
    Kind.MESSAGES: pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
    Kind.IMAGE: pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    Kind.AUDIO: pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
}


@dataclass(frozen=True)
class Case:
    """A task with a checkpoint, records, and a reference.

    `records` are dicts by column name; a media column has the encoded bytes. `reference` returns the prediction that is
    right for one record. `schema` is the version and digest of the task's output schema; write any text first: the test
    that fails shows the right one.
    """

    task: Task
    model: Path
    records: list[dict[str, Any]]
    params: dict[str, Any]
    reference: Callable[[dict[str, Any]], dict[str, Any]]
    schema: str


@dataclass
class InProcess:
    """A deployment in one process: submission, planning, shards and manifest, one call at a time."""

    settings: Settings

    def __post_init__(self) -> None:
        self.storage = Storage()
        self.catalog = Catalog(self.settings.catalog_uri, self.storage)
        self.submitter = Submitter(self.catalog, embedded=False)
        self.state = State(self.settings)
        self.broker = Broker(make_app(self.settings, "test"))
        self.process = Process(self.settings, self.broker)
        self.control = Control(self.settings, self.state, self.broker, self.storage, "control")

    def accept(self, spec: JobSpec) -> AcceptedJob:
        """Write a job that Redis doesn't know yet."""
        checked = validate(spec, self.storage, self.settings)
        return self.submitter.create(new_job(checked.spec, checked.model, layout=self.settings.layout)).job

    def submit(self, spec: JobSpec) -> AcceptedJob:
        """Write a job and enter it in Redis."""
        job = self.accept(spec)
        enqueue(job, self.state, self.broker)
        return job

    def run(self, spec: JobSpec) -> Manifest:
        """Run a whole job. Redis must have no other."""
        job = self.submit(spec)
        self.control.plan_job(job.id, job.output)
        while run_next(job.spec.task, self.process) is not None:
            pass
        return self.finish(job)

    def finish(self, job: AcceptedJob) -> Manifest:
        """End a job that runs no more shards."""
        self.control.finish_job(job.id, job.output)
        manifest = self.catalog.folder(job.output).read_manifest()
        assert manifest is not None, f"job {job.id} has not ended"
        return manifest


@contextmanager
def private_settings() -> Iterator[Settings]:
    """Settings with a Redis and a home of their own, for as long as the context lasts."""
    with (
        tempfile.TemporaryDirectory(prefix="nightshift-") as home,
        private_redis(redis_server(), Path(home) / "redis.log") as server,
    ):
        server.wait_until_up()
        yield Settings.read(home=home, redis_url=server.url)


@pytest.fixture(scope="module")
def nightshift_settings() -> Iterator[Settings]:
    """Settings with a Redis and a home of their own, for the tests of a file."""
    with private_settings() as settings:
        yield settings


def run_case(case: Case, settings: Settings, folder: Path, records: list[dict[str, Any]], **changes: Any) -> list[Any]:
    """Run a job over these records in `folder`, its spec with `changes`. Return the output rows."""
    source = folder / "in.parquet"
    kinds = {column.name: column.kind for column in case.task.columns}
    types = pa.schema([(name, _STORED[kinds.get(name, Kind.TEXT)]) for name in records[0]])
    rows = [{name: _stored(value) for name, value in record.items()} for record in records]
    pq.write_table(pa.Table.from_pylist(rows, types), source, row_group_size=50)
    spec = {
        "task": case.task.id,
        "model": str(case.model),
        "input": {"uri": str(source)},
        "output": {"uri": f"{folder}/out"},
        "params": case.params,
    }
    manifest = InProcess(settings).run(parse_spec(spec | changes))
    assert manifest.status is JobStatus.SUCCEEDED, manifest.error
    written: list[Any] = ds.dataset(f"{folder}/out", format="parquet").to_table().to_pylist()
    return written


def _stored(value: Any) -> Any:
    return {"bytes": value, "path": None} if isinstance(value, bytes) else value


def close(one: Any, other: Any, tolerance: float = 1e-4) -> bool:
    """Return whether two predictions are equal, with a tolerance for each floating-point number in them."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=0, abs_tol=tolerance)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(close(a, b, tolerance) for a, b in zip(one, other, strict=True))
    return bool(one == other)


@pytest.mark.parametrize("batch_size", [1, 3, 32, "auto"])
def test_same_answer_as_the_reference_whatever_the_batch(
    case: Case, nightshift_settings: Settings, tmp_path: Path, batch_size: Any
) -> None:
    rows = run_case(case, nightshift_settings, tmp_path, case.records, batch_size=batch_size, shard={"rows": 70})
    for record, row in zip(case.records, rows, strict=True):
        assert row["error"] is None, (record, row)
        assert close(row["prediction"], case.reference(record)), (record, row)


def test_same_answer_in_any_order(case: Case, nightshift_settings: Settings, tmp_path: Path) -> None:
    order = list(case.records)
    random.Random(3).shuffle(order)
    for record, row in zip(order, run_case(case, nightshift_settings, tmp_path, order), strict=True):
        assert close(row["prediction"], case.reference(record)), (record, row)


def test_a_null_is_an_error_row_in_its_place(case: Case, nightshift_settings: Settings, tmp_path: Path) -> None:
    """It changes nothing for its neighbours, and there is one output row for each input row."""
    first = next(iter(case.records[0]))
    records = [record | {first: None} if i % 7 == 3 else record for i, record in enumerate(case.records)]
    rows = run_case(case, nightshift_settings, tmp_path, records)
    assert [row["source_row"] for row in rows] == list(range(len(records)))
    for record, row in zip(records, rows, strict=True):
        if record[first] is None:
            assert (row["prediction"], row["error"]["code"]) == (None, "null_input")
        else:
            assert close(row["prediction"], case.reference(record))


def test_an_output_schema_changes_only_with_its_version(case: Case) -> None:
    digest = hashlib.sha256(json.dumps(_described(case.task.prediction)).encode()).hexdigest()[:12]
    current = f"{case.task.version}:{digest}"
    rule = "the output schema is new or was changed: increase the task's version if it was changed, then write this"
    assert current == case.schema, f"{rule}: {current!r}"


def _described(arrow: pa.DataType) -> object:
    """Return a type as JSON, with the metadata of its fields."""
    if not arrow.num_fields:
        return str(arrow)
    fields = [arrow.field(i) for i in range(arrow.num_fields)]
    return {
        f.name: [_described(f.type), {k.decode(): v.decode() for k, v in (f.metadata or {}).items()}] for f in fields
    }
