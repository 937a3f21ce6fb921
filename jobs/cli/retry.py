"""`retry`: what a job could not do, as a job of its own."""

import json

import click

from jobs.cli.find_job import find_job
from jobs.cli.run import processes_option
from jobs.cli.run_job import conclude, json_option, quiet_settings, run_accepted, submitter_of
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.submission.retry import accept_retry, nothing_to_retry


@click.command()
@click.argument("job")
@click.option("--output", help="Where the answers go; by default beside the job's own, OUTPUT-retry-1/ and so on.")
@processes_option
@json_option
def retry(job: str, output: str | None, processes: int | None, as_json: bool) -> None:
    """Run the records of a job that have an error once more, and what it lost or never came to, and wait.

    The job is named by its id or output location, must have ended and stays as it is: the new answers have a location
    and a manifest of their own. `nightshift results JOB --with-retries` reads both as one. Exits as `run` does; with 0
    if there is nothing to retry. A retry that was interrupted goes on where it stopped: run it again.

    \b
    nightshift retry s3://annotated/reviews/
    nightshift retry 20261120-031500-k3v9x2 --output s3://annotated/reviews-again/
    """
    settings = quiet_settings()
    storage = Storage()
    catalog = Catalog(settings.catalog_uri, storage)
    parent = find_job(job, catalog)
    manifest = catalog.folder(parent.output).read_manifest()
    if manifest is not None and nothing_to_retry(manifest):
        click.echo(f"nothing to retry: every record of job {parent.id} has an answer", err=True)
        if as_json:
            click.echo(json.dumps({"job": None, "parent": parent.id}))
        return
    accepted, manifest = run_accepted(
        lambda: accept_retry(parent, output, submitter_of(settings, storage), settings),
        parent.spec.task_schema, storage, settings, processes, as_json,
    )  # fmt: skip
    conclude(manifest, accepted, as_json)
