"""`api`: the HTTP API's server."""

import signal
import sys

import click

from jobs import logs
from jobs.settings import Settings
from schemas.extras import missing_modules, pip_install


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
def api(host: str, port: int) -> None:
    """Serve the HTTP API until stopped. The routes are documented at /openapi.json.

    With NIGHTSHIFT_REDIS_URL set the deployment's workers do the work, and every request needs a token: see
    `nightshift token new`. Without, this command starts a Redis and a worker of its own, and listens on this machine
    alone, where no token is needed.

    \b
    nightshift api
    NIGHTSHIFT_REDIS_URL=redis://localhost:6379/0 nightshift api --host 0.0.0.0 --port 8080
    """
    missing = missing_modules("api")
    if missing:
        raise click.ClickException(f"{', '.join(missing)} not installed: {pip_install('api')}")
    from jobs.api.serve import serve

    settings = Settings.read()
    logs.configure(settings.log_level, settings.log_format)
    try:
        serve(settings, host, port)
    except KeyboardInterrupt:  # uvicorn raises the signal that ended it once more
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(0)
