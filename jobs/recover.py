"""Recovery: what a job has done, read from storage alone, and a job taken up again from there."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from jobs.storage import ObjectInfo, Storage
from jobs.storage.job_folder import list_parts
from jobs.storage.parts import read_report
from schemas.errors import Permanent
from schemas.report import ShardReport

_READERS = 32


@dataclass(frozen=True)
class Committed:
    """The shards of a job whose parts are in storage."""

    shards: list[int]
    rows: int
    errors: dict[str, int]


def committed(output: str, storage: Storage) -> Committed:
    """What is done of the job at this location. Raises Permanent where a file has a part's name and isn't one."""
    shards: list[int] = []
    rows = 0
    errors: dict[str, int] = {}
    for info, report in read_reports(output, storage):
        if report is None:
            raise Permanent(f"{info.uri} was not written by Nightshift; move it away", code="foreign_part")
        shards.append(report.shard)
        rows += report.rows
        for code, count in report.errors.items():
            errors[code] = errors.get(code, 0) + count
    return Committed(shards, rows, errors)


def read_reports(output: str, storage: Storage) -> Iterator[tuple[ObjectInfo, ShardReport | None]]:
    """Each part of a job, in order, with the report in its footer; None for a file that isn't ours."""

    def read(info: ObjectInfo) -> tuple[ObjectInfo, ShardReport | None]:
        try:
            return info, read_report(info, storage)
        except Permanent:
            return info, None

    with ThreadPoolExecutor(_READERS, thread_name_prefix="report") as pool:
        parts = (info for _, info in list_parts(output, storage))
        yield from pool.map(read, parts)
