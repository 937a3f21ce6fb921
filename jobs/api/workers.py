"""Which workers are there, and what do they work on?"""

from fastapi import APIRouter

from jobs.api.dependencies import Asked, Reading
from jobs.api.problems import answers
from jobs.api.responses import WorkerList, WorkerView, WorkView
from jobs.api.thread_pools import in_pool
from jobs.state import WorkerInfo
from schemas.errors import NotFound

router = APIRouter(tags=["workers"])


@router.get("/v1/workers", responses=answers())
@in_pool("quick")
def workers(asked: Reading) -> WorkerList:
    """The workers that have reported within the last minute, and what they have in hand of your jobs."""
    found = asked.service.ask(lambda state: state.workers.alive())
    return WorkerList(workers=[_worker(one, asked) for one in found])


def _worker(info: WorkerInfo, asked: Asked) -> WorkerView:
    work = []
    for order in info.work:
        try:
            job = asked.service.job(order["job"], asked.who)
        except NotFound:  # another tenant's
            continue
        work.append(
            WorkView(job=job.id, task=job.spec.task, model=job.model, shard=order["shard"], shards=order["shards"])
        )
    return WorkerView(
        name=info.name, groups=info.groups, devices=info.devices, processes=info.processes,
        suspended=len(info.suspended), work=work,
    )  # fmt: skip
