"""Nightshift in Airflow 3: an operator that submits a job, and waits for it without a worker slot.

    from nightshift.integrations.airflow import NightshiftOperator

    NightshiftOperator(
        task_id="annotate",
        spec={
            "task": "text-classification",
            "model": "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
            "input": {"uri": "s3://raw/reviews/{{ ds }}/"},
            "output": {"uri": "s3://annotated/reviews/{{ ds }}/"},
        },
    )

The connection `nightshift_default` says where the server is: its host, or whole URL, and the token as its password.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.exceptions import AirflowException
from airflow.sdk import BaseHook, BaseOperator, Context
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from nightshift import Client, Job
from nightshift.integrations._job import started, summary


class NightshiftHook(BaseHook):
    """Makes the client of a connection."""

    conn_name_attr = "conn_id"
    default_conn_name = "nightshift_default"
    conn_type = "nightshift"
    hook_name = "Nightshift"

    def __init__(self, conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.conn_id = conn_id

    def get_conn(self) -> Client:
        """Return a client of the server that the connection names."""
        found = self.get_connection(self.conn_id)
        host = found.host or "127.0.0.1"
        scheme = found.schema or "http"
        url = host if "://" in host else f"{scheme}://{host}"
        return Client(f"{url}:{found.port}" if found.port else url, found.password or None)


class NightshiftTrigger(BaseTrigger):
    """Fires once a job has ended. It asks every `poll_s` seconds, and holds no worker slot."""

    def __init__(self, conn_id: str, job: str, poll_s: float) -> None:
        super().__init__()
        self.conn_id = conn_id
        self.job = job
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return name, {"conn_id": self.conn_id, "job": self.job, "poll_s": self.poll_s}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        client = await sync_to_async(NightshiftHook(self.conn_id).get_conn)()
        try:
            while not (job := await asyncio.to_thread(client.job, self.job)).ended:
                await asyncio.sleep(self.poll_s)
        finally:
            client.close()
        yield TriggerEvent(summary(job))


class NightshiftOperator(BaseOperator):
    """Runs a job, and returns its id, output, counts and table version.

    A try of a task instance finds the job of the tries before it. If that failed, the task's retry runs what has no
    answer as a retry of the job. With `deferrable=False` the task waits in its worker.
    """

    template_fields: Sequence[str] = ("spec",)

    def __init__(
        self,
        *,
        spec: Mapping[str, Any],
        conn_id: str = NightshiftHook.default_conn_name,
        deferrable: bool = True,
        poll_s: float = 10.0,
        timeout: timedelta | None = None,
        **of_airflow: Any,
    ) -> None:
        super().__init__(**of_airflow)
        self.spec = spec
        self.conn_id = conn_id
        self.deferrable = deferrable
        self.poll_s = poll_s
        self.timeout = timeout
        self._job: str | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        instance = context["ti"]
        key = f"airflow:{instance.dag_id}:{instance.task_id}:{instance.run_id}:{instance.map_index}"
        with NightshiftHook(self.conn_id).get_conn() as client:
            job = started(client, self.spec, key)
            self._job = job.id
            self.log.info("job %s at %s: %s", job.id, job.output, job.status)
            if self.deferrable and not job.ended:
                trigger = NightshiftTrigger(self.conn_id, job.id, self.poll_s)
                self.defer(trigger=trigger, method_name="execute_complete", timeout=self.timeout)
            seconds = None if self.timeout is None else self.timeout.total_seconds()
            job = client.wait(job.id, check=False, every_s=self.poll_s, timeout_s=seconds, progress=self._say)
            return self.execute_complete(context, summary(job))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what is kept of a job that has ended. Raise AirflowException if it did not succeed."""
        if event["status"] != "succeeded":
            raise AirflowException(f"job {event['job']} {event['status']}: {event['error']}")
        return event

    def on_kill(self) -> None:
        """Cancel the job of a task that is ended while it waits in its worker."""
        if self._job is not None:
            with NightshiftHook(self.conn_id).get_conn() as client:
                client.cancel(self._job)

    def _say(self, job: Job) -> None:
        self.log.info("job %s %s: %s records", job.id, job.status, job.records)
