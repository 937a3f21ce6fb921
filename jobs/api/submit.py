"""How is a job submitted? It is durable before it is answered, and there is one for each idempotency key."""

from typing import Annotated, Any

from fastapi import APIRouter, Response

from jobs.api.deadline import Deadline, DeadlineExceeded
from jobs.api.dependencies import Asked, Submitting
from jobs.api.problems import BadRequest, answers
from jobs.api.request_body import Body, key_header
from jobs.api.responses import PlanView, Submitted
from jobs.api.thread_pools import in_pool
from jobs.planning.planner import planned, shard_limits
from jobs.planning.unseen import series_of, unseen_in
from jobs.state import State
from jobs.submission.accept import Accepted, Found, new_job
from jobs.submission.rights import check_reach, job_of_token
from jobs.submission.validate import Validated, check_paths, validate, with_full_uris
from schemas.errors import AccessDenied, Permanent, SpecError
from schemas.job import AcceptedJob, JobSpec, parse_spec

router = APIRouter(tags=["jobs"])

#: Seconds that a dry run counts the input for, and that a request looks for the first file of an input.
PLAN_S = 30.0
LOOK_S = 20.0

_SPEC = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": "JobSpec"}}}}}
_KEY = key_header("Any text of your own, such as a UUID: sent again with the same spec it gives the same job.")


@router.post("/v1/jobs", status_code=202, responses=answers(400, 413, 415, 422), openapi_extra=_SPEC)
@in_pool("submit")
def submit(
    asked: Submitting, body: Body, response: Response, idempotency_key: Annotated[str | None, _KEY] = None
) -> Submitted:
    """Submit a job. Answered only once the job is durable: from then on it runs, whatever becomes of this server."""
    spec = _spec(asked, body)
    # Asked first: nothing is written for a job that could not be handed to workers.
    asked.service.ask(lambda state: state.ping())
    try:
        accepted = asked.service.submitter_for(asked.who).accept(spec, lambda: _new(asked, spec), idempotency_key)
    except AccessDenied as error:
        raise SpecError.of("output.uri", error.message) from None
    response.headers["Location"] = f"/v1/jobs/{accepted.job.id}"
    return asked.service.enter(accepted)


def _new(asked: Asked, spec: JobSpec) -> AcceptedJob:
    """Return a new job of the spec. Raise SpecError if it isn't valid, TooManyRequests above the tenant's quota."""
    service, who = asked.service, asked.who
    checked = _validated(asked, spec)
    service.check_quota(who)
    rights, layout = service.rights_of(who), service.settings.layout
    if rights is None:
        return new_job(checked.spec, checked.model, layout=layout)
    return job_of_token(checked, rights, layout)


@router.post("/v1/jobs:plan", responses=answers(400, 413, 415, 422), openapi_extra=_SPEC)
@in_pool("read")
def plan(asked: Submitting, body: Body) -> PlanView:
    """Validate a job and count its shards, records and bytes. Queues and writes nothing.

    The time is the deployment's, at the speed last measured for this task and model.
    """
    service = asked.service
    spec = _spec(asked, body)
    checked = _validated(asked, spec)
    there = _there(asked, spec)
    rate = service.ask(lambda state: state.jobs.rate(spec.task, spec.model))
    limits = shard_limits(spec, rate, service.settings.max_shards)
    count = rows = size = 0
    skipped: dict[str, int] = {}
    complete, over = True, Deadline(PLAN_S)
    series = series_of(checked.spec, service.storage)
    unseen = None if series is None else unseen_in(series, checked.spec, checked.model)
    try:
        made = planned(
            checked.spec, checked.columns, service.storage, service.settings_for(asked.who), limits, over.check, unseen
        )
        skipped = made.skipped
        for shard in made.shards:
            count, rows, size = count + 1, rows + shard.rows, size + shard.bytes
    except DeadlineExceeded:
        complete = False
    except Permanent as error:
        raise SpecError.of("input", error.message) from None
    group = spec.task_schema.group
    processes = service.ask(lambda state: _processes(state, group))
    return PlanView(
        shards=count,
        records=rows,
        bytes=size,
        skipped=skipped,
        series=None if unseen is None else unseen.run,
        complete=complete,
        records_per_s=rate,
        seconds=rows / (rate * max(1, min(processes, count))) if rate else None,
        found=(there.found if there else Found.NOTHING).value,
    )


def _processes(state: State, group: str) -> int:
    return sum(worker.processes for worker in state.workers.alive() if group in worker.groups)


def _spec(asked: Asked, body: Any) -> JobSpec:
    """Return the spec as this principal may submit it. Raise SpecError if they may not."""
    if body is None:
        raise BadRequest("there is no body: send a job spec as JSON")
    spec = parse_spec(body)
    check_paths(spec, asked.service.settings)
    spec = with_full_uris(spec)
    labels = dict(spec.labels)
    tenant = asked.who.tenant
    if labels.get("tenant", tenant) != tenant and not asked.who.sees(labels["tenant"]):
        raise SpecError.of("labels.tenant", f"the token is of tenant {tenant!r}; leave this label out")
    if tenant:
        labels.setdefault("tenant", tenant)
    check_reach(spec, asked.service.settings_for(asked.who))
    return spec.model_copy(update={"labels": labels})


def _validated(asked: Asked, spec: JobSpec) -> Validated:
    try:
        return validate(spec, asked.service.storage, asked.service.settings_for(asked.who), Deadline(LOOK_S).check)
    except AccessDenied as error:
        raise SpecError.of("input.uri", error.message) from None
    except DeadlineExceeded:
        raise SpecError.of(
            "input.uri", f"no file was found within {LOOK_S:.0f} s of listing; name a narrower prefix or files"
        ) from None


def _there(asked: Asked, spec: JobSpec) -> Accepted | None:
    """Return the job of this spec that has the output already. Raise SpecError if another job has it."""
    try:
        return asked.service.submitter_for(asked.who).find(spec)
    except AccessDenied as error:
        raise SpecError.of("output.uri", error.message) from None
