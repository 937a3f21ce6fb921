"""Which job specs run by the clock, and what became of their runs?"""

from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from jobs.api.dependencies import Asked, Reading, Submitting
from jobs.api.problems import BadRequest, answers
from jobs.api.request_body import Body, key_header, optional_text
from jobs.api.thread_pools import in_pool
from jobs.api.tokens import Scope
from jobs.schedules import manage
from jobs.schedules.history import MOST_NEXT, history, next_runs
from jobs.schedules.views import NextList, NextView, RunPage, RunView, SchedulePage, ScheduleView
from jobs.storage.schedule_store import Key
from schemas.errors import NotFound, ServiceUnavailable, SpecError
from schemas.redaction import shown
from schemas.schedule import Schedule, ScheduleVersion, Standing, parse_schedule

router = APIRouter(tags=["schedules"])

Name = Annotated[str, Path(description="A schedule's name.", examples=["nightly-reviews"])]
Tenant = Annotated[
    str | None, Query(max_length=256, description="Whose schedule, for a token of scope `admin`; else the token's.")
]
_KEY = key_header("Any text of your own, such as a UUID: sent again within a day it gives the same run.")
_SPEC = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": "Schedule"}}}}}
_RUN = optional_text("due", description="The time that fills the holes, such as `2026-11-20T03:15`; by default now.")


def _now(asked: Asked) -> datetime:
    """Return the time by Redis's clock; by this machine's while Redis is away."""
    try:
        return asked.service.ask(lambda state: state.now())
    except ServiceUnavailable:
        return datetime.now(UTC)


def _key(asked: Asked, name: str, tenant: str | None) -> Key:
    """Return the key of a schedule that exists for the principal, if it exists at all. Raise NotFound otherwise."""
    own = asked.who.tenant if tenant is None else tenant
    if not (asked.who.sees(own) and manage.is_name(name) and manage.is_tenant(own)):
        raise NotFound(f"there is no schedule {name!r}")
    return Key(own, name)


def _maker(asked: Asked, tenant: str) -> manage.Maker:
    who = asked.who
    return manage.Maker(f"token {who.token_id}", tenant, asked.service.rights_of(who))


def _check_deployment(asked: Asked) -> None:
    """Raise SpecError if no worker would fire a schedule: an embedded server's end with it."""
    if asked.service.settings.redis_url is None:
        raise SpecError.of("", "schedules are fired by a deployment's workers; set NIGHTSHIFT_REDIS_URL for one")


@router.post("/v1/schedules", status_code=201, responses=answers(400, 409, 413, 415, 422), openapi_extra=_SPEC)
@in_pool("submit")
def add_schedule(
    asked: Submitting,
    body: Body,
    response: Response,
    replace: Annotated[bool, Query(description="Change the schedule of this name, if there is one.")] = False,
) -> ScheduleView:
    """Add a schedule. Its next runs are validated as jobs are. The same schedule sent again stays as it is."""
    _check_deployment(asked)
    if body is None:
        raise BadRequest("there is no body: send a schedule as JSON")
    schedule = parse_schedule(body)
    tenant = _tenant(asked, schedule)
    service = asked.service
    now = service.ask(lambda state: state.now())
    version = manage.add(schedule, _maker(asked, tenant), service.schedules, service.settings, now, replace)
    service.ask(lambda state: state.schedules.note())
    response.headers["Location"] = f"/v1/schedules/{schedule.name}"
    return ScheduleView.of(version, now)


def _tenant(asked: Asked, schedule: Schedule) -> str:
    tenant = manage.tenant_of(schedule, asked.who.tenant)
    if not asked.who.sees(tenant):
        raise SpecError.of("spec.labels.tenant", f"the token is of tenant {asked.who.tenant!r}; leave this label out")
    return tenant


@router.get("/v1/schedules", responses=answers(422))
@in_pool("read")
def schedules(
    asked: Reading,
    tenant: Tenant = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=400, description="`next` of a page.")] = None,
) -> SchedulePage:
    """Schedules, by tenant and name, page by page."""
    who = asked.who
    if tenant is not None and not (who.sees(tenant) and manage.is_tenant(tenant)):
        return SchedulePage(schedules=[], next=None)
    whose = tenant if tenant is not None else None if Scope.ADMIN in who.scopes else who.tenant
    store, now = asked.service.schedules, _now(asked)
    found: list[ScheduleView] = []
    last = ""
    for key, number in sorted(store.newest(whose)):
        place = f"{key.tenant}/{key.name}"
        if cursor is not None and place <= cursor:
            continue
        if len(found) == limit:
            return SchedulePage(schedules=found, next=last)
        version = store.version(key, number)
        last = place
        if not version.standing.is_removed:
            found.append(ScheduleView.of(version, now))
    return SchedulePage(schedules=found, next=None)


def _found(asked: Asked, name: str, tenant: str | None) -> ScheduleVersion:
    return manage.find(asked.service.schedules, _key(asked, name, tenant))


@router.get("/v1/schedules/{name}", responses=answers(404, 422))
@in_pool("read")
def schedule(asked: Reading, name: Name, tenant: Tenant = None) -> ScheduleView:
    """A schedule, with its template and its policies."""
    return ScheduleView.of(_found(asked, name, tenant), _now(asked))


def _changed(asked: Asked, name: str, tenant: str | None, standing: Standing) -> ScheduleView:
    key, service = _key(asked, name, tenant), asked.service
    now = service.ask(lambda state: state.now())
    version = manage.change_standing(key, standing, _maker(asked, key.tenant), service.schedules, now)
    service.ask(lambda state: state.schedules.note())
    return ScheduleView.of(version, now)


@router.post("/v1/schedules/{name}:pause", responses=answers(404, 409, 422))
@in_pool("submit")
def pause_schedule(asked: Submitting, name: Name, tenant: Tenant = None) -> ScheduleView:
    """Fire a schedule no more until it is resumed. Runs that are under way go on."""
    return _changed(asked, name, tenant, Standing.PAUSED)


@router.post("/v1/schedules/{name}:resume", responses=answers(404, 409, 422))
@in_pool("submit")
def resume_schedule(asked: Submitting, name: Name, tenant: Tenant = None) -> ScheduleView:
    """Let a paused schedule go on, from its next due time."""
    return _changed(asked, name, tenant, Standing.ACTIVE)


@router.delete("/v1/schedules/{name}", responses=answers(404, 409, 422))
@in_pool("submit")
def remove_schedule(asked: Submitting, name: Name, tenant: Tenant = None) -> ScheduleView:
    """Remove a schedule. Runs that are under way go on, and its history stays."""
    return _changed(asked, name, tenant, Standing.REMOVED)


@router.post(
    "/v1/schedules/{name}:run-now", status_code=202, responses=answers(400, 404, 413, 415, 422), openapi_extra=_RUN
)
@in_pool("submit")
def run_schedule(
    asked: Submitting,
    name: Name,
    body: Body,
    tenant: Tenant = None,
    idempotency_key: Annotated[str | None, _KEY] = None,
) -> RunView:
    """Run a schedule by hand, for now or for an earlier due time, whatever its policies say."""
    _check_deployment(asked)
    version = _found(asked, name, tenant)
    due = _due(body, version)
    service, maker = asked.service, _maker(asked, version.tenant)
    service.ask(lambda state: state.ping())
    record, _ = manage.run_now(version, due, idempotency_key, maker, service.runs(maker.name))
    service.ask(lambda state: state.schedules.note())
    return RunView.of(manage.as_run(record, service.schedules))


def _due(body: Any, version: ScheduleVersion) -> datetime | None:
    if body is None:
        return None
    if not isinstance(body, dict) or set(body) - {"due"}:
        raise SpecError.of("", "the body is an object with 'due' alone, or nothing")
    if "due" not in body:
        return None
    if not isinstance(body["due"], str):
        raise SpecError.of("due", f"{shown(body['due'])} is no time; write one such as 2026-11-20T03:15")
    return manage.time_of(body["due"], version)


@router.get("/v1/schedules/{name}/runs", responses=answers(404, 422))
@in_pool("read")
def schedule_runs(
    asked: Reading,
    name: Name,
    tenant: Tenant = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9TZa-z-]{1,64}$", description="`next` of a page.")] = None,
) -> RunPage:
    """What became of a schedule's runs, newest first, page by page."""
    version = _found(asked, name, tenant)
    runs = list(islice(history(asked.service.schedules, version, _now(asked), cursor), limit + 1))
    more = len(runs) > limit
    return RunPage(runs=[RunView.of(run) for run in runs[:limit]], next=runs[limit - 1].run if more else None)


@router.get("/v1/schedules/{name}/next", responses=answers(404, 422))
@in_pool("read")
def schedule_next(
    asked: Reading, name: Name, tenant: Tenant = None, count: Annotated[int, Query(ge=1, le=MOST_NEXT)] = 5
) -> NextList:
    """When a schedule is due next, and what its runs will read and write."""
    found = next_runs(_found(asked, name, tenant), _now(asked), asked.service.settings)
    return NextList(runs=[NextView.of(one) for one in islice(found, count)])
