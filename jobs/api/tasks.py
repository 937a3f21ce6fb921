"""Which tasks are there?"""

from typing import Annotated

from fastapi import APIRouter, Path

from jobs.api.arrow_json_schema import json_schema
from jobs.api.dependencies import Reading
from jobs.api.problems import answers
from jobs.api.responses import ColumnView, TaskList, TaskView
from jobs.api.thread_pools import in_pool
from schemas.errors import NotFound, SpecError
from schemas.task import Task
from schemas.tasks import all_tasks, find_task

router = APIRouter(tags=["tasks"])


@router.get("/v1/tasks", responses=answers())
@in_pool("quick")
def tasks(asked: Reading) -> TaskList:
    """All tasks."""
    return TaskList(tasks=[_view(task) for task in all_tasks().values()])


@router.get("/v1/tasks/{id}", responses=answers(404))
@in_pool("quick")
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
