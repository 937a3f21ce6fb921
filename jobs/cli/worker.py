"""`worker`: run shards for a deployment."""

import click

from jobs import logs
from jobs.settings import Settings
from jobs.state import State
from jobs.supervisor.celery_processes import CeleryProcesses
from jobs.supervisor.supervisor import Supervisor
from schemas.errors import SpecError
from schemas.extras import check_installed
from schemas.task import Group


@click.command()
@click.option(
    "--groups",
    default=",".join(Group),
    show_default=True,
    help="Tasks to serve, by group; `control` plans and finishes jobs and needs no GPU.",
)
@click.option("--processes", type=click.IntRange(min=1), help="Processes; by default one a GPU, or one on a CPU.")
def worker(groups: str, processes: int | None) -> None:
    """Run shards until stopped. SIGTERM or Ctrl-C puts the shards in hand back and leaves. Needs NIGHTSHIFT_REDIS_URL.

    \b
    NIGHTSHIFT_REDIS_URL=redis://localhost:6379/0 nightshift worker
    NIGHTSHIFT_REDIS_URL=redis://localhost:6379/0 nightshift worker --groups text --processes 2
    """
    settings = Settings.read()
    logs.configure(settings.log_level, settings.log_format)
    chosen = []
    for name in groups.split(","):
        if name not in list(Group):
            raise SpecError.of("--groups", f"there is no group {name!r}; groups: {', '.join(Group)}")
        chosen.append(Group(name))
    State(settings).ping()
    for group in chosen:
        check_installed(group)
    with CeleryProcesses(settings, chosen, processes) as children:
        Supervisor(settings, children).run()
