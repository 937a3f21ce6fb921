"""Which jobs are there, and how far is each? The newest first, page by page."""

import logging
from bisect import bisect_left
from datetime import datetime
from typing import Annotated, get_args

from fastapi import APIRouter, Query

from jobs.api.dependencies import Asked, Reading
from jobs.api.problems import answers
from jobs.api.responses import JobPage, JobView, Status
from jobs.api.thread_pools import in_pool
from jobs.logs import event
from jobs.parallel_map import parallel_map
from jobs.storage.catalog import JOB_ID
from schemas.errors import NotFound, Permanent, SpecError
from schemas.job import AcceptedJob

_log = logging.getLogger(__name__)
router = APIRouter(tags=["jobs"])

#: Jobs that one request reads: a page ends there if few jobs pass its filter.
MOST_READ = 500
_READERS = 16

_TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$"


@router.get("/v1/jobs", responses=answers(422))
@in_pool("read")
def jobs(
    asked: Reading,
    status: Annotated[list[Status] | None, Query(description="One or more.")] = None,
    task: Annotated[str | None, Query(description="A task's id.")] = None,
    label: Annotated[list[str] | None, Query(description="`team:search`; all of them must be there.")] = None,
    since: Annotated[str | None, Query(pattern=_TIME, description="Accepted at this time or later.")] = None,
    until: Annotated[str | None, Query(pattern=_TIME, description="Accepted before this time.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(pattern=f"^{JOB_ID.pattern}$", description="`next` of a page.")] = None,
) -> JobPage:
    """Jobs, newest first, page by page."""
    wanted = _Filter(status or [], task, label or [], _time(since, "since"), _time(until, "until"))
    ids = asked.service.index.of(asked.who)
    stop = len(ids) if cursor is None else bisect_left(ids, cursor)
    candidates = ids[max(0, stop - MOST_READ) : stop][::-1]

    def read(id: str) -> tuple[str, JobView | None]:
        return id, _view(asked, id, wanted)

    found: list[JobView] = []
    last = None
    for id, view in parallel_map(read, candidates, _READERS):
        last = id
        if view is not None:
            found.append(view)
        if len(found) == limit:
            break
    more = last is not None and ids[0] != last
    return JobPage(jobs=found, next=last if more else None)


class _Filter:
    def __init__(
        self, status: list[Status], task: str | None, labels: list[str], since: datetime | None, until: datetime | None
    ) -> None:
        assert set(status) <= set(get_args(Status))
        self.status = status
        self._task = task
        self._labels = [_label(label) for label in labels]
        self._since = since
        self._until = until

    def passes(self, job: AcceptedJob) -> bool:
        return (
            (self._task is None or job.spec.task == self._task)
            and all(job.spec.labels.get(name) == value for name, value in self._labels)
            and (self._since is None or job.accepted_at >= self._since)
            and (self._until is None or job.accepted_at < self._until)
        )


def _view(asked: Asked, id: str, wanted: _Filter) -> JobView | None:
    """Return the job if it passes the filter. A job that was never accepted, or can't be read, is left out."""
    try:
        job = asked.service.job(id, asked.who)
        if not wanted.passes(job):
            return None
        view = asked.service.view(job)
    except NotFound:
        return None
    except Permanent as error:
        event(_log, "job_not_listed", logging.WARNING, job=id, error=error.message)
        return None
    return view if not wanted.status or view.status in wanted.status else None


def _label(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise SpecError.of("label", f"{text!r} is not of the form NAME:VALUE")
    return name, value


def _time(text: str | None, field: str) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise SpecError.of(field, f"{text!r} is no time: {error}") from None
