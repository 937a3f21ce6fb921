"""How far is one job, and what can be done to it?"""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from fastapi.responses import Response as Plain

from jobs.api.dependencies import Asked, Reading, Submitting
from jobs.api.problems import Conflict, answers
from jobs.api.request_body import Body, optional_text
from jobs.api.responses import JobDetail, Submitted
from jobs.api.thread_pools import in_pool
from jobs.settings import Settings
from jobs.state import State
from jobs.storage.base import is_path, normalized
from jobs.submission.accept import check_store, enqueue
from jobs.submission.cancel import cancel_job
from jobs.submission.retry import accept_retry, nothing_to_retry
from schemas.errors import NotFinished, SpecError
from schemas.job import AcceptedJob
from schemas.manifest import Manifest
from schemas.redaction import shown

router = APIRouter(tags=["jobs"])

Id = Annotated[str, Path(description="A job's id.", examples=["20261120-031500-k3v9x2"])]


@router.get("/v1/jobs/{id}", responses=answers(404))
async def job(asked: Reading, id: Id) -> JobDetail:
    """A job, and how far it is. While Redis is away, what storage knows of it."""
    found = await asked.service.find(id, asked.who)
    return JobDetail.with_spec(await asked.service.coalesced_view(found, asked.who), found)


def _changed(asked: Asked, id: str, change: Callable[[State, AcceptedJob], bool], otherwise: str) -> JobDetail:
    """Change a job and return it. Raise Conflict if it has ended, and with `otherwise` if nothing could be changed."""
    service = asked.service
    found = service.job(id, asked.who)
    service.check_unfinished(found)
    if not service.ask(lambda state: change(state, found)):
        raise Conflict(f"job {id} {otherwise}")
    return service.detail(found)


@router.post("/v1/jobs/{id}:cancel", status_code=202, responses=answers(404, 409))
@in_pool("quick")
def cancel(asked: Submitting, id: Id) -> JobDetail:
    """Stop a job. Workers leave it at their next batch; the parts that are done stay, named by its manifest."""

    service = asked.service

    def stop(state: State, job: AcceptedJob) -> bool:
        return cancel_job(job.id, job.output, service.catalog, state, service.broker)

    return _changed(asked, id, stop, "is not under way, or is being stopped already")


@router.post("/v1/jobs/{id}:pause", status_code=202, responses=answers(404, 409))
@in_pool("quick")
def pause(asked: Submitting, id: Id) -> JobDetail:
    """Hold a job back: no more of its shards are handed out. Those that workers have in hand are finished."""
    return _changed(asked, id, lambda state, job: state.jobs.pause(job.id), "is not under way")


@router.post("/v1/jobs/{id}:continue", status_code=202, responses=answers(404, 409))
@in_pool("quick")
def continue_(asked: Submitting, id: Id) -> JobDetail:
    """Let a paused job go on."""

    def go_on(state: State, job: AcceptedJob) -> bool:
        paused = state.jobs.resume(job.id)
        if paused:
            asked.service.broker.release(state, job.spec.task_schema)
        return paused

    return _changed(asked, id, go_on, "is not paused")


@router.post("/v1/jobs/{id}:resume", status_code=202, responses=answers(404, 409))
@in_pool("quick")
def resume(asked: Submitting, id: Id) -> JobDetail:
    """Go on with a job that Redis has forgotten: only what is missing is run. One under way goes on as it is."""

    def enter(state: State, job: AcceptedJob) -> bool:
        check_store(job, asked.service.folder(job))
        enqueue(job, state, asked.service.broker)
        return True  # one that Redis knows goes on as it is

    return _changed(asked, id, enter, "")


_RETRY = optional_text("output", minLength=1, description="Where the answers go; by default beside the job's own.")


@router.post(
    "/v1/jobs/{id}:retry", status_code=202, responses=answers(400, 404, 409, 413, 415, 422), openapi_extra=_RETRY
)
@in_pool("submit")
def retry(asked: Submitting, id: Id, body: Body, response: Response) -> Submitted:
    """Run the records of an ended job that have an error once more, and what it lost, as a job of its own."""
    service = asked.service
    output = _retry_output(body, service.settings)
    parent = service.job(id, asked.who)
    manifest = service.folder(parent).read_manifest()
    if manifest is not None and nothing_to_retry(manifest):
        raise Conflict(f"nothing to retry: every record of job {id} has an answer")
    service.ask(lambda state: state.ping())
    service.check_quota(asked.who)
    accepted = accept_retry(parent, output, service.submitter_for(asked.who), service.settings_for(asked.who))
    response.headers["Location"] = f"/v1/jobs/{accepted.job.id}"
    return service.enter(accepted)


def _retry_output(body: Any, settings: Settings) -> str | None:
    if body is None:
        return None
    if not isinstance(body, dict) or set(body) - {"output"}:
        raise SpecError.of("", "the body is an object with 'output' alone, or nothing")
    output = body.get("output")
    if "output" in body and (not isinstance(output, str) or not output):
        raise SpecError.of("output", f"{shown(output)} is no location")
    if output is None:
        return None
    if is_path(output):
        settings.check_path(output, "output")
    return normalized(output, "output")


@router.get(
    "/v1/jobs/{id}/manifest",
    response_model=Manifest,
    responses=answers(404, 409),
)
@in_pool("read")
def manifest(asked: Reading, id: Id) -> Plain:
    """`_manifest.json` as it stands: how the job ended, and its parts."""
    found = asked.service.job(id, asked.who)
    if asked.service.end(found) is None:
        raise NotFinished(f"job {id} has not ended: it has no manifest yet")
    return Plain(asked.service.folder(found).manifest_bytes(), media_type="application/json")
