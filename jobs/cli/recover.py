"""`recover`: rebuild Redis from the catalog."""

import json
import sys
from collections import Counter

import click

from jobs.broker import Broker, make_app
from jobs.cli.run_job import json_option, quiet_settings
from jobs.state import State
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.supervisor.recovery import Seen, Standing, rebuild, unfinished

_WORDS = {
    Standing.ENTERED: "entered again",
    Standing.KNOWN: "under way",
    Standing.EMBEDDED: "not the deployment's",
    Standing.UNFINISHED: "not finished",
    Standing.UNREADABLE: "can't be read",
    Standing.AWAY: "can't be read now",
}


@click.command()
@json_option
def recover(as_json: bool) -> None:
    """Enter every job of the catalog that has not ended into Redis again; each goes on from what storage holds.

    For a Redis that was emptied, replaced or restored. Workers do the same by themselves within seconds; this command
    says what it found, and does no harm at any time. Exits with 1 if a job could not be read.

    Without NIGHTSHIFT_REDIS_URL it lists the jobs that stopped, and how to go on with each.

    \b
    nightshift recover
    nightshift recover --json
    """
    settings = quiet_settings()
    catalog = Catalog(settings.catalog_uri, Storage())
    if settings.redis_url is None:
        found = unfinished(catalog)
    else:
        state = State(settings)
        state.ping()
        found = rebuild(state, Broker(make_app(settings, "cli")), catalog)
    counts: Counter[Standing] = Counter()
    for seen in found:
        counts[seen.standing] += 1
        if as_json:
            click.echo(json.dumps({"job": seen.id, "output": seen.output, "standing": seen.standing, "why": seen.why}))
        elif seen.standing in _WORDS:
            click.echo(_line(seen))
    if not as_json:
        going = sum(counts[standing] for standing in (Standing.ENTERED, Standing.KNOWN))
        stopped = counts[Standing.UNFINISHED] + counts[Standing.EMBEDDED]
        words = [f"{going} jobs under way" if settings.redis_url else "there is no deployment here to recover"]
        words += [f"{stopped} stopped"] if stopped or not settings.redis_url else []
        click.echo(f"{', '.join(words)}; the catalog is {catalog.uri}", err=True)
    sys.exit(1 if counts[Standing.UNREADABLE] + counts[Standing.AWAY] else 0)


def _line(seen: Seen) -> str:
    line = f"{seen.id}  {_WORDS[seen.standing]}  {seen.output}"
    if seen.why:
        line += f"  {seen.why}"
    if seen.standing in (Standing.UNFINISHED, Standing.EMBEDDED):
        line += f"\n  unless a run is under way, go on with: nightshift resume {seen.output}"
    return line
