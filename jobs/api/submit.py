"""Submitting: a spec becomes a job that is durable before it is answered, once for each idempotency key."""

import time
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from jobs import idempotency
from jobs.api.problems import BadRequest, answers
from jobs.api.request_body import Body
from jobs.api.responses import PlanView, Submitted
from jobs.api.service import Asked, Submitting
from jobs.api.thread_pools import in_lane
from jobs.planning.planner import planned, shard_limits
from jobs.settings import Settings
from jobs.state import State
from jobs.storage.base import normalized
from jobs.storage.job_folder import read_job
from jobs.submission.accept import Accepted, Found, accepted_job, check_output, found_job, write_accepted
from jobs.submission.resolve_model import model_kind
from jobs.submission.validate import Validated, check_locations, validate, with_full_uris
from schemas.errors import AccessDenied, Permanent, SpecError
from schemas.job import AcceptedJob, JobSpec, parse_spec

router = APIRouter(tags=["jobs"])

#: Seconds that a dry run counts the input for.
PLAN_S = 30.0

_SPEC = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": "JobSpec"}}}}}
_KEY = Header(
    min_length=1,
    max_length=255,
    pattern=r"^[\x21-\x7e]+$",
    description="Any text of your own, such as a UUID: sent again with the same spec it gives the same job.",
)


@router.post("/v1/jobs", status_code=202, responses=answers(400, 413, 415, 422), openapi_extra=_SPEC)
@in_lane("submit")
def submit(
    asked: Submitting, body: Body, response: Response, idempotency_key: Annotated[str | None, _KEY] = None
) -> Submitted:
    """Submit a job. Answered only once the job is durable: from then on it runs, whatever becomes of this server."""
    submission = _Submission(asked, _spec(asked, body), idempotency_key)
    # Asked first: where the job could be handed to nobody, nothing is written for it.
    asked.service.ask(lambda state: state.ping())
    accepted = submission.accept()
    response.headers["Location"] = f"/v1/jobs/{accepted.job.id}"
    return asked.service.enter(accepted)


@dataclass(frozen=True)
class _Submission:
    asked: Asked
    spec: JobSpec
    key: str | None

    def accept(self) -> Accepted:
        """The job, durable: the one that the key stands for, the one that is there, or a new one.

        Raises TooManyRequests where a new one would be above the tenant's quota.
        """
        storage, catalog = self.asked.service.storage, self.asked.service.settings.catalog_uri
        tenant = self.asked.who.tenant
        kept = None if self.key is None else idempotency.kept(tenant, self.key, storage, catalog)
        if kept is None:
            found = _there(self.asked, self.spec)
            if self.key is None:
                return self._written(self._new()) if found is None else found
            kept = idempotency.Kept(
                asked=idempotency.asked_for(self.spec), job=self._new() if found is None else found.job
            )
            kept = idempotency.keep(tenant, self.key, kept, storage, catalog)
        if kept.asked != idempotency.asked_for(self.spec):
            raise SpecError.of("Idempotency-Key", "this key was sent with another spec before; use a new one")
        there = read_job(kept.job.output, storage)
        if there is not None and there.id == kept.job.id:
            return found_job(there, storage)
        return self._written(kept.job)

    def _new(self) -> AcceptedJob:
        service, who = self.asked.service, self.asked.who
        checked = _validated(self.asked, self.spec)
        service.check_quota(who)
        allowed = service.settings_for(who).allowed_inputs
        job = accepted_job(checked)
        own: dict[str, Any] = {}
        if who.token_id:
            # `*` of a token is all that the settings allow, and local files only where these do.
            own["accepted_by"] = f"token {who.token_id}"
            files = service.settings.allow_files
            own["allowed_inputs"] = ("*" if files else "s3://",) if "*" in allowed else tuple(allowed)
        return job.model_copy(update=own)

    def _written(self, job: AcceptedJob) -> Accepted:
        service = self.asked.service
        try:
            there = write_accepted(job, service.storage, service.settings)
        except AccessDenied as error:
            raise SpecError.of("output.uri", error.message) from None
        if there.id == job.id:
            return Accepted(there, Found.NOTHING, None)
        found = _there(self.asked, self.spec)
        assert found is not None
        return found


@router.post("/v1/jobs:plan", responses=answers(400, 413, 415, 422), openapi_extra=_SPEC)
@in_lane("read")
def plan(asked: Submitting, body: Body) -> PlanView:
    """Validate a job and count its shards, records and bytes. Queues and writes nothing.

    The time is the deployment's, at the speed last measured for this task and model.
    """
    service = asked.service
    spec = _spec(asked, body)
    checked = _validated(asked, spec)
    there = _there(asked, spec)
    rate = service.ask(lambda state: state.jobs.rate(spec.task, spec.model))
    try:
        made = planned(
            checked.spec, checked.columns, service.storage, service.settings_for(asked.who), shard_limits(spec, rate)
        )
        count = rows = size = 0
        complete, begun = True, time.monotonic()
        for shard in made.shards:
            count, rows, size = count + 1, rows + shard.rows, size + shard.bytes
            if time.monotonic() - begun > PLAN_S:
                complete = False
                break
    except Permanent as error:
        raise SpecError.of("input", error.message) from None
    group = spec.task_schema.group
    processes = service.ask(lambda state: _processes(state, group))
    return PlanView(
        shards=count,
        records=rows,
        bytes=size,
        skipped=made.skipped,
        complete=complete,
        records_per_s=rate,
        seconds=rows / (rate * max(1, min(processes, count))) if rate else None,
        found=(there.found if there else Found.NOTHING).value,
    )


def _processes(state: State, group: str) -> int:
    return sum(worker.processes for worker in state.workers.alive() if group in worker.groups)


def _spec(asked: Asked, body: Any) -> JobSpec:
    """The spec as this principal may ask for it. Raises SpecError."""
    if body is None:
        raise BadRequest("there is no body: send a job spec as JSON")
    spec = with_full_uris(parse_spec(body))
    labels = dict(spec.labels)
    tenant = asked.who.tenant
    if labels.get("tenant", tenant) != tenant and not asked.who.sees(labels["tenant"]):
        raise SpecError.of("labels.tenant", f"the token is of tenant {tenant!r}; leave this label out")
    if tenant:
        labels.setdefault("tenant", tenant)
    narrowed = asked.service.settings_for(asked.who)
    check_locations(spec, narrowed)
    _check_model(spec, narrowed)
    return spec.model_copy(update={"labels": labels})


def _check_model(spec: JobSpec, settings: Settings) -> None:
    """A model in a bucket is read as the input is; the settings' own list of models may allow it beside."""
    if model_kind(spec.model) == "hub" or "*" not in settings.allowed_models:
        return
    settings.check_allowed(normalized(spec.model, "model").rstrip("/") + "/", settings.allowed_inputs, "model")


def _validated(asked: Asked, spec: JobSpec) -> Validated:
    try:
        return validate(spec, asked.service.storage, asked.service.settings_for(asked.who))
    except AccessDenied as error:
        raise SpecError.of("input.uri", error.message) from None


def _there(asked: Asked, spec: JobSpec) -> Accepted | None:
    """The job of this spec that has the output already. Raises SpecError where another one has."""
    try:
        return check_output(spec, asked.service.storage, asked.who.sees)
    except AccessDenied as error:
        raise SpecError.of("output.uri", error.message) from None
