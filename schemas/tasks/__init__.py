"""The catalogue: every module of this package that defines `TASK` is a task, found by being here."""

import importlib
import pkgutil
from difflib import get_close_matches
from functools import cache

from schemas.errors import SpecError
from schemas.task import Task


@cache
def all_tasks() -> dict[str, Task]:
    """Every task by its id, in order of id."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    tasks: list[Task] = [importlib.import_module(f"{__name__}.{name}").TASK for name in names]
    return {task.id: task for task in sorted(tasks, key=lambda task: task.id)}


def module_name(task: Task) -> str:
    """The name that a task's three files share: `text-classification` → `text_classification`."""
    return task.id.replace("-", "_")


def find_task(name: str) -> Task:
    """The task of this id or alias. Raises SpecError naming the nearest known one."""
    tasks = all_tasks()
    by_name = tasks | {alias: task for task in tasks.values() for alias in task.aliases}
    if name in by_name:
        return by_name[name]
    near = get_close_matches(name, by_name, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "known tasks: " + ", ".join(tasks)
    raise SpecError.of("task", f"unknown task {name!r}; {hint}")
