"""How does a command run a job? It accepts the job, follows it to its end, and exits with a code."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click

from jobs import logs
from jobs.broker import Broker, make_app
from jobs.cli.follow import follow
from jobs.cli.progress import counted, display, duration
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.storage.job_folder import JobFolder
from jobs.storage.latest import point_to
from jobs.submission.accept import Accepted, Found, Submitter, enqueue, new_job, new_job_id
from jobs.submission.retry import nothing_to_retry
from jobs.submission.validate import Validated, validate, with_full_uris
from jobs.supervisor.embedded import embedded
from schemas.errors import NightshiftError, SpecError
from schemas.incremental import SeriesRun
from schemas.job import AcceptedJob, JobSpec
from schemas.manifest import JobStatus, LostShard, Manifest
from schemas.task import Group, Task

#: Lost shards that a message lists, and slices of each.
_SHOWN = 10

json_option = click.option("--json", "as_json", is_flag=True, help="JSON on standard output, for scripts.")


def quiet_settings() -> Settings:
    settings = Settings.read()
    logs.configure("warning" if settings.log_level == "info" else settings.log_level, settings.log_format)
    return settings


def submitter_of(settings: Settings, storage: Storage) -> Submitter:
    """Return what accepts the jobs of this machine's user."""
    return Submitter(Catalog(settings.catalog_uri, storage), embedded=settings.redis_url is None)


def validated(spec: JobSpec, storage: Storage, settings: Settings) -> Validated:
    """Return the spec, validated. Raise SpecError also if it needs a deployment, and there is none."""
    if spec.notify is not None and settings.redis_url is None:
        raise SpecError.of(
            "notify", "webhooks are sent by a deployment, and this command runs the job itself and waits; leave it out"
        )
    return validate(spec, storage, settings)


def validated_job(spec: JobSpec, storage: Storage, settings: Settings) -> AcceptedJob:
    """Return a new job of the spec, written nowhere yet. Raise SpecError if the spec isn't valid."""
    checked = validated(spec, storage, settings)
    return new_job(checked.spec, checked.model, layout=settings.layout)


def run_spec(
    spec: JobSpec, storage: Storage, settings: Settings, processes: int | None, as_json: bool
) -> tuple[AcceptedJob, Manifest]:
    """Accept the spec and run the job, or what is missing of the one that is there, to its end."""
    spec = with_full_uris(spec)
    submitter = submitter_of(settings, storage)
    there = submitter.find(spec)
    if there is not None:
        return there.job, run_to_end(there, storage, settings, processes, as_json)
    return run_accepted(
        lambda: submitter.create(validated_job(spec, storage, settings)),
        spec.task_schema, storage, settings, processes, as_json,
    )  # fmt: skip


def run_to_end(
    accepted: Accepted, storage: Storage, settings: Settings, processes: int | None, as_json: bool
) -> Manifest:
    """Run what is missing of the job, with progress, and wait for its end."""
    if accepted.manifest is not None:
        return _nothing_to_run(accepted.job, accepted.manifest, as_json)
    task = accepted.job.spec.task_schema
    return run_accepted(lambda: accepted, task, storage, settings, processes, as_json)[1]


def run_accepted(
    accept_job: Callable[[], Accepted],
    task: Task,
    storage: Storage,
    settings: Settings,
    processes: int | None,
    as_json: bool,
) -> tuple[AcceptedJob, Manifest]:
    """Accept a job of this task once there is something to run it, and run it to its end. Ctrl-C exits with 130.

    Without a deployment, processes are started, and get ready while the job is validated. Nothing is written for a job
    that can't be run here.
    """
    job: AcceptedJob | None = None
    try:
        with _services(task, settings, processes) as services:
            accepted = accept_job()
            job = accepted.job
            if accepted.manifest is not None:
                return job, _nothing_to_run(job, accepted.manifest, as_json)
            manifest = services.run(accepted, storage, as_json)
            if settings.redis_url is None:
                _settle(job, manifest, Catalog(settings.catalog_uri, storage))
            return job, manifest
    except KeyboardInterrupt:
        if job is not None and not as_json:
            _say_interrupted(job, settings)
        sys.exit(130)


def _settle(job: AcceptedJob, manifest: Manifest, catalog: Catalog) -> None:
    """Do what follows the manifest. The process that wrote it does so too, unless it is ended before."""
    try:
        point_to(job, manifest, catalog.storage)
        catalog.mark_ended(job.id, catalog.folder(job.output))
    except NightshiftError as error:
        click.echo(f"the job ended, and what follows its manifest couldn't be done: {error.message}", err=True)


def _nothing_to_run(job: AcceptedJob, manifest: Manifest, as_json: bool) -> Manifest:
    if not as_json:
        ended = f"{manifest.ended_at:%Y-%m-%d %H:%M} UTC"
        click.echo(f"nothing to run: job {job.id} with this spec ended at {ended}", err=True)
        if manifest.status is not JobStatus.SUCCEEDED:
            status = manifest.status
            click.echo(f"it {status}; what is missing can be run with: nightshift retry {job.output}", err=True)
    return manifest


@dataclass(frozen=True)
class _Services:
    """What runs a job: the deployment, or Redis and processes of this command. `check` raises if they ended."""

    settings: Settings
    check: Callable[[], None] = lambda: None

    def run(self, accepted: Accepted, storage: Storage, as_json: bool) -> Manifest:
        job = accepted.job
        if accepted.found is Found.UNFINISHED and not as_json:
            click.echo(f"going on with job {job.id}", err=True)
        state = State(self.settings)
        enqueue(job, state, Broker(make_app(self.settings, "cli")), accepted.is_new)
        if not as_json:
            click.echo(f"job {job.id} → {job.output}", err=True)
        return _followed(job, state, JobFolder.of(job, storage), as_json, self.check)


@contextmanager
def _services(task: Task, settings: Settings, processes: int | None) -> Iterator[_Services]:
    if settings.redis_url is not None:
        if processes is not None:
            raise click.UsageError("--processes is for running without a deployment; NIGHTSHIFT_REDIS_URL is set")
        State(settings).ping()  # before anything is written for the job
        yield _Services(settings)
        return
    groups = [Group.CONTROL, task.group]
    with embedded(settings, groups, processes, f"{new_job_id()}.log") as (own, check):
        yield _Services(own, check)


def _followed(job: AcceptedJob, state: State, folder: JobFolder, as_json: bool, alive: Callable[[], None]) -> Manifest:
    with display(quiet=as_json) as shown:
        for seen in follow(job, state, folder, alive):
            if isinstance(seen, Manifest):
                return seen
            shown.show(seen)
    raise AssertionError("the last that is seen is a manifest")


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


def series_words(run: SeriesRun) -> str:
    """Return which run of which series a job is, and whether everything is annotated again."""
    words = f"run {run.run} of the series {run.series}"
    if run.afresh is not None:
        return f"{words}, which starts afresh: {run.afresh}"
    return f"{words}, {run.known:,} annotated before" if run.known else words


def _rows_words(lost: LostShard) -> str:
    """Return which rows a shard stands for, by the first of its slices."""
    slices = [one for one in lost.slices if one.rows]
    words = [f"{one.uri} rows {one.first_row}–{one.first_row + one.rows - 1}" for one in slices[:_SHOWN]]
    more = len(slices) - len(words) + lost.slices_left_out
    return ", ".join([*words, f"and {more:,} more"] if more else words)


def say_end(manifest: Manifest, job: AcceptedJob, as_json: bool) -> None:
    """Say how the job ended: what was done on standard output, what went wrong on standard error."""
    if as_json:
        shown = manifest.model_dump(mode="json", exclude={"parts"})
        click.echo(json.dumps(shown | {"output": job.output, "parts": len(manifest.parts)}))
        return
    took = (manifest.ended_at - job.accepted_at).total_seconds()
    done = f"{counted(manifest.rows, 'record')} in {counted(len(manifest.parts), 'part')}"
    click.echo(f"{manifest.status}: {done}, {duration(took)}, at {job.output}")
    if manifest.table_version is not None:
        click.echo(f"version {manifest.table_version} of the {manifest.table}")
    if manifest.error is not None:
        click.echo(f"error: {manifest.error.message}", err=True)
    if manifest.skipped:
        click.echo("skipped: " + skipped_words(manifest.skipped), err=True)
    if manifest.series is not None:
        click.echo(series_words(manifest.series), err=True)
    if manifest.reused:
        click.echo(f"copied from earlier answers: {counted(manifest.reused, 'record')}", err=True)
    for code, count in sorted(manifest.errors.items()):
        click.echo(f"{counted(count, 'error row')}: {code}", err=True)
    for lost in manifest.lost[:_SHOWN]:
        rows = _rows_words(lost)
        click.echo(f"shard {lost.shard} failed: {lost.error.message}{f' ({rows})' if rows else ''}", err=True)
    if len(manifest.lost) > _SHOWN:
        more = len(manifest.lost) - _SHOWN
        click.echo(f"… and {more:,} more failed shards, see {job.output}_manifest.json", err=True)
    if not nothing_to_retry(manifest):
        click.echo(f"to run again what has no answer: nightshift retry {job.output}", err=True)
