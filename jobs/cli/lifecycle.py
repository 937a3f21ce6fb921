"""A job's life as the command line sees it: accepted, run to its end with progress, and concluded with an exit code."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from jobs import logs
from jobs.broker import Broker, make_app
from jobs.cli.progress import display, duration
from jobs.embedded import embedded, make_home
from jobs.retry import nothing_to_retry
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.submit import Accepted, Found, accept, check_output, enqueue
from jobs.validate import Validated, validate, with_full_uris
from jobs.watch import watch
from schemas.errors import SpecError
from schemas.job import AcceptedJob, JobSpec
from schemas.manifest import JobStatus, Manifest
from schemas.task import Group

json_option = click.option("--json", "as_json", is_flag=True, help="JSON on standard output, for scripts.")


def quiet_settings() -> Settings:
    settings = Settings.read()
    logs.configure("warning" if settings.log_level == "info" else settings.log_level, settings.log_format)
    return settings


def accepted_job(spec: JobSpec, storage: Storage, settings: Settings) -> Accepted:
    """The job of the spec: the one that is there already, or a new one."""
    spec = with_full_uris(spec)
    found = check_output(spec, storage)
    if found is not None:
        return found
    checked = validated(spec, storage, settings)
    reachable(settings)
    return accept(checked, storage, settings)


def reachable(settings: Settings) -> None:
    """Make sure that a job could be handed to somebody: else nothing is written for it."""
    if settings.redis_url is not None:
        State(settings).ping()
    else:
        make_home(settings)


def validated(spec: JobSpec, storage: Storage, settings: Settings) -> Validated:
    """The spec, validated. Raises SpecError also for what can't be done without a deployment."""
    if spec.notify is not None and settings.redis_url is None:
        raise SpecError.of(
            "notify", "webhooks are sent by a deployment, and this command runs the job itself and waits; leave it out"
        )
    return validate(spec, storage, settings)


def run_to_end(
    accepted: Accepted, storage: Storage, settings: Settings, processes: int | None, as_json: bool
) -> Manifest:
    """Run what is missing of the job, with progress, and wait for its end. Ctrl-C ends the command with 130."""
    job = accepted.job
    if accepted.manifest is not None:
        if not as_json:
            ended = f"{accepted.manifest.ended_at:%Y-%m-%d %H:%M} UTC"
            click.echo(f"nothing to run: job {job.id} with this spec ended at {ended}", err=True)
            if accepted.manifest.status is not JobStatus.SUCCEEDED:
                status = accepted.manifest.status
                click.echo(f"it {status}; what is missing can be run with: nightshift retry {job.output}", err=True)
        return accepted.manifest
    if accepted.found is Found.UNFINISHED and not as_json:
        click.echo(f"going on with job {job.id}", err=True)
    try:
        with _services(job, settings, processes) as (own, alive):
            state = State(own)
            state.ping()
            enqueue(job, state, Broker(make_app(own, "cli")))
            if not as_json:
                click.echo(f"job {job.id} → {job.output}", err=True)
            return _watched(job, state, storage, as_json, alive)
    except KeyboardInterrupt:
        if not as_json:
            _say_interrupted(job, settings)
        sys.exit(130)


@contextmanager
def _services(
    job: AcceptedJob, settings: Settings, processes: int | None
) -> Iterator[tuple[Settings, Callable[[], None]]]:
    """What runs the job: the deployment, or Redis and a worker of this command's own."""
    if settings.redis_url is not None:
        if processes is not None:
            raise click.UsageError("--processes is for running without a deployment; NIGHTSHIFT_REDIS_URL is set")
        yield settings, lambda: None
        return
    log = settings.home / "logs" / f"{job.id}.log"
    with embedded(settings, [Group.CONTROL, job.spec.task_schema.group], processes, log) as (own, alive):
        yield own, alive


def _watched(job: AcceptedJob, state: State, storage: Storage, as_json: bool, alive: Callable[[], None]) -> Manifest:
    with display(quiet=as_json) as shown:
        for seen in watch(job, state, storage, alive):
            if isinstance(seen, Manifest):
                return seen
            shown.show(seen)
    raise AssertionError("a watch ends with a manifest")


def _say_interrupted(job: AcceptedJob, settings: Settings) -> None:
    if settings.redis_url is None:
        click.echo(f"interrupted; what is done is kept. Go on with: nightshift resume {job.output}", err=True)
    else:
        click.echo(
            f"no longer watching; the job goes on. See it with: nightshift watch {job.id}\n"
            f"stop it with: nightshift cancel {job.id}",
            err=True,
        )


def exit_code(manifest: Manifest) -> int:
    """0 succeeded, 3 succeeded with error rows, 1 failed or cancelled."""
    if manifest.status is not JobStatus.SUCCEEDED:
        return 1
    return 3 if manifest.error_rows else 0


def conclude(manifest: Manifest, job: AcceptedJob, as_json: bool) -> None:
    """Say how the job ended, and exit."""
    say_end(manifest, job, as_json)
    sys.exit(exit_code(manifest))


def skipped_words(skipped: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {why}" for why, count in sorted(skipped.items()))


def say_end(manifest: Manifest, job: AcceptedJob, as_json: bool) -> None:
    """How the job ended: what was done on standard output, what went wrong on standard error."""
    if as_json:
        shown = manifest.model_dump(mode="json", exclude={"parts"})
        click.echo(json.dumps(shown | {"output": job.output, "parts": len(manifest.parts)}))
        return
    took = (manifest.ended_at - job.accepted_at).total_seconds()
    click.echo(
        f"{manifest.status}: {manifest.rows:,} records in {len(manifest.parts)} parts, {duration(took)}, "
        f"at {job.output}"
    )
    if manifest.error is not None:
        click.echo(f"error: {manifest.error.message}", err=True)
    if manifest.skipped:
        click.echo("skipped: " + skipped_words(manifest.skipped), err=True)
    for code, count in sorted(manifest.errors.items()):
        click.echo(f"{count:,} error rows: {code}", err=True)
    for lost in manifest.lost[:10]:
        rows = ", ".join(f"{s.uri} rows {s.first_row}–{s.first_row + s.rows - 1}" for s in lost.slices if s.rows)
        click.echo(f"shard {lost.shard} failed: {lost.error.message}{f' ({rows})' if rows else ''}", err=True)
    if len(manifest.lost) > 10:
        click.echo(f"… and {len(manifest.lost) - 10} more failed shards, see {job.output}_manifest.json", err=True)
    if not nothing_to_retry(manifest):
        click.echo(f"to run again what has no answer: nightshift retry {job.output}", err=True)
