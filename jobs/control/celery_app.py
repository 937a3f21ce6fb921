"""The Celery application of the control process: `celery -A jobs.control.celery_app worker`. An entry point."""

import os
import secrets
from functools import cache

from jobs.broker import FINISH_JOB, NOTIFY_JOB, PLAN_JOB, Broker, make_app, serve
from jobs.control.controller import Control
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage

settings = Settings.read()
app = make_app(settings, "jobs.control.celery_app")
serve(app, settings, "jobs.control.celery_app")


@cache
def _control() -> Control:
    name = f"{settings.host}-{os.getpid()}-{secrets.token_hex(3)}"
    return Control(settings, State(settings), Broker(app), Storage(), name)


@app.task(name=PLAN_JOB)  # type: ignore[untyped-decorator]
def plan_job(job: str, output: str) -> None:
    _control().plan_job(job, output)


@app.task(name=FINISH_JOB)  # type: ignore[untyped-decorator]
def finish_job(job: str, output: str) -> None:
    _control().finish_job(job, output)


@app.task(name=NOTIFY_JOB)  # type: ignore[untyped-decorator]
def notify_job(job: str, output: str) -> None:
    _control().notify_job(job, output)
