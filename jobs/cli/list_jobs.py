"""`jobs`: the jobs of the catalog, ended ones too, as the API lists them."""

from collections.abc import Iterator
from itertools import islice
from typing import get_args

import click

from jobs.api.responses import EndView, JobView, Status
from jobs.cli.run_job import json_option, quiet_settings
from jobs.parallel_map import parallel_map
from jobs.settings import Settings
from jobs.state import Progress, State
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from schemas.errors import Permanent, ServiceUnavailable, SpecError

#: Jobs that are read at once.
_READERS = 16


@click.command()
@click.option("--status", "statuses", multiple=True, type=click.Choice(get_args(Status)), help="May be given again.")
@click.option("--task", help="A task's id.")
@click.option("--label", "labels", multiple=True, metavar="NAME:VALUE", help="May be given again: all must be there.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@json_option
def jobs(statuses: tuple[str, ...], task: str | None, labels: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Jobs, newest first, ended ones too. Those that `nightshift run` ran itself are there as well.

    \b
    nightshift jobs --status failed --limit 5
    nightshift jobs --label schedule:nightly-reviews
    """
    settings = quiet_settings()
    wanted = dict(map(_label, labels))
    empty = True
    for view in islice(_matching(settings, set(statuses), task, wanted), limit):
        empty = False
        click.echo(view.model_dump_json() if as_json else _line(view))
    if empty and not as_json:
        click.echo("there is no such job", err=True)


def _label(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise click.BadParameter(f"{text!r} is not of the form NAME:VALUE", param_hint="--label")
    return name, value


def _matching(settings: Settings, statuses: set[str], task: str | None, labels: dict[str, str]) -> Iterator[JobView]:
    catalog = Catalog(settings.catalog_uri, Storage())
    state = State(settings) if settings.redis_url is not None else None
    for view in parallel_map(lambda id: _view(id, catalog, state), sorted(catalog.ids(), reverse=True), _READERS):
        if (
            view is not None
            and (not statuses or view.status in statuses)
            and (task is None or view.task == task)
            and labels.items() <= view.labels.items()
        ):
            yield view


def _view(id: str, catalog: Catalog, state: State | None) -> JobView | None:
    """Return the job, and how far it is; None if it was never accepted, or can't be read."""
    try:
        job = catalog.job(id)
        if job is None or catalog.came_second(job):
            return None
        progress, answered = _progress(id, state)
        end = None
        if progress is None or progress.status.final:
            manifest = catalog.folder(job.output).read_manifest()
            end = None if manifest is None else EndView.of(manifest)
    except (Permanent, SpecError) as error:
        click.echo(f"job {id} can't be read: {error.message}", err=True)
        return None
    if end is None and progress is not None and progress.status.final:
        end = EndView.of_progress(progress)
    return JobView.of(job, progress, end, answered)


def _progress(id: str, state: State | None) -> tuple[Progress | None, bool]:
    try:
        return (None if state is None else state.jobs.progress(id)), True
    except ServiceUnavailable:
        return None, False


def _line(view: JobView) -> str:
    done, errors = 0, 0
    if view.end is not None:
        done, errors = view.end.records, view.end.error_rows
    elif view.progress is not None:
        done, errors = view.progress.records_done, sum(view.progress.errors.values())
    records = f"{done:,} records" + (f", {errors:,} errors" if errors else "")
    return "  ".join([view.id, view.status, view.task, records, view.output])
