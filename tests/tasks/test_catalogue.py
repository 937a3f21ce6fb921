"""What holds for every task of the catalogue, without its code being run."""

from pathlib import Path

import pytest

from schemas.task import Task
from schemas.tasks import all_tasks, find_task, module_name
from workers.tasks import handler_of

ROOT = Path(__file__).parents[2]

every_task = pytest.mark.parametrize("task", list(all_tasks().values()), ids=lambda task: task.id)


@every_task
def test_three_files_of_one_name(task: Task) -> None:
    name = module_name(task)
    for file in (f"schemas/tasks/{name}.py", f"workers/tasks/{name}.py", f"tests/tasks/test_{name}.py"):
        assert (ROOT / file).is_file(), file


@every_task
def test_the_handler_is_found(task: Task) -> None:
    assert handler_of(task).task is task


@every_task
def test_all_that_users_see_is_described(task: Task) -> None:
    assert task.summary.endswith(".")
    assert all(field.description for field in task.params.model_fields.values())
    assert all((field.metadata or {}).get(b"description") for field in task.prediction)
    assert all(column.description for column in task.columns)
    assert [find_task(name) for name in (task.id, *task.aliases)] == [task] * (1 + len(task.aliases))
