"""`compact`: a job's rows in few large files, at another location."""

import click

from jobs.cli.find_job import find_job_to_read
from jobs.cli.progress import counted
from jobs.cli.run_job import json_option, quiet_settings
from jobs.results.compact import Compactor
from jobs.storage import Storage
from jobs.storage.base import normalized
from jobs.storage.catalog import Catalog
from schemas.errors import SpecError
from schemas.layout import Layout


@click.command()
@click.argument("job")
@click.option("--to", "location", required=True, metavar="LOCATION/", help="Where the files go: an empty prefix.")
@click.option(
    "--megabytes", default=512, show_default=True, type=click.IntRange(min=1), help="Size of a file, at which it ends."
)
@click.option("--partition-by", metavar="COLUMN", help="A column whose values are folders, such as country=DE/.")
@json_option
def compact(job: str, location: str, megabytes: int, partition_by: str | None, as_json: bool) -> None:
    """Write a job's rows into few large files, in the same order, at another location.

    The job's own parts stay as they are. Each part is held to the checksum in the manifest on the way. The files are in
    LOCATION/data/, in row groups of 100,000 rows; LOCATION/_compacted.json is written last. A compaction that was
    interrupted goes on: run it again.

    \b
    nightshift compact s3://annotated/reviews/ --to s3://annotated/reviews-compact/
    nightshift compact s3://annotated/reviews/ --to s3://annotated/by-country/ --partition-by country
    """
    settings = quiet_settings()
    storage = Storage()
    found = find_job_to_read(job, Catalog(settings.catalog_uri, storage))
    target = normalized(location, "to").rstrip("/") + "/"
    settings.check_allowed(target, settings.allowed_outputs, "to")
    if target.startswith(found.output) or found.output.startswith(target):
        raise SpecError.of("to", f"{target!r} overlaps with the job's output, whose readers would see rows twice")
    made = Compactor(found, target, storage, megabytes << 20, partition_by).run()
    if as_json:
        click.echo(made.model_dump_json())
        return
    files, rows = counted(len(made.files), "file"), counted(made.rows, "row")
    click.echo(f"{counted(made.parts, 'part')} → {files} with {rows}, in {Layout.DATA.parts_in(target)}")
