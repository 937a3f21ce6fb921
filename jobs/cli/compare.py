"""`compare`: how the results of two jobs differ."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from jobs.cli.find_job import find_job_to_read
from jobs.cli.run_job import json_option, quiet_settings
from jobs.results.compare import Comparer, Comparison
from jobs.results.export import export
from jobs.results.plot import plot
from jobs.results.read import result_batches
from jobs.results.table import print_table
from jobs.results.with_retries import batches_with_retries
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from schemas.errors import SpecError
from schemas.job import AcceptedJob
from schemas.output import OwnColumns

#: Changed labels that are listed.
_SHOWN = 20


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--key", metavar="COLUMN", help="Match rows by this kept column; by default by input file and row.")
@click.option("--with-retries", is_flag=True, help="Both with the answers of their retries.")
@click.option(
    "--to",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.parquet",
    help="A row for each.",
)
@click.option(
    "--plot",
    "picture",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.svg|png",
    help="A picture.",
)
@json_option
def compare(
    a: str, b: str, key: str | None, with_retries: bool, target: Path | None, picture: Path | None, as_json: bool
) -> None:
    """Compare the results of two jobs of one task: agreement, changed labels, differences of the answers.

    What is measured depends on the prediction: scores of equal labels, F1 of entities, boxes and segments, the share of
    words in common of texts, the cosine of embeddings. The predictions of both jobs are held in memory.

    \b
    nightshift compare s3://annotated/reviews/old-model/ s3://annotated/reviews/new-model/
    nightshift compare A B --key id --to changed.parquet --plot changed.svg
    """
    if picture is not None and picture.suffix not in (".svg", ".png"):
        raise SpecError.of("plot", f"{picture} has to end in .svg or .png")
    settings = quiet_settings()
    catalog = Catalog(settings.catalog_uri, Storage())
    jobs = [find_job_to_read(name, catalog) for name in (a, b)]
    sides = [(_batches(job, catalog, with_retries), OwnColumns.of(job.spec)) for job in jobs]
    comparer = Comparer(sides[0], sides[1], key)
    rows = comparer.rows()
    first = next(rows)
    tables = (batch for table in (first, *rows) for batch in table.to_batches())
    if target is not None:
        export(tables, first.schema, "parquet", str(target))
    else:
        for _ in tables:
            continue
    found = comparer.found
    if picture is not None:
        plot(found, f"A {jobs[0].id} ({jobs[0].spec.model}) and B {jobs[1].id} ({jobs[1].spec.model})", picture)
    if as_json:
        click.echo(json.dumps(_as_json(found)))
    else:
        _print(found, jobs)


def _batches(job: AcceptedJob, catalog: Catalog, with_retries: bool) -> Iterator[pa.RecordBatch]:
    return batches_with_retries(job, catalog) if with_retries else result_batches(job, catalog.storage)


def _spread(values: list[float]) -> dict[str, float]:
    found = np.asarray(values)
    points = {"mean": found.mean(), "min": found.min(), "max": found.max(), "mean_absolute": np.abs(found).mean()}
    points |= {f"p{point:02d}": np.percentile(found, point) for point in (5, 50, 95)}
    return {name: float(value) for name, value in points.items()}


def _as_json(found: Comparison) -> dict[str, Any]:
    return {
        "rows": found.rows,
        "only_a": found.only_a,
        "only_b": found.only_b,
        "no_key": found.no_key,
        "answered": found.answered,
        "same": found.same,
        "agreement": found.agreement,
        "measure": found.measure.value,
        "values": _spread(found.values) if found.values else None,
        "errors": [{"a": a or None, "b": b or None, "rows": count} for (a, b), count in found.errors.most_common()],
        "changed": [{"a": a, "b": b, "rows": count} for (a, b), count in found.changed],
    }


def _print(found: Comparison, jobs: list[AcceptedJob]) -> None:
    for side, job in zip("AB", jobs, strict=True):
        click.echo(f"{side}  {job.id}  {job.spec.task}  {job.spec.model}")
    lines = [("rows in both", f"{found.rows:,}")]
    lines += [(f"only in {side}", f"{n:,}") for side, n in (("A", found.only_a), ("B", found.only_b)) if n]
    lines += [("left out: key null or repeated", f"{found.no_key:,}")] if found.no_key else []
    lines += [("answered in both", f"{found.answered:,}"), (f"same {found.measure.kind}", f"{found.same:,}")]
    lines += [("agreement", f"{found.agreement:.2%}")] if found.agreement is not None else []
    for (a, b), count in found.errors.most_common():
        lines.append((f"error {a or 'none'} in A, {b or 'none'} in B", f"{count:,}"))
    print_table(("", "rows"), lines)
    if found.values:
        spread = _spread(found.values)
        click.echo(f"\n{found.measure.value}, of {len(found.values):,} rows")
        print_table(tuple(spread), [[f"{value:.4f}" for value in spread.values()]])
    if found.changed:
        click.echo(f"\nchanged {found.measure.kind}s")
        print_table(("rows", "A", "B"), [(f"{count:,}", a, b) for (a, b), count in found.changed[:_SHOWN]])
        if len(found.changed) > _SHOWN:
            click.echo(f"… and {len(found.changed) - _SHOWN:,} more pairs")
