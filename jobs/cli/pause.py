"""`pause` and `continue`: hold a job back, and let it go on."""

import sys

import click

from jobs.broker import Broker, make_app
from jobs.cli.find_job import find_job
from jobs.cli.run_job import quiet_settings
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from schemas.job import AcceptedJob


def _found(job: str) -> tuple[Settings, AcceptedJob]:
    settings = quiet_settings()
    return settings, find_job(job, Catalog(settings.catalog_uri, Storage()))


@click.command()
@click.argument("job")
def pause(job: str) -> None:
    """Hold a job back: no more of its shards are handed out. Those that workers have in hand are finished.

    \b
    nightshift pause 20261120-031500-k3v9x2
    """
    settings, found = _found(job)
    if not State(settings).jobs.pause(found.id):
        click.echo(f"job {found.id} is not under way", err=True)
        sys.exit(1)
    click.echo(f"paused {found.id}; go on with: nightshift continue {found.id}")


@click.command(name="continue")
@click.argument("job")
def continue_(job: str) -> None:
    """Let a paused job go on.

    \b
    nightshift continue 20261120-031500-k3v9x2
    """
    settings, found = _found(job)
    state = State(settings)
    if not state.jobs.resume(found.id):
        click.echo(f"job {found.id} is not paused", err=True)
        sys.exit(1)
    Broker(make_app(settings, "cli")).release(state, found.spec.task_schema)
    click.echo(f"continuing {found.id}")
