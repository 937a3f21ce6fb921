"""What can be asked for, and who does it: tasks and workers."""

from typing import Annotated

from fastapi import APIRouter, Path

from jobs.api.arrow_json_schema import json_schema
from jobs.api.problems import answers
from jobs.api.responses import ColumnView, TaskList, TaskView, WorkerList, WorkerView, WorkView
from jobs.api.service import Asked, Reading
from jobs.api.thread_pools import in_lane
from jobs.state import WorkerInfo
from schemas.errors import NotFound, SpecError
from schemas.task import Task
from schemas.tasks import all_tasks, find_task

router = APIRouter(tags=["catalogue"])


@router.get("/v1/tasks", responses=answers())
@in_lane("look")
def tasks(asked: Reading) -> TaskList:
    """The task catalogue."""
    return TaskList(tasks=[_view(task) for task in all_tasks().values()])


@router.get("/v1/tasks/{id}", responses=answers(404))
@in_lane("look")
def task(asked: Reading, id: Annotated[str, Path(description="A task's id or alias.")]) -> TaskView:
    """A task, with JSON Schemas of its parameters and its prediction."""
    try:
        return _view(find_task(id))
    except SpecError as error:
        raise NotFound(error.problems[0].message) from None


def _view(task: Task) -> TaskView:
    return TaskView(
        id=task.id,
        aliases=list(task.aliases),
        group=task.group,
        summary=task.summary,
        columns=[
            ColumnView(name=c.name, required=c.required, kind=c.kind, description=c.description) for c in task.columns
        ],
        params=task.params.model_json_schema(),
        prediction=json_schema(task.prediction),
        prediction_version=task.version,
    )


@router.get("/v1/workers", responses=answers())
@in_lane("look")
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
    return WorkerView(name=info.name, groups=info.groups, devices=info.devices, processes=info.processes, work=work)
