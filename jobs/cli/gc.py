"""`gc`: results that are no longer wanted are removed, with their jobs."""

import json
from datetime import UTC, datetime, timedelta

import click

from jobs.cli.duration import Duration
from jobs.cli.progress import counted
from jobs.cli.run_job import json_option, quiet_settings
from jobs.results.expiry import Ended, Policy, ended_jobs, expired, remove
from jobs.results.table import print_table
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from schemas.manifest import JobStatus

_ENDS = [status.value for status in JobStatus if status.final]


def _labels(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = [value.partition("=") for value in values]
    if any(not equals for _, equals, _ in pairs):
        raise click.BadParameter("write NAME=VALUE", ctx, param)
    return tuple((name, value) for name, _, value in pairs)


@click.command()
@click.option("--older-than", type=Duration("30d"), metavar="30d", help="Jobs that ended longer ago: 12h, 30d, 4w.")
@click.option(
    "--status", "statuses", type=click.Choice(_ENDS), multiple=True, help="Jobs that ended so; may be given again."
)
@click.option(
    "--keep-latest",
    type=click.IntRange(min=0),
    metavar="N",
    help="Keep the N newest that succeeded of each series: jobs of one task, model and labels.",
)
@click.option("--label", "labels", multiple=True, callback=_labels, metavar="NAME=VALUE", help="Jobs with this label.")
@click.option("--tenant", default="", help="Jobs of this tenant; by default those without one.")
@click.option("--delete", "acts", is_flag=True, help="Remove them. Without it, nothing is removed.")
@json_option
def gc(
    older_than: timedelta | None,
    statuses: tuple[str, ...],
    keep_latest: int | None,
    labels: tuple[tuple[str, str], ...],
    tenant: str,
    acts: bool,
    as_json: bool,
) -> None:
    """List the jobs whose results have expired and, with --delete, remove them: outputs and the catalog's entries.

    A job expires if all conditions that are given apply; at least one of --older-than, --status and --keep-latest has
    to be. What stays in any case: jobs that have not ended, jobs with a retry that stays, the job that a `latest`
    pointer names, jobs of other tenants, and objects at an output that no job wrote.

    \b
    nightshift gc --older-than 30d
    nightshift gc --older-than 30d --keep-latest 7 --label schedule=reviews --delete
    nightshift gc --status failed --status cancelled --delete
    """
    if older_than is None and not statuses and keep_latest is None:
        raise click.UsageError("name what expires: --older-than, --status, --keep-latest, or several of them")
    settings = quiet_settings()
    catalog = Catalog(settings.catalog_uri, Storage())
    policy = Policy(tenant, older_than, frozenset(map(JobStatus, statuses)), keep_latest, labels)
    removed, kept = expired(ended_jobs(catalog, tenant), policy, datetime.now(UTC), catalog)
    if acts:
        _finish(catalog, tenant)
    left: list[str] = []
    for one in removed if acts else ():
        left += remove(one.job, catalog)
    if as_json:
        done = [{"job": o.job.id, "output": o.job.output, "status": o.status, "bytes": o.bytes} for o in removed]
        stays = [{"job": one.job.id, "why": one.why} for one in kept]
        click.echo(json.dumps({"deleted": acts, "jobs": done, "kept": stays, "left": left}))
        return
    _print(removed, acts)
    for job in kept:
        click.echo(f"{job.job.id} stays: {job.why}", err=True)
    for uri in left:
        click.echo(f"{uri} stays: no job wrote it", err=True)


def _finish(catalog: Catalog, tenant: str) -> None:
    """Go on with removals that were interrupted."""
    for id in list(catalog.half_removed()):
        job = catalog.job(id)
        if job is None:
            catalog.forget(id)
        elif job.tenant == tenant:
            remove(job, catalog)


def _print(removed: list[Ended], acts: bool) -> None:
    if removed:
        lines = []
        for one in removed:
            size = f"{one.bytes / 1e6:,.1f}"
            lines.append((one.job.id, one.status.value, f"{one.at:%Y-%m-%d}", f"{one.rows:,}", size, one.job.output))
        print_table(("job", "status", "ended", "rows", "MB", "output"), lines)
    total = sum(one.bytes for one in removed) / 1e6
    what = "removed" if acts else "would be removed; remove them with --delete"
    click.echo(f"{counted(len(removed), 'job')} with {total:,.1f} MB {what}")
