"""`results`: a job's rows, from the parts that its manifest names; shown, filtered, joined with the input, written."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from jobs.cli.find_job import find_job_to_read
from jobs.cli.run_job import quiet_settings
from jobs.results.arrow_stream import limited
from jobs.results.convert import to_json, to_rows
from jobs.results.export import FORMATS, export
from jobs.results.join import joined
from jobs.results.read import followed_batches, result_batches, result_schema
from jobs.results.render import render
from jobs.results.source_media import SourceMedia
from jobs.results.table import one_line, print_rows, print_table, schema_lines
from jobs.results.where import Where
from jobs.results.with_retries import batches_with_retries
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from schemas.job import AcceptedJob
from schemas.output import OwnColumns

#: Rows that are shown unless another number is named.
_SHOWN = 10


@click.command()
@click.argument("job")
@click.option(
    "-n",
    "--head",
    "--limit",
    "limit",
    type=click.IntRange(min=0),
    help=f"Rows; 0 is all of them. By default {_SHOWN}, and all with --to and --follow.",
)
@click.option("--schema", "only_schema", is_flag=True, help="The columns, with their types and what they mean.")
@click.option("--where", metavar="CONDITION", help="Only rows for which this is true, such as 'score < 0.5'.")
@click.option("--errors", is_flag=True, help="Only rows with an error.")
@click.option("--by-code", is_flag=True, help="How many rows have each error, with an example.")
@click.option("--join", "with_input", is_flag=True, help="With the input's other columns.")
@click.option("--partial", is_flag=True, help="Of a job that has not ended: the rows that are there.")
@click.option("--follow", is_flag=True, help="Rows as they are committed, until the job ends.")
@click.option(
    "--with-retries", is_flag=True, help="With the answers of its retries, newest first, in the places of errors."
)
@click.option("--json", "as_json", is_flag=True, help="A JSON object a row.")
@click.option(
    "--to",
    "target",
    type=(click.Choice(FORMATS), str),
    metavar="FORMAT FILE",
    help="Write all rows as csv, jsonl or parquet to a file, or to standard output for `-`.",
)
@click.option(
    "--render",
    "drawn",
    type=(click.IntRange(min=1), click.Path(file_okay=False, path_type=Path)),
    metavar="N DIR",
    help="Of a task over pictures or sound: draw the first N rows into DIR, to look at.",
)
def results(
    job: str,
    limit: int | None,
    only_schema: bool,
    where: str | None,
    errors: bool,
    by_code: bool,
    with_input: bool,
    partial: bool,
    follow: bool,
    with_retries: bool,
    as_json: bool,
    target: tuple[str, str] | None,
    drawn: tuple[int, Path] | None,
) -> None:
    """Print a job's rows, by its id, its output location or a `latest` pointer, in input order.

    The folder data/ below the location has the same as Parquet files, for any reader. In a condition, a name is a
    column or a field of the prediction: 'score < 0.5 and label in ["A", "B"]', 'error.code == "too_large"',
    'contains(lower(review), "battery") or len(review) > 1000', 'col("a name") is None'.

    \b
    nightshift results s3://annotated/reviews/ --where 'score < 0.6 and label == "POSITIVE"'
    nightshift results 20261120-031500-k3v9x2 --errors --by-code
    nightshift results s3://annotated/reviews/ --join --to csv reviews.csv
    nightshift results s3://annotated/reviews/ --with-retries -n 0 --json
    nightshift results s3://annotated/photos/ --render 20 look/
    """
    _check_together(partial, follow, with_retries)
    condition = None if where is None else Where(where)
    settings = quiet_settings()
    storage = Storage()
    catalog = Catalog(settings.catalog_uri, storage)
    found = find_job_to_read(job, catalog)
    if only_schema:
        print_table(("column", "type", "what it is"), schema_lines(result_schema(found, storage)))
        return
    if with_retries:
        batches = batches_with_retries(found, catalog, errors_only=errors or by_code)
    elif follow:
        batches = followed_batches(found, storage, errors_only=errors or by_code)
    else:
        batches = result_batches(found, storage, partial=partial, errors_only=errors or by_code)
    if with_input:
        batches = joined(batches, found, storage, settings)
    own = OwnColumns.of(found.spec)
    if condition is not None:
        batches = condition.filtered(batches, own.prediction)
    if by_code:
        _print_codes(batches, own, as_json)
    elif drawn is not None:
        _render(batches, found, storage, settings, drawn)
    elif target is not None:
        count = export(limited(batches, limit or None), result_schema(found, storage), *target)
        click.echo(f"{count:,} rows written to {target[1]}", err=True)
    else:
        shown_rows = _SHOWN if limit is None and not follow else limit or None
        _print(limited(batches, shown_rows), found, as_json, follow)


def _check_together(partial: bool, follow: bool, with_retries: bool) -> None:
    if with_retries and (partial or follow):
        raise click.UsageError("--with-retries is for a job that has ended; --partial and --follow are not")


def _rows(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    return (row for batch in batches for row in to_rows(batch))


def _print(batches: Iterator[pa.RecordBatch], job: AcceptedJob, as_json: bool, follow: bool) -> None:
    own = OwnColumns.of(job.spec)
    if not as_json and not follow:
        print_rows(_rows(batches), job.spec.task_schema, own)
        return
    for row in _rows(batches):
        click.echo(json.dumps(to_json(row), ensure_ascii=False) if as_json else shown(row, own))


def _print_codes(batches: Iterator[pa.RecordBatch], own: OwnColumns, as_json: bool) -> None:
    """Print how many rows have each error, the most frequent first, with the first of them."""
    counts: Counter[str] = Counter()
    first: dict[str, dict[str, Any]] = {}
    for row in _rows(batches):
        code = row[own.error]["code"]
        counts[code] += 1
        first.setdefault(code, row)
    if as_json:
        examples = {code: to_json({name: row[name] for name in own.names[1:]}) for code, row in first.items()}
        click.echo(json.dumps({code: {"rows": count, "first": examples[code]} for code, count in counts.most_common()}))
        return
    lines = []
    for code, count in counts.most_common():
        row = first[code]
        place = f"{row[own.source_uri]} row {row[own.source_row]}"
        lines.append((f"{count:,}", code, row[own.error]["message"], place))
    print_table(("rows", "error", "message of the first", "which is"), lines)


def _render(
    batches: Iterator[pa.RecordBatch], job: AcceptedJob, storage: Storage, settings: Settings, drawn: tuple[int, Path]
) -> None:
    count, folder = drawn
    media = SourceMedia(job, storage, settings)
    for file in render(job.spec.task_schema, islice(_rows(batches), count), media, folder, OwnColumns.of(job.spec)):
        click.echo(file)


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
    text = one_line(value)
    return text if len(text) <= width else text[: width - 1] + "…"
