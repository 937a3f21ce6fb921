"""A job's progress as server-sent events: one whenever it changes, and a last one when the job has ended.

FastAPI frames the events, and sends a comment after 15 s of silence, so that no proxy takes the stream for dead.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from jobs.api.dependencies import Reading
from jobs.api.jobs import Id
from jobs.api.problems import answers
from jobs.api.responses import JobView
from schemas.errors import NightshiftError, TooManyRequests
from schemas.job import AcceptedJob

router = APIRouter(tags=["jobs"])

POLL_S = 0.5
#: Seconds after which a stream ends and its reader comes back: a token may have been revoked meanwhile.
LONGEST_S = 3600.0
#: Streams of a tenant at once, of one server.
MAX_STREAMS = 100

_JOB = {"$ref": "#/components/schemas/JobView"}
#: What `schema` says of a stream is said of each of its events, before OpenAPI 3.2.
_EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "event": {"enum": ["progress", "end"]},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": _JOB},
    },
    "required": ["event", "data"],
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events `progress` and, last, `end`; the data of each is a job as `GET /v1/jobs` lists it.",
        "content": {"text/event-stream": {"schema": _EVENT}},
    }
}


async def _followed(asked: Reading, id: Id, response: Response) -> AsyncIterator[AcceptedJob]:
    """Yield the job to follow, for as long as it is followed.

    Raise NotFound or TooManyRequests before the stream begins: a problem document can still be sent then.
    """
    response.headers["Cache-Control"] = "no-store"
    job = await asked.service.find(id, asked.who)
    streams, tenant = asked.service.streams, asked.who.tenant
    if asked.who.token_id and streams[tenant] >= MAX_STREAMS:
        raise TooManyRequests(f"you follow {MAX_STREAMS} jobs already: end some, or ask for their progress", 30)
    streams[tenant] += 1
    try:
        yield job
    finally:
        streams[tenant] -= 1


Followed = Annotated[AcceptedJob, Depends(_followed)]


@router.get("/v1/jobs/{id}/events", responses=_STREAM | answers(404), response_class=EventSourceResponse)
async def events(asked: Reading, job: Followed, request: Request) -> AsyncIterator[ServerSentEvent]:
    """Follow a job: `progress` whenever it changes, and `end`, after which the stream ends.

    A reader that comes back gets the job as it stands then; nothing need be sent again.
    """
    shutdown: asyncio.Event = request.app.state.shutdown
    begun = time.monotonic()
    last: JobView | None = None
    yield ServerSentEvent(retry=2000)
    while not shutdown.is_set() and time.monotonic() - begun < LONGEST_S:
        try:
            view: JobView | None = await asked.service.coalesced_view(job, asked.who)
        except NightshiftError:  # a store is away for a moment: the next query may go well
            view = last
        if view is not None and view.end is not None:
            yield ServerSentEvent(event="end", data=view)
            return
        if view is not None and view != last:
            yield ServerSentEvent(event="progress", data=view)
            last = view
        try:
            await asyncio.wait_for(shutdown.wait(), POLL_S)
        except TimeoutError:
            continue
