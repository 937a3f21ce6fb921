"""Is the server alive and of use, and what does it count? All metrics are declared here."""

from collections import Counter as Counts
from typing import Any

from fastapi import APIRouter, Response
from fastapi.requests import Request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from jobs.api.dependencies import Overseeing
from jobs.api.problems import answers
from jobs.api.responses import Health, Readiness
from jobs.api.service import Service
from jobs.api.thread_pools import in_pool
from jobs.state import State
from schemas.errors import ServiceUnavailable
from schemas.manifest import JobStatus
from schemas.task import Group

router = APIRouter(tags=["operations"])


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "nightshift_http_requests", "Requests by route and status.", ["method", "route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "nightshift_http_seconds", "Seconds to the end of an answer, event streams left out.", ["method", "route"],
            registry=self.registry,
        )  # fmt: skip
        self.redis = Gauge("nightshift_redis_up", "Whether Redis answers.", registry=self.registry)
        self.jobs = Gauge("nightshift_jobs", "Jobs that have not ended.", ["status"], registry=self.registry)
        self.shards = Gauge("nightshift_shards_running", "Shards that workers have in hand.", registry=self.registry)
        self.processes = Gauge(
            "nightshift_worker_processes", "Worker processes by group.", ["group"], registry=self.registry
        )

        self.suspended = Gauge(
            "nightshift_worker_processes_suspended", "Worker processes that take no shards for now, by group.",
            ["group"], registry=self.registry,
        )  # fmt: skip

    def refresh(self, service: Service) -> None:
        """Set the gauges to what Redis knows."""
        try:
            statuses, shards, processes, suspended = service.ask(_counts)
        except ServiceUnavailable:
            self.redis.set(0)
            for gauge in (self.jobs, self.processes, self.suspended):
                gauge.clear()
            self.shards.set(float("nan"))
            return
        self.redis.set(1)
        self.shards.set(shards)
        for status in JobStatus:
            if not status.final:
                self.jobs.labels(status).set(statuses[status])
        for group in Group:
            self.processes.labels(group).set(processes[group])
            self.suspended.labels(group).set(suspended[group])


def _counts(state: State) -> tuple[Counts[str], int, Counts[str], Counts[str]]:
    statuses: Counts[str] = Counts()
    shards = 0
    for id in state.jobs.active():
        progress = state.jobs.progress(id)
        if progress is not None:
            statuses[progress.status] += 1
            shards += progress.shards_running
    processes: Counts[str] = Counts()
    suspended: Counts[str] = Counts()
    for worker in state.workers.alive():
        for group in worker.groups:
            processes[group] += worker.processes
            suspended[group] += len(worker.suspended)
    return statuses, shards, processes, suspended


@router.get("/healthz")
async def healthz() -> Health:
    """Whether the server lives."""
    return Health(status="ok")


@router.get("/readyz", responses=answers())
def readyz(request: Request) -> Readiness:
    """Whether the server is of use: the catalog can be read. Redis may be away: then nothing can be submitted."""
    service: Service = request.app.state.service
    return service.readiness()


_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus's text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.get("/metrics", responses=_TEXT | answers(), response_class=Response)
@in_pool("quick")
def metrics(asked: Overseeing, request: Request) -> Response:
    """For Prometheus. Needs the scope `admin`: it counts what all tenants do."""
    counted: Metrics = request.app.state.metrics
    counted.refresh(asked.service)
    return Response(generate_latest(counted.registry), media_type=CONTENT_TYPE_LATEST)
