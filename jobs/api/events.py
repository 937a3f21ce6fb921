"""A job's progress as server-sent events: one whenever it changes, and a last one when the job has ended."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from jobs.api.jobs import Id
from jobs.api.problems import answers
from jobs.api.service import Asked, Reading
from jobs.api.shapes import JobView
from schemas.errors import NightshiftError
from schemas.job import AcceptedJob

router = APIRouter(tags=["jobs"])

POLL_S = 0.5
#: Seconds of silence after which a comment is sent, so that no proxy takes the stream for dead.
HEARTBEAT_S = 15.0
#: Seconds after which a stream ends and its reader comes back: a token may have been revoked meanwhile.
LONGEST_S = 3600.0

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


@router.get("/v1/jobs/{id}/events", responses=_STREAM | answers(404), response_class=StreamingResponse)
async def events(asked: Reading, id: Id, request: Request) -> StreamingResponse:
    """Follow a job: `progress` whenever it changes, and `end`, after which the stream ends.

    A reader that comes back gets the job as it stands then; nothing need be sent again.
    """
    found = await asked.service.find(id, asked.who)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    stream = _stream(asked, found, request)
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _stream(asked: Asked, job: AcceptedJob, request: Request) -> AsyncIterator[str]:
    shutdown: asyncio.Event = request.app.state.shutdown
    begun = said = time.monotonic()
    last = ""
    yield "retry: 2000\n\n"
    while not shutdown.is_set() and time.monotonic() - begun < LONGEST_S:
        try:
            view: JobView | None = await asked.service.look(job, asked.who)
        except NightshiftError:  # a store is away for a moment: the next look may go well
            view = None
        data = view.model_dump_json() if view is not None else last
        if view is not None and view.end is not None:
            yield f"event: end\ndata: {data}\n\n"
            return
        if data != last:
            yield f"event: progress\ndata: {data}\n\n"
            last, said = data, time.monotonic()
        elif time.monotonic() - said > HEARTBEAT_S:
            yield ": still here\n\n"
            said = time.monotonic()
        try:
            await asyncio.wait_for(shutdown.wait(), POLL_S)
        except TimeoutError:
            continue
