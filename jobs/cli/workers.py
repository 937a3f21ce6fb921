"""`workers`: the workers of a deployment, what they have in hand, and which of them take no shards, and why."""

import json
from dataclasses import asdict
from datetime import UTC, datetime

import click

from jobs.cli.progress import counted
from jobs.cli.run_job import json_option, quiet_settings
from jobs.state import State, WorkerInfo


@click.command()
@json_option
def workers(as_json: bool) -> None:
    """The workers that have reported within the last minute. Needs NIGHTSHIFT_REDIS_URL.

    A process at which shards failed that others did is suspended: it takes none for a while, then tries one.

    \b
    nightshift workers
    nightshift workers --json
    """
    found = State(quiet_settings()).workers.alive()
    if as_json:
        click.echo(json.dumps([asdict(worker) for worker in found]))
        return
    for worker in found:
        _show(worker)
    if not found:
        click.echo("no worker has reported within the last minute; start one with: nightshift worker", err=True)


def _show(worker: WorkerInfo) -> None:
    devices = ", ".join(worker.devices)
    plural = "process" if worker.processes == 1 else "processes"
    click.echo(
        f"{worker.name}  {','.join(worker.groups)}  {worker.processes} {plural}"
        f"{' on ' + devices if devices else ''}  {counted(len(worker.work), 'shard')} in hand"
    )
    for one in worker.suspended:
        until = datetime.fromtimestamp(one.until, UTC)
        click.echo(
            f"  {one.process} is suspended until {until:%H:%M:%S} UTC, after {counted(one.failures, 'failure')} "
            f"in a row: {one.why}"
        )
