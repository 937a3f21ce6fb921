"""How do users add, change and look at schedules? The same for the command line and the API."""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from jobs.schedules.due_times import DueTimes, zone_of
from jobs.schedules.expand import below_spec, expand
from jobs.schedules.history import Run
from jobs.schedules.runs import Runs, digest_of
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.schedule_store import Key, ScheduleStore, months
from jobs.submission.resolve_model import resolve_model
from jobs.submission.rights import narrowed_to
from jobs.webhooks.policy import check_notify
from schemas import __version__
from schemas.errors import AccessDenied, AlreadyExists, NightshiftError, NotFound, SpecError
from schemas.job import AcceptedJob, JobSpec
from schemas.schedule import NAME, Outcome, Rights, RunRecord, Schedule, ScheduleVersion, Standing, run_name

#: Due times that a schedule is filled for before it is accepted.
SAMPLE = 4
#: Names of schedules that a tenant may have used, those of removed ones too.
MAX_NAMES = 1000
#: Characters of a tenant's name, as the names in the catalog have it.
LONGEST_TENANT = 200
#: Due times among which two must not be nearer than the jitter.
_GAPS = 50


class ScheduleConflict(NightshiftError):
    """The schedule isn't in a state that allows what was asked for."""

    code = "conflict"


@dataclass(frozen=True)
class Maker:
    """Who changes a schedule: a name for the record, the tenant, and the rights of the token that was used."""

    name: str
    tenant: str = ""
    rights: Rights | None = None


def is_name(text: str) -> bool:
    """Return whether a schedule may have this name."""
    return re.fullmatch(NAME, text) is not None


def is_tenant(text: str) -> bool:
    """Return whether schedules may be of this tenant: its name is a part of names in the catalog."""
    return len(Key(text, "").path) <= LONGEST_TENANT


def tenant_of(schedule: Schedule, otherwise: str) -> str:
    """Return the tenant whose the schedule is: the label of its template, as of a job spec."""
    labels = schedule.spec.get("labels")
    tenant = labels.get("tenant") if isinstance(labels, dict) else None
    return tenant if isinstance(tenant, str) else otherwise


def add(
    schedule: Schedule, maker: Maker, store: ScheduleStore, settings: Settings, now: datetime, replace: bool
) -> ScheduleVersion:
    """Return the schedule, written; one that is there already with the same content stays as it is.

    One that changes keeps its standing. Due times count from `now` on, by the deployment's clock; a change that leaves
    the times as they are leaves what they count from, too. Raise SpecError if the schedule can't be accepted,
    ScheduleConflict if another one has the name and isn't to be replaced.
    """
    if not is_tenant(maker.tenant):
        raise SpecError.of("spec.labels.tenant", "the tenant's name is too long for a schedule; choose a shorter one")
    key = Key(maker.tenant, schedule.name)
    there = store.current(key)
    living = None if there is None or there.standing.is_removed else there
    if living is not None and _said(living.schedule, living.rights) == _said(schedule, maker.rights):
        return living
    if there is None and sum(1 for _ in store.newest(maker.tenant)) >= MAX_NAMES:
        raise SpecError.of("name", f"{MAX_NAMES:,} names of schedules were used; use one of a removed schedule again")
    made = _version(there, schedule, maker, now)
    if living is not None:
        same_times = (living.schedule.cron, living.schedule.time_zone) == (schedule.cron, schedule.time_zone)
        kept = {"standing": living.standing} | ({"counts_from": living.counts_from} if same_times else {})
        made = made.model_copy(update=kept)
    check(made, store.storage, settings)
    if living is not None and not replace:
        raise ScheduleConflict(f"there is a schedule {schedule.name!r} with other content; replace it, or name another")
    return _written(made, store)


def check(version: ScheduleVersion, storage: Storage, settings: Settings) -> None:
    """Raise SpecError unless the next runs of a schedule could be accepted, as far as can be told before they are due.

    What their input is need not be there yet.
    """
    schedule, narrowed = version.schedule, narrowed_to(version.rights, settings)
    times = DueTimes(schedule.cron, schedule.time_zone)
    due = list(islice(times.after(version.made_at), SAMPLE))
    specs = [expand(version, one, run_name(one), settings) for one in due]
    _check_outputs(specs)
    gap = times.shortest_gap_s(version.made_at, _GAPS)
    if schedule.jitter_s >= gap:
        raise SpecError.of("jitter_s", f"{schedule.jitter_s} s are as long as runs are apart: {gap:g} s; choose fewer")
    if schedule.notify is not None:
        check_notify(str(schedule.notify), narrowed)
    if specs:
        try:
            resolve_model(specs[0], storage, narrowed)
            if specs[0].notify is not None:
                check_notify(str(specs[0].notify), narrowed)
        except SpecError as error:
            raise below_spec(error) from None
        except AccessDenied as error:
            raise SpecError.of("spec.model", error.message) from None


def _check_outputs(specs: list[JobSpec]) -> None:
    """Raise SpecError if two runs would have one output: a location holds one job's results."""
    outputs = [spec.output.uri for spec in specs]
    twice = next((uri for uri in outputs if outputs.count(uri) > 1), None)
    if twice is not None:
        raise SpecError.of(
            "spec.output.uri", f"{twice!r} would be the output of more than one run; put a hole in it, such as {{run}}"
        )


def change_standing(key: Key, standing: Standing, maker: Maker, store: ScheduleStore, now: datetime) -> ScheduleVersion:
    """Pause, resume or remove a schedule. Runs that are under way go on. One that stands so stays as it is.

    Times that pass while it is paused count as neither missed nor due. Raise NotFound if there is no such schedule.
    """
    there = find(store, key)
    if there.standing is standing:
        return there
    kept = {"rights": there.rights, "standing": standing}
    return _written(_version(there, there.schedule, maker, now).model_copy(update=kept), store)


def find(store: ScheduleStore, key: Key) -> ScheduleVersion:
    """Return the last version of a schedule. Raise NotFound if there is none, or it was removed."""
    version = store.current(key)
    if version is None or version.standing.is_removed:
        raise NotFound(f"there is no schedule {key.name!r}")
    return version


def all_of(store: ScheduleStore, tenant: str | None) -> Iterator[ScheduleVersion]:
    """Yield the schedules of all tenants, or of one, by tenant and name. Removed ones are left out."""
    for key, number in store.newest(tenant):
        version = store.version(key, number)
        if not version.standing.is_removed:
            yield version


def run_now(
    version: ScheduleVersion, due: datetime | None, request: str | None, maker: Maker, runs: Runs
) -> tuple[RunRecord, AcceptedJob | None]:
    """Run a schedule by hand, for this due time or for now, whatever its policies say and whether or not it is paused.

    Return the decision, and the job unless there is nothing to do. The same `request` is the same run. Raise SpecError
    if the run can't be accepted, TooManyRequests above the tenant's quota.
    """
    key, now = Key(version.tenant, version.name), runs.now()
    date = (due or now).astimezone(UTC).replace(microsecond=0)
    mark = "-by-hand-" + (digest_of(key, request).hex()[:8] if request is not None else secrets.token_hex(4))
    recent = (name for month in months(now - timedelta(days=1), now) for name in runs.store.runs(key, month))
    run = next((name for name in recent if name.endswith(mark)), run_name(now) + mark)
    record = runs.store.record(key, run)
    found = None
    if record is None:
        found = runs.prepare(version, date, run)
        if found.there is not None:
            raise SpecError.of(
                "spec.output.uri",
                f"job {found.there.id} has the run's output {found.there.output!r} already; name another time with "
                "`due`, or put {run} into the output",
            )
        own = {"by_hand": True, "decided_by": maker.name}
        record = runs.store.decide(runs.started(version, date, run, found).model_copy(update=own))
    if record.outcome is not Outcome.STARTED:
        return record, None
    return record, runs.begin(record, None if found is None else found.checked)


def as_run(record: RunRecord, store: ScheduleStore) -> Run:
    """Return the run of a decision."""
    return Run(record.run, record.due, record, store.ended(Key(record.tenant, record.schedule), record.run))


def time_of(text: str, version: ScheduleVersion) -> datetime:
    """Return a time that a user wrote; without an offset it is one of the schedule's time zone.

    Raise SpecError if it is none.
    """
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=zone_of(version.schedule.time_zone))).astimezone(UTC)
    except (ValueError, OverflowError):
        raise SpecError.of("due", f"{text!r} is no time; write one such as 2026-11-20T03:15") from None


def _said(schedule: Schedule, rights: Rights | None) -> tuple[object, object]:
    """Return what a version says, to be compared: Pydantic before 2.14 holds what was read unequal to what was made."""
    return schedule.model_dump(), None if rights is None else rights.model_dump()


def _version(there: ScheduleVersion | None, schedule: Schedule, maker: Maker, now: datetime) -> ScheduleVersion:
    return ScheduleVersion(
        number=1 if there is None else there.number + 1,
        tenant=maker.tenant,
        schedule=schedule,
        standing=Standing.ACTIVE,
        counts_from=now,
        made_at=now,
        made_by=maker.name,
        version=__version__,
        rights=maker.rights,
    )


def _written(version: ScheduleVersion, store: ScheduleStore) -> ScheduleVersion:
    try:
        store.add_version(version)
    except AlreadyExists:
        raise ScheduleConflict(
            f"schedule {version.name!r} was changed at this moment; look at it, and try again"
        ) from None
    return version
