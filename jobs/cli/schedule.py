"""`schedule`: job specs that run by the clock."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import click

from jobs.broker import Broker, make_app
from jobs.cli.run_job import json_option, quiet_settings
from jobs.cli.spec_options import pair, put, read_file, value_of
from jobs.schedules import manage
from jobs.schedules.due_times import zone_of
from jobs.schedules.history import MOST_NEXT, history, next_runs
from jobs.schedules.runs import Runs
from jobs.schedules.views import NextView, RunView, ScheduleView
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.storage.schedule_store import Key, ScheduleStore
from jobs.submission.accept import user_name
from schemas.schedule import ScheduleVersion, Standing, parse_schedule

F = TypeVar("F", bound=Callable[..., Any])


def _tenant_option(command: F) -> F:
    return click.option("--tenant", default="", help="Whose schedule; by default one of no tenant.")(command)


@click.group()
def schedule() -> None:
    """Job specs that run by the clock, fired by the workers of a deployment.

    \b
    nightshift schedule add nightly.yaml
    nightshift schedule history nightly-reviews
    """


def _store(settings: Settings) -> ScheduleStore:
    return ScheduleStore(settings.catalog_uri, Storage())


def _local(time: datetime, version: ScheduleVersion) -> str:
    return f"{time.astimezone(zone_of(version.schedule.time_zone)):%a %Y-%m-%d %H:%M %Z}"


@schedule.command()
@click.argument("file", required=False, type=click.Path())
@click.option("--name", help="The schedule's name.")
@click.option("--cron", help="Minute, hour, day, month, day of the week: '15 3 * * *'.")
@click.option("--time-zone", help="Such as Europe/Berlin; by default UTC.")
@click.option("--spec", "spec_file", type=click.Path(), help="A job spec, whose URIs and labels may have holes.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Any other key, such as catch_up=all.")
@click.option("--replace", is_flag=True, help="Change the schedule of this name, if there is one.")
@json_option
def add(
    file: str | None,
    name: str | None,
    cron: str | None,
    time_zone: str | None,
    spec_file: str | None,
    sets: tuple[str, ...],
    replace: bool,
    as_json: bool,
) -> None:
    """Add a schedule, from a file, from options, or both. Needs NIGHTSHIFT_REDIS_URL.

    The next runs are validated as jobs are; their input need not be there yet.

    \b
    nightshift schedule add nightly.yaml --set overlap=queue
    nightshift schedule add --name nightly-reviews --cron '15 3 * * *' --time-zone Europe/Berlin --spec job.yaml
    """
    settings = quiet_settings()
    state = State(settings)  # raises if no Redis is set up
    data = read_file(file) if file is not None else {}
    if spec_file is not None:
        data["spec"] = read_file(spec_file)
    data |= {key: value for key, value in (("name", name), ("cron", cron), ("time_zone", time_zone)) if value}
    for key, value in map(pair, sets):
        put(data, key, value_of(value))
    asked = parse_schedule(data)
    maker = manage.Maker(user_name(), manage.tenant_of(asked, ""))
    version = manage.add(asked, maker, _store(settings), settings, state.now(), replace)
    state.schedules.note()
    if as_json:
        _print(ScheduleView.of(version, state.now()))
        return
    click.echo(f"{version.name}: version {version.number}, {version.standing}")
    for found in islice(next_runs(version, state.now(), settings), 3):
        click.echo(f"  {found.due:%a %Y-%m-%d %H:%M %Z}  → {found.output}")


@schedule.command("list")
@click.option("--tenant", help="Only those of this tenant.")
@json_option
def list_schedules(tenant: str | None, as_json: bool) -> None:
    """All schedules, and when each is due next."""
    settings = quiet_settings()
    found = list(manage.all_of(_store(settings), tenant))
    for version in found:
        view = ScheduleView.of(version, _now(settings))
        if as_json:
            _print(view)
            continue
        name = str(Key(version.tenant, version.name))
        when = "never" if view.next is None else _local(view.next, version)
        click.echo(f"{name}  {version.standing}  '{version.schedule.cron}' {version.schedule.time_zone}  next: {when}")
    if not found and not as_json:
        click.echo("there is no schedule; add one with: nightshift schedule add FILE", err=True)


@schedule.command()
@click.argument("name")
@_tenant_option
@json_option
def show(name: str, tenant: str, as_json: bool) -> None:
    """A schedule, with its template and its policies.

    \b
    nightshift schedule show nightly-reviews
    """
    settings = quiet_settings()
    version = manage.find(_store(settings), Key(tenant, name))
    view = ScheduleView.of(version, _now(settings))
    if as_json:
        _print(view)
        return
    import yaml

    made = f"{version.made_at:%Y-%m-%d %H:%M} UTC by {version.made_by}"
    click.echo(f"# version {version.number}, {version.standing}, made {made}")
    click.echo(yaml.safe_dump(view.schedule, sort_keys=False, allow_unicode=True), nl=False)


def _change(name: str, tenant: str, standing: Standing) -> ScheduleVersion:
    settings = quiet_settings()
    version = manage.change_standing(
        Key(tenant, name), standing, manage.Maker(user_name(), tenant), _store(settings), _now(settings)
    )
    if settings.redis_url is not None:
        State(settings).schedules.note()
    return version


@schedule.command()
@click.argument("name")
@_tenant_option
def pause(name: str, tenant: str) -> None:
    """Fire a schedule no more until it is resumed. Runs that are under way go on.

    \b
    nightshift schedule pause nightly-reviews
    """
    _change(name, tenant, Standing.PAUSED)
    click.echo(f"paused {name}; go on with: nightshift schedule resume {name}")


@schedule.command()
@click.argument("name")
@_tenant_option
def resume(name: str, tenant: str) -> None:
    """Let a paused schedule go on, from its next due time.

    \b
    nightshift schedule resume nightly-reviews
    """
    version = _change(name, tenant, Standing.ACTIVE)
    due = ScheduleView.of(version, _now(quiet_settings())).next
    click.echo(f"resumed {name}; next: {'never' if due is None else _local(due, version)}")


@schedule.command()
@click.argument("name")
@_tenant_option
def remove(name: str, tenant: str) -> None:
    """Remove a schedule. Runs that are under way go on, and its history stays.

    \b
    nightshift schedule remove nightly-reviews
    """
    _change(name, tenant, Standing.REMOVED)
    click.echo(f"removed {name}")


@schedule.command("run-now")
@click.argument("name")
@click.option("--due", metavar="TIME", help="The time that fills the holes, such as 2026-11-20T03:15; by default now.")
@_tenant_option
@json_option
def run_now(name: str, due: str | None, tenant: str, as_json: bool) -> None:
    """Run a schedule by hand, for now or for an earlier due time, and print the job's id. Needs NIGHTSHIFT_REDIS_URL.

    \b
    nightshift schedule run-now nightly-reviews
    nightshift schedule run-now nightly-reviews --due 2026-11-20T03:15
    """
    settings = quiet_settings()
    state = State(settings)
    storage = Storage()
    store = ScheduleStore(settings.catalog_uri, storage)
    version = manage.find(store, Key(tenant, name))
    broker = Broker(make_app(settings, "cli"))
    catalog = Catalog(settings.catalog_uri, storage)
    runs = Runs(settings, state, broker, catalog, store, user_name(), state.now)
    at = None if due is None else manage.time_of(due, version)
    record, job = manage.run_now(version, at, None, manage.Maker(user_name(), tenant), runs)
    state.schedules.note()
    if as_json:
        click.echo(json.dumps(record.model_dump(mode="json")))
    elif job is None:
        click.echo(f"{record.outcome}: {record.why}", err=True)
    else:
        click.echo(job.id)


@schedule.command("history")
@click.argument("name")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@_tenant_option
@json_option
def show_history(name: str, limit: int, tenant: str, as_json: bool) -> None:
    """What became of a schedule's runs, newest first.

    \b
    nightshift schedule history nightly-reviews --limit 50
    """
    settings = quiet_settings()
    store = _store(settings)
    version = store.current(Key(tenant, name)) or manage.find(store, Key(tenant, name))
    empty = True
    for run in islice(history(store, version, _now(settings)), limit):
        empty = False
        if as_json:
            _print(RunView.of(run))
            continue
        by_hand = "  by hand" if run.record is not None and run.record.by_hand else ""
        words = [_local(run.due, version), run.status, ",".join(run.jobs), run.why]
        click.echo("  ".join(word for word in words if word) + by_hand)
    if empty and not as_json:
        click.echo("it has had no run yet", err=True)


@schedule.command("next")
@click.argument("name")
@click.option("--count", type=click.IntRange(1, MOST_NEXT), default=5, show_default=True)
@_tenant_option
@json_option
def show_next(name: str, count: int, tenant: str, as_json: bool) -> None:
    """When a schedule is due next, and what its runs will read and write.

    \b
    nightshift schedule next nightly-reviews --count 10
    """
    settings = quiet_settings()
    version = manage.find(_store(settings), Key(tenant, name))
    for found in islice(next_runs(version, _now(settings), settings), count):
        if as_json:
            _print(NextView.of(found))
        else:
            what = found.error or f"{', '.join(found.inputs)} → {found.output}"
            click.echo(f"{found.due:%a %Y-%m-%d %H:%M %Z}  {what}")
    if version.standing is not Standing.ACTIVE and not as_json:
        click.echo(f"it is {version.standing}; go on with: nightshift schedule resume {name}", err=True)


def _now(settings: Settings) -> datetime:
    """Return the time by the deployment's clock; by this machine's if there is no deployment."""
    return State(settings).now() if settings.redis_url is not None else datetime.now(UTC)


def _print(view: ScheduleView | RunView | NextView) -> None:
    click.echo(view.model_dump_json())
