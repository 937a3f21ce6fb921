"""What did a job make? Rows as pages of JSON or as an Arrow stream, its errors, its shards."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, Literal

import pyarrow as pa
from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from jobs.api.dependencies import Reading
from jobs.api.jobs import Id
from jobs.api.problems import NotAcceptable, answers
from jobs.api.responses import ErrorPage, LostView, RowPage, ShardPage, ShardView, SliceView
from jobs.api.service import Service
from jobs.api.thread_pools import in_pool
from jobs.results.arrow_stream import ipc_stream, limited
from jobs.results.read import CURSOR, Place, batches_from, numbered, only_errors, page
from jobs.results.with_retries import batches_with_retries
from jobs.state import ShardsNow
from schemas.errors import ServiceUnavailable, SpecError
from schemas.job import AcceptedJob
from schemas.output import OwnColumns
from schemas.plan import Shard

router = APIRouter(tags=["results"])

ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
#: Slices of a shard, and lost shards, that an answer lists.
LISTED = 100

#: As text, since JSON Schema's booleans are `true` and `false` alone, and a query's would be more.
Flag = Literal["true", "false"]
Cursor = Annotated[str | None, Query(pattern=CURSOR, description="`next` of a page.")]

_ROWS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page of rows, or all of them from the cursor on as an Arrow IPC stream.",
        "content": {
            JSON: {"schema": {"$ref": "#/components/schemas/RowPage"}},
            ARROW: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.get("/v1/jobs/{id}/results", responses=_ROWS | answers(404, 406, 409, 422), response_model=RowPage)
@in_pool("read")
def results(
    asked: Reading,
    id: Id,
    limit: Annotated[
        int | None, Query(ge=1, le=100_000, description="Rows of a page, 100 by default; of a stream all by default.")
    ] = None,
    cursor: Cursor = None,
    errors: Annotated[Flag, Query(description="Only rows with an error.")] = "false",
    partial: Annotated[Flag, Query(description="Of a job that has not ended: the rows that are there.")] = "false",
    with_retries: Annotated[
        Flag, Query(description="With the answers of its retries in the places of errors. A late page is slow.")
    ] = "false",
    accept: Annotated[str, Header(description=f"`{JSON}` or `{ARROW}`.")] = JSON,
) -> Response | RowPage:
    """The job's rows in input order: `prediction`, `error`, where each came from, and the columns it kept."""
    service = asked.service
    if with_retries == "true" and partial == "true":
        raise SpecError.of("with_retries", "is for a job that has ended; partial for one that has not")
    found = service.job(id, asked.who)
    kind = _chosen(accept)
    place = Place.parse(cursor)
    only, own = errors == "true", OwnColumns.of(found.spec)
    if with_retries == "true":
        rows = numbered(batches_with_retries(found, service.catalog, errors_only=only), place.row)
    else:
        rows = batches_from(found, place, service.storage, partial=partial == "true", errors_only=only)
    if kind == JSON:
        made = page(rows, limit or 100, own if only and with_retries == "false" else None)
        return RowPage(rows=made.rows, next=None if made.next is None else str(made.next))
    batches: Iterator[pa.RecordBatch] = (batch for _, batch in rows)
    if only:
        batches = only_errors(batches, own)
    stream = ipc_stream(limited(batches, limit))
    # The first piece now: what is wrong with the job is an answer of its own, not a stream that breaks off.
    first = next(stream)
    return StreamingResponse(_chained(first, stream), media_type=ARROW)


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _chosen(accept: str) -> str:
    """Return the type of the answer: Arrow if it is named, or else JSON. Raise NotAcceptable if neither is accepted."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    if ARROW in kinds:
        return ARROW
    if {JSON, "application/*", "*/*", ""} & set(kinds):
        return JSON
    raise NotAcceptable(f"there is {JSON} and {ARROW}, not {accept!r}")


@router.get("/v1/jobs/{id}/errors", responses=answers(404, 409, 422))
@in_pool("read")
def errors(
    asked: Reading,
    id: Id,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Cursor = None,
    partial: Annotated[Flag, Query(description="Of a job that has not ended: what is there.")] = "false",
) -> ErrorPage:
    """What went wrong: error rows by code, shards without a part, and the rows themselves page by page."""
    service = asked.service
    found = service.job(id, asked.who)
    rows = batches_from(found, Place.parse(cursor), service.storage, partial=partial == "true", errors_only=True)
    made = page(rows, limit, OwnColumns.of(found.spec))
    manifest = service.folder(found).read_manifest()
    counts: dict[str, int] = {}
    if manifest is not None:
        counts = manifest.errors
    elif (progress := service.progress(found)[0]) is not None:
        counts = progress.errors
    lost = [
        LostView(
            shard=one.shard,
            error=one.error,
            slices=[SliceView(uri=s.uri, first_row=s.first_row, rows=s.rows) for s in one.slices[:LISTED]],
        )
        for one in (manifest.lost[:LISTED] if manifest is not None else [])
    ]
    return ErrorPage(errors=counts, lost=lost, rows=made.rows, next=None if made.next is None else str(made.next))


@router.get("/v1/jobs/{id}/shards", responses=answers(404, 422))
@in_pool("read")
def shards(
    asked: Reading,
    id: Id,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[int, Query(ge=0, le=2**31, description="`next` of a page.")] = 0,
) -> ShardPage:
    """The shards of a job's plan, in input order, each with its status. Empty until the job is planned."""
    service = asked.service
    found = service.job(id, asked.who)
    plan = service.folder(found).find_plan()
    if plan is None:
        return ShardPage(shards=[], next=None)
    wanted = list(islice(plan.shards(cursor), limit + 1))
    listed = wanted[:limit]
    now, away = _now(found, [shard.shard for shard in listed], service)
    views = [_shard_view(shard, now, away) for shard in listed]
    return ShardPage(shards=views, next=str(wanted[limit].shard) if len(wanted) > limit else None)


def _now(job: AcceptedJob, numbers: list[int], service: Service) -> tuple[ShardsNow, bool]:
    """Return how these shards stand, and whether Redis is away. The manifest says so, or else Redis, or the parts."""
    folder = service.folder(job)
    manifest = folder.read_manifest()
    if manifest is not None:
        done = {part.shard for part in manifest.parts}
        return ShardsNow(done, set(), {lost.shard: lost.error for lost in manifest.lost}), False
    try:
        return service.ask(lambda state: state.shards.now(job.id, numbers)), False
    except ServiceUnavailable:
        return ShardsNow({shard for shard, _ in folder.parts()}, set(), {}), True


def _shard_view(shard: Shard, now: ShardsNow, away: bool) -> ShardView:
    number = shard.shard
    status: Literal["waiting", "running", "done", "failed", "unknown"]
    if number in now.done:
        status = "done"
    elif number in now.failed:
        status = "failed"
    elif number in now.held:
        status = "running"
    else:
        status = "unknown" if away else "waiting"
    return ShardView(
        shard=number,
        status=status,
        records=shard.rows,
        bytes=shard.bytes,
        slices=[SliceView(uri=s.uri, first_row=s.source_row, rows=s.rows) for s in shard.slices[:LISTED]],
        error=now.failed.get(number),
    )
