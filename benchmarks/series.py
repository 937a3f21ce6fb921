"""Series: what ten million entries cost. CPU seconds a million and the most memory, each step in a process of its own.

The objects are made up and in no store; plans, parts and the series' files are real, in a local folder.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.planning.parquet_footers import Footer, read_footer
from jobs.planning.planner import Limits, plan_objects, plan_shards
from jobs.planning.unseen import series_of, unseen_in, with_keys
from jobs.storage import ObjectInfo, Storage
from jobs.storage.annotated import annotated_by, annotation_of
from jobs.storage.job_folder import JobFolder
from jobs.storage.series import RunFile
from jobs.submission.accept import new_job
from schemas.job import AcceptedJob, ResolvedModel, parse_spec
from schemas.layout import part_name
from schemas.manifest import JobStatus, Manifest, Part
from schemas.plan import NO_COLUMNS, Planned

ENTRIES = 10_000_000
#: Entries of a shard, and files of keys.
SHARD, FILES = 10_000, 100
#: What is required: CPU seconds a million, and MiB.
CPU_S, MEMORY_MB = 60.0, 1024


def main() -> bool:
    found: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory(prefix="nightshift-series-") as folder:
        for step in STEPS:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.series", step, folder], check=True, capture_output=True, text=True
            )
            cpu, memory = map(float, done.stdout.split())
            if step not in PREPARES:
                found[step.replace("_", " ")] = cpu, memory
    from benchmarks.inputs import tell  # imports torch: a child's greatest size would begin with this process's own

    for name, (cpu, memory) in found.items():
        tell(f"{name}: CPU a million entries", f"{cpu:.1f} s", f"{CPU_S:.0f} s", cpu <= CPU_S)
        tell(f"{name}: memory", f"{memory:,.0f} MiB", f"{MEMORY_MB:,} MiB", memory <= MEMORY_MB)
    return all(cpu <= CPU_S and memory <= MEMORY_MB for cpu, memory in found.values())


def job_of(folder: Path, key: str | None) -> AcceptedJob:
    """A job of a series of objects, or of rows with a key."""
    spec = {
        "task": "text-classification" if key else "image-classification",
        "model": "m",
        "input": {"uri": f"{folder}/in/"},
        "output": {"uri": f"{folder}/out-{key}/"},
        "incremental": {"series": f"{folder}/series-{key}/", "key": key},
    }
    return new_job(parse_spec(spec), ResolvedModel(source="m", kind="hub", revision="r"))


def objects(start: int = 0) -> Iterator[ObjectInfo]:
    for number in range(start, start + ENTRIES):
        yield ObjectInfo(f"s3://raw/photos/2026/{number:08d}.jpg", 100_000, f'"{number:032x}"')


def manifest_of(job: AcceptedJob, shards: int) -> Manifest:
    parts = [
        Part(name=part_name(shard, shards), shard=shard, rows=SHARD, bytes=1, etag="e", error_rows=0)
        for shard in range(shards)
    ]
    return Manifest(
        job=job.id, status=JobStatus.SUCCEEDED, error=None, task=job.spec.task, prediction_version=1, model=job.model,
        accepted_at=job.accepted_at, ended_at=datetime.now(UTC), shards=shards, rows=ENTRIES, error_rows=0, errors={},
        parts=parts, lost=[], seconds={}, versions={},
    )  # fmt: skip


def plan(folder: Path) -> None:
    """Write the plan of so many objects."""
    job = job_of(folder, None)
    shards = plan_objects(objects(), Limits(SHARD, 1 << 50))
    JobFolder.of(job, Storage()).write_plan(Planned(NO_COLUMNS, shards, {}), "benchmark")


def record_objects(folder: Path) -> None:
    _record(job_of(folder, None), ENTRIES // SHARD)


def leave_out_objects(folder: Path) -> None:
    """Half of the objects are new."""
    job, storage = job_of(folder, None), Storage()
    series = series_of(job.spec, storage)
    assert series is not None
    unseen = unseen_in(series, job.spec, job.model)
    found = sum(1 for _ in unseen.objects(objects(ENTRIES // 2), Counter()))
    assert found == ENTRIES // 2


def write_keys(folder: Path) -> None:
    """Write tables of keys, which stand for the input and for parts."""
    job = job_of(folder, "id")
    place = JobFolder.of(job, Storage()).part_uri("")
    Path(place).mkdir(parents=True)
    order = np.random.default_rng(1).permutation(ENTRIES)
    for number, keys in enumerate(np.array_split(order, FILES)):
        pq.write_table(pa.table({"id": keys}), place + part_name(number, FILES))


def record_keys(folder: Path) -> None:
    """The keys of the first half of the files."""
    _record(job_of(folder, "id"), FILES // 2)


def leave_out_keys(folder: Path) -> None:
    job, storage = job_of(folder, "id"), Storage()
    series = series_of(job.spec, storage)
    assert series is not None
    unseen = unseen_in(series, job.spec, job.model)

    def footers() -> Iterator[Footer]:
        for info in storage.list(JobFolder.of(job, storage).part_uri("")):
            yield with_keys(read_footer(storage, info, 1 << 30), "id", storage)

    shards = plan_shards(unseen.rows(footers(), Counter()), {"id"}, Limits(SHARD, 1 << 50))
    assert sum(shard.rows for shard in shards) == ENTRIES // 2


def _record(job: AcceptedJob, shards: int) -> None:
    storage = Storage()
    series = series_of(job.spec, storage)
    assert series is not None
    run = RunFile(job=job.id, output=job.output, annotation=annotation_of(job.spec, job.model))
    number = series.begin(run)
    series.record(number, run, annotated_by(job, manifest_of(job, shards), JobFolder.of(job, storage)))


#: Steps that make what the others read.
PREPARES = {"plan", "write_keys"}
STEPS: dict[str, Callable[[Path], None]] = {
    step.__name__: step for step in (plan, record_objects, leave_out_objects, write_keys, record_keys, leave_out_keys)
}


if __name__ == "__main__":
    before = time.process_time()
    STEPS[sys.argv[1]](Path(sys.argv[2]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"{(time.process_time() - before) / (ENTRIES / 1e6):.2f} {peak:.0f}\n")
