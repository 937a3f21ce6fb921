"""The broker: how Celery is set up on both sides, and the messages sent through it.

Each setting follows from a fault that was seen; docs/decisions/0003 lists them. A message carries nothing that only it
knows: to lose one, or to get it twice, does no harm.
"""

import os
from typing import TYPE_CHECKING

from celery import Celery  # imports itself at its first use

from jobs import logs
from jobs.settings import Settings
from schemas.errors import ServiceUnavailable

if TYPE_CHECKING:
    from jobs.state import State
    from schemas.task import Task

RUN_SHARD = "run_shard"
PLAN_JOB = "plan_job"
FINISH_JOB = "finish_job"
NOTIFY_JOB = "notify_job"
CONTROL_QUEUE = "nightshift.control"

#: Seconds until Redis hands an unacknowledged message out again: far above any shard. Leases find lost work sooner.
VISIBILITY_TIMEOUT_S = 24 * 3600


def task_queue(task: str) -> str:
    """Return the name of the queue of a task's shards."""
    return f"nightshift.{task}"


def make_app(settings: Settings, name: str) -> Celery:
    """Return a Celery application on the deployment's Redis."""
    if settings.redis_url is None:
        raise ServiceUnavailable("no Redis is set up: set NIGHTSHIFT_REDIS_URL, such as redis://localhost:6379/0")
    # What redis-py calls unix:// is redis+socket:// to kombu.
    url = settings.redis_url.get_secret_value().replace("unix://", "redis+socket://", 1)
    app = Celery(name, broker=url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=1,
        worker_concurrency=1,
        worker_pool="prefork",
        worker_pool_start_method="spawn",
        worker_proc_alive_timeout=120,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        task_create_missing_queues=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "socket_keepalive": True,
            "health_check_interval": 30,
        },
        task_publish_retry_policy={"max_retries": 3, "interval_start": 0.2, "interval_step": 0.5},
    )
    return app


def serve(app: Celery, settings: Settings, module: str) -> None:
    """Make this process a server of the app's functions, which `module` defines. Only the entry points call it."""
    from celery.signals import setup_logging, worker_process_shutdown, worker_shutting_down

    app.conf.include = [module]
    logs.configure(settings.log_level, settings.log_format)
    # Connected, so that Celery sets up no logging of its own, in this process or the child it spawns.
    setup_logging.connect(lambda **_: logs.configure(settings.log_level, settings.log_format), weak=False)
    worker_process_shutdown.connect(_leave, weak=False)
    stop_file = settings.stop_file
    if stop_file is not None:  # so that the child puts its shard back even if the supervisor was killed
        worker_shutting_down.connect(lambda **_: stop_file.touch(), weak=False)


def _leave(exitcode: int, **_: object) -> None:
    """End a child that was told to: billiard sleeps for a second here, for a parent that wants to hear of its death."""
    if exitcode == 0:
        os._exit(0)


class Broker:
    """Sends messages. Raises ServiceUnavailable if Redis can't be reached."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def release(self, state: "State", task: "Task") -> int:
        """Send as many messages as are missing for the task's waiting shards, up to its window. Return how many.

        A message is a ticket, and names no shard: which one runs is chosen when it is taken (docs/decisions/0010).
        Called after each shard taken or put back, and by the sweep.
        """
        queue = task_queue(task.id)
        missing = state.shards.tickets_missing(task.id, state.workers.window(task.group), queue)
        if missing:
            try:
                for _ in range(missing):
                    self._send(RUN_SHARD, queue, {"task": task.id})
            finally:
                state.shards.tickets_sent(task.id, missing)
        return missing

    def plan_job(self, job: str, output: str) -> None:
        self._send(PLAN_JOB, CONTROL_QUEUE, {"job": job, "output": output})

    def finish_job(self, job: str, output: str) -> None:
        self._send(FINISH_JOB, CONTROL_QUEUE, {"job": job, "output": output})

    def notify_job(self, job: str, output: str) -> None:
        self._send(NOTIFY_JOB, CONTROL_QUEUE, {"job": job, "output": output})

    def _send(self, function: str, queue: str, message: dict[str, object]) -> None:
        from kombu.exceptions import OperationalError

        try:
            self._app.send_task(function, kwargs=message, queue=queue)
        except OperationalError as error:
            raise ServiceUnavailable(f"Redis can't be reached to send a message: {error}") from error
