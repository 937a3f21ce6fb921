"""`results`: a job's rows, from the parts that its manifest names."""

import json
import signal
from itertools import islice
from pathlib import Path
from typing import Any

import click

from jobs.cli.find_job import find_job_to_read
from jobs.cli.run_job import quiet_settings
from jobs.results.convert import to_json, to_rows
from jobs.results.read import result_batches
from jobs.results.render import render
from jobs.results.source_media import SourceMedia
from jobs.results.with_retries import batches_with_retries
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from schemas.output import OwnColumns


@click.command()
@click.argument("job")
@click.option(
    "-n", "--limit", type=click.IntRange(min=0), default=10, show_default=True, help="Rows; 0 is all of them."
)
@click.option("--errors", is_flag=True, help="Only rows with an error.")
@click.option("--partial", is_flag=True, help="Of a job that has not ended: the rows that are there.")
@click.option(
    "--with-retries", is_flag=True, help="With the answers of its retries, newest first, in the places of errors."
)
@click.option("--json", "as_json", is_flag=True, help="A JSON object a row.")
@click.option(
    "--render",
    "drawn",
    type=(click.IntRange(min=1), click.Path(file_okay=False, path_type=Path)),
    metavar="N DIR",
    help="Of a task over pictures or sound: draw the first N rows into DIR, to look at.",
)
def results(
    job: str,
    limit: int,
    errors: bool,
    partial: bool,
    with_retries: bool,
    as_json: bool,
    drawn: tuple[int, Path] | None,
) -> None:
    """Print a job's rows, by its id or output location, in input order.

    The folder data/ below the location has the same as Parquet files, for any reader.

    \b
    nightshift results s3://annotated/reviews/ -n 3
    nightshift results 20261120-031500-k3v9x2 --errors --json
    nightshift results s3://annotated/reviews/ --with-retries -n 0 --json
    nightshift results s3://annotated/photos/ --render 20 look/
    """
    if partial and with_retries:
        raise click.UsageError("--with-retries is for a job that has ended; --partial for one that has not")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it quietly
    settings = quiet_settings()
    storage = Storage()
    catalog = Catalog(settings.catalog_uri, storage)
    found = find_job_to_read(job, catalog)
    if with_retries:
        batches = batches_with_retries(found, catalog, errors_only=errors)
    else:
        batches = result_batches(found, storage, partial=partial, errors_only=errors)
    own = OwnColumns.of(found.spec)
    rows = (row for batch in batches for row in to_rows(batch))
    if drawn is not None:
        count, folder = drawn
        fetch = SourceMedia(found, storage, settings)
        for file in render(found.spec.task_schema, islice(rows, count), fetch, folder, own):
            click.echo(file)
        return
    for row in islice(rows, limit or None):
        click.echo(json.dumps(to_json(row), ensure_ascii=False) if as_json else shown(row, own))


def shown(row: dict[str, Any], own: OwnColumns) -> str:
    """Return a row in one line: its kept columns, cut to fit, then its prediction or error."""
    kept = [f"{name}={_cut(value)}" for name, value in row.items() if name not in own.names]
    error = row[own.error]
    if error is not None:
        return "  ".join([*kept, f"→ error {error['code']}: {error['message']}"])
    # The first entry of `top` is what the other fields say.
    fields = [f"{name}={_cut(value)}" for name, value in row[own.prediction].items() if name != "top"]
    return "  ".join([*kept, "→", *fields])


def _cut(value: Any, width: int = 60) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else "".join(c if c.isprintable() else " " for c in str(value))
    return text if len(text) <= width else text[: width - 1] + "…"
