"""Recovery: what a job has done, read from storage alone, and a job taken up again from there."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from jobs.files import list_parts
from jobs.storage import ObjectInfo, Storage
from jobs.storage.parts import read_report
from schemas.report import ShardReport

_READERS = 32


@dataclass(frozen=True)
class Committed:
    """The shards of a job whose parts are in storage."""

    shards: list[int]
    rows: int
    errors: dict[str, int]


def committed(output: str, storage: Storage) -> Committed:
    """What is done of the job at this location."""
    shards: list[int] = []
    rows = 0
    errors: dict[str, int] = {}
    for _, report in read_reports(output, storage):
        shards.append(report.shard)
        rows += report.rows
        for code, count in report.errors.items():
            errors[code] = errors.get(code, 0) + count
    return Committed(shards, rows, errors)


def read_reports(output: str, storage: Storage) -> Iterator[tuple[ObjectInfo, ShardReport]]:
    """Each part of a job, in order, with the report in its footer. Raises Permanent for a part that has none."""
    with ThreadPoolExecutor(_READERS, thread_name_prefix="report") as pool:
        parts = (info for _, info in list_parts(output, storage))
        yield from pool.map(lambda info: (info, read_report(info, storage)), parts)
