"""`status`, `watch` and `cancel`: jobs that were submitted."""

import json
import sys
from dataclasses import asdict
from typing import Any

import click

from jobs.broker import Broker, make_app
from jobs.cli.find_job import find_job, find_job_to_read
from jobs.cli.follow import follow
from jobs.cli.progress import counted, describe, display
from jobs.cli.run_job import conclude, json_option, quiet_settings
from jobs.state import Progress, State, rate_of
from jobs.storage import Storage
from jobs.storage.base import normalized
from jobs.storage.catalog import JOB_ID, Catalog
from jobs.submission.cancel import cancel_job
from schemas.job import AcceptedJob
from schemas.manifest import Manifest


@click.command()
@click.argument("job", required=False)
@json_option
def status(job: str | None, as_json: bool) -> None:
    """Where a job stands, by its id or output location; without one, all jobs that have not ended.

    \b
    nightshift status 20261120-031500-k3v9x2
    nightshift status s3://annotated/reviews/
    """
    settings = quiet_settings()
    if job is None:
        _all_active(State(settings), as_json)
        return
    catalog = Catalog(settings.catalog_uri, Storage())
    found = find_job_to_read(job, catalog)
    manifest = catalog.folder(found.output).read_manifest()
    progress = State(settings).jobs.progress(found.id) if manifest is None and settings.redis_url else None
    if as_json:
        click.echo(json.dumps(_as_json(found, progress, manifest)))
        return
    click.echo(f"job      {found.id}\ntask     {found.spec.task}\nmodel    {found.spec.model}\noutput   {found.output}")
    if found.parent is not None:
        click.echo(f"retries  {found.parent.job}")
    if manifest is not None:
        errors = f", {manifest.error_rows:,} of them with errors" if manifest.error_rows else ""
        click.echo(f"status   {manifest.status}, {manifest.ended_at:%Y-%m-%d %H:%M:%S} UTC")
        click.echo(f"records  {manifest.rows:,} in {counted(len(manifest.parts), 'part')}{errors}")
        if manifest.error is not None:
            click.echo(f"error    {manifest.error.message}")
    elif progress is not None:
        click.echo(f"status   {progress.status}\nprogress {describe(progress)}")
        if progress.error is not None:
            click.echo(f"error    {progress.error.message}")
    else:
        known = "Redis doesn't know it" if settings.redis_url else "there is no deployment here that could know of it"
        click.echo(
            f"status   not finished; {known}. Unless a run is under way, go on with: nightshift resume {found.output}"
        )


def _all_active(state: State, as_json: bool) -> None:
    found = [p for p in (state.jobs.progress(id) for id in state.jobs.active()) if p is not None]
    if as_json:
        click.echo(json.dumps([_progress_json(progress) for progress in found]))
        return
    for progress in found:
        click.echo(f"{progress.job}  {progress.status}  {progress.task}  {describe(progress)}")
    if not found:
        click.echo("no job is under way", err=True)


def _progress_json(progress: Progress) -> dict[str, Any]:
    rate = rate_of(progress)
    values = asdict(progress) | {"records_per_s": rate.rows_per_s, "seconds_left": rate.left_s}
    values["error"] = progress.error.model_dump() if progress.error else None
    return values


def _as_json(job: AcceptedJob, progress: Progress | None, manifest: Manifest | None) -> dict[str, Any]:
    if manifest is not None:
        return manifest.model_dump(mode="json", exclude={"parts"}) | {"output": job.output}
    if progress is not None:
        return _progress_json(progress)
    return {"job": job.id, "task": job.spec.task, "output": job.output, "status": "stopped"}


@click.command()
@click.argument("job")
@json_option
def watch(job: str, as_json: bool) -> None:
    """Follow a job until it ends; exits as `run` does. Under --json a line a change. Ctrl-C stops watching.

    \b
    nightshift watch 20261120-031500-k3v9x2
    """
    settings = quiet_settings()
    catalog = Catalog(settings.catalog_uri, Storage())
    found = find_job(job, catalog)
    folder = catalog.folder(found.output)
    manifest = folder.read_manifest()
    if manifest is None:
        last = None
        with display(quiet=as_json) as shown:
            for seen in follow(found, State(settings), folder):
                if isinstance(seen, Manifest):
                    manifest = seen
                    break
                shown.show(seen)
                line = _progress_json(seen)
                key = {name: line[name] for name in ("status", "shards_done", "rows_done", "rows_live")}
                if as_json and key != last:
                    click.echo(json.dumps(line))
                    last = key
    assert manifest is not None
    conclude(manifest, found, as_json)


@click.command()
@click.argument("job")
def cancel(job: str) -> None:
    """Stop a job. Workers leave it at their next batch; the parts that are done stay, named by its manifest.

    \b
    nightshift cancel 20261120-031500-k3v9x2
    """
    settings = quiet_settings()
    catalog = Catalog(settings.catalog_uri, Storage())
    state = State(settings) if settings.redis_url else None
    active = None if state is None else _active(job, state)
    if state is None or active is None:
        found = find_job(job, catalog)
        manifest = catalog.folder(found.output).read_manifest()
        why = "is not under way; nothing to cancel" if manifest is None else f"has ended already: {manifest.status}"
        click.echo(f"job {found.id} {why}", err=True)
        sys.exit(1)
    if not cancel_job(active.job, active.output, catalog, state, Broker(make_app(settings, "cli"))):
        click.echo(f"job {active.job} is being stopped already", err=True)
        sys.exit(1)
    click.echo(f"cancelling {active.job}")


def _active(name: str, state: State) -> Progress | None:
    """Return the job of this id or output location that Redis has under way, whatever became of its files."""
    output = None if JOB_ID.fullmatch(name) else normalized(name, "job").rstrip("/")
    known = (progress for progress in state.jobs.progress_of(state.jobs.active()) if progress is not None)
    return next((one for one in known if one.job == name or one.output.rstrip("/") == output), None)
