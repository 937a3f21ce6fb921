"""`run`, `submit`, `plan` and `resume`: from a spec, or a job that stopped, to a job under way."""

import json
from typing import Any

import click

from jobs.broker import Broker, make_app
from jobs.cli.find_job import find_job
from jobs.cli.progress import duration
from jobs.cli.run_job import (
    conclude,
    json_option,
    quiet_settings,
    run_spec,
    run_to_end,
    series_words,
    skipped_words,
    submitter_of,
    validated,
    validated_job,
)
from jobs.cli.spec_options import spec_from_options, spec_options
from jobs.planning.planner import planned, shard_limits
from jobs.planning.unseen import series_of, unseen_in
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.submission.accept import enqueue, found_job
from jobs.submission.estimate import estimate
from jobs.submission.validate import with_full_uris
from schemas.job import AcceptedJob, JobSpec

processes_option = click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Worker processes, if no deployment is set up; default 1.",
)


@click.command()
@spec_options
@processes_option
@json_option
def run(processes: int | None, as_json: bool, **options: Any) -> None:
    """Run a job and wait for it, with progress.

    With NIGHTSHIFT_REDIS_URL set the deployment's workers do the work; without, this command starts what it needs and
    ends it again. A job that was interrupted goes on where it stopped: run it again.

    \b
    nightshift run job.yaml
    nightshift run --task text-classification --model distilbert/distilbert-base-uncased-finetuned-sst-2-english \\
      --input s3://raw/reviews/ --output s3://annotated/reviews/ --column text=review_body --param top_k=2
    nightshift run job.yaml --output s3://annotated/reviews/2026-11-20/ \\
      --set incremental.series=s3://annotated/reviews/_series/ --set reuse=true
    """
    settings = quiet_settings()
    storage = Storage()
    job, manifest = run_spec(spec_from_options(**options), storage, settings, processes, as_json)
    conclude(manifest, job, as_json)


@click.command()
@click.argument("job")
@processes_option
@json_option
def resume(job: str, processes: int | None, as_json: bool) -> None:
    """Go on with a job that stopped, by its id or output location: only what is missing is run.

    Needs nothing but storage: it works after Redis was emptied or replaced.

    \b
    nightshift resume s3://annotated/reviews/
    """
    settings = quiet_settings()
    storage = Storage()
    found = find_job(job, Catalog(settings.catalog_uri, storage))
    accepted = found_job(found, storage)
    conclude(run_to_end(accepted, storage, settings, processes, as_json), accepted.job, as_json)


@click.command()
@spec_options
@json_option
def submit(as_json: bool, **options: Any) -> None:
    """Hand a job to the deployment's workers, print its id and return. Needs NIGHTSHIFT_REDIS_URL.

    \b
    nightshift submit job.yaml
    """
    settings = quiet_settings()
    state = State(settings)  # raises if no Redis is set up
    storage = Storage()
    spec = with_full_uris(spec_from_options(**options))
    accepted = submitter_of(settings, storage).accept(spec, lambda: _job_to_submit(spec, state, storage, settings))
    job = accepted.job
    if not accepted.ended:
        enqueue(job, state, Broker(make_app(settings, "cli")), accepted.is_new)
    if as_json:
        click.echo(json.dumps({"job": job.id, "output": job.output, "found": accepted.found.value}))
    else:
        if not accepted.is_new:
            click.echo(f"{job.output} already has this job, {accepted.found.value}", err=True)
        click.echo(job.id)


def _job_to_submit(spec: JobSpec, state: State, storage: Storage, settings: Settings) -> AcceptedJob:
    job = validated_job(spec, storage, settings)
    state.ping()  # before anything is written for the job
    return job


@click.command()
@spec_options
@click.option("--no-sample", is_flag=True, help="Don't load the model to estimate the time.")
@json_option
def plan(no_sample: bool, as_json: bool, **options: Any) -> None:
    """Validate a job and print its shards, records, bytes and estimated time. Queues and writes nothing.

    The estimate runs the model over the first records of the input, here.

    \b
    nightshift plan job.yaml
    nightshift plan job.yaml --set incremental.series=s3://annotated/reviews/_series/
    """
    settings = quiet_settings()
    storage = Storage()
    spec = with_full_uris(spec_from_options(**options))
    checked = validated(spec, storage, settings)
    there = submitter_of(settings, storage).find(spec)
    if there is not None and not as_json:
        click.echo(f"{spec.output.uri} already has this job, {there.found.value}", err=True)
    sample = None if no_sample else estimate(checked, storage, settings)
    limits = shard_limits(checked.spec, sample.rows_per_s if sample else None, settings.max_shards)
    series = series_of(checked.spec, storage)
    unseen = None if series is None else unseen_in(series, checked.spec, checked.model)
    made = planned(checked.spec, checked.columns, storage, settings, limits, unseen=unseen)
    count = rows = size = 0
    for shard in made.shards:
        count, rows, size = count + 1, rows + shard.rows, size + shard.bytes
    result: dict[str, Any] = {"shards": count, "records": rows, "bytes": size, "skipped": made.skipped}
    if unseen is not None:
        result["series"] = unseen.run.model_dump()
    if sample is not None:
        result |= {
            "records_per_s": sample.rows_per_s,
            "seconds": rows / sample.rows_per_s,
            "sample": sample.rows,
        }
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(f"{count:,} shards, {rows:,} records, {size / 1e6:,.1f} MB of input")
    if made.skipped:
        click.echo("skipped: " + skipped_words(made.skipped))
    if unseen is not None:
        click.echo(series_words(unseen.run))
    if sample is not None:
        click.echo(
            f"about {duration(result['seconds'])} on one process like this one: {sample.rows_per_s:,.0f} records/s "
            f"over a sample of {sample.rows}, once the model is loaded ({sample.load_s:.1f} s)"
        )
