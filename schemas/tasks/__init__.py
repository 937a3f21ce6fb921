"""Which tasks are there? Each module of this package defines one, `TASK`; installed packages offer others.

A package offers a task by an entry point of the group `nightshift.tasks` (docs/extending.md).
"""

import importlib
import pkgutil
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from schemas.errors import SpecError
from schemas.task import Task

ENTRY_POINTS = "nightshift.tasks"


@cache
def all_tasks() -> dict[str, Task]:
    """Return every task by its id, in order of id."""
    return {task.id: task for task in sorted([*built_in_tasks(), *_offered()[0]], key=lambda task: task.id)}


def built_in_tasks() -> list[Task]:
    """Return the tasks of this package."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return [importlib.import_module(f"{__name__}.{name}").TASK for name in names]


@cache
def _offered() -> tuple[list[Task], dict[str, str]]:
    """Return the tasks that installed packages offer and, by name, the faults of the unusable ones."""
    taken = {name for task in built_in_tasks() for name in (task.id, *task.aliases)}
    tasks, broken = [], {}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            task = _checked(point, taken)
        except Exception as error:  # noqa: BLE001 (somebody else's code: their task is broken, and no other)
            broken[point.name] = f"the package {_package(point)} can't provide it: {type(error).__name__}: {error}"
            continue
        taken |= {task.id, *task.aliases}
        tasks.append(task)
    return tasks, broken


def _checked(point: EntryPoint, taken: set[str]) -> Task:
    task = point.load()
    if not isinstance(task, Task):
        raise TypeError(f"{point.value} is a {type(task).__name__}, not a Task")
    if task.id != point.name:
        raise ValueError(f"the entry point is called {point.name!r}, its task {task.id!r}")
    for name in (task.id, *task.aliases):
        if name in taken:
            raise ValueError(f"another task is already called {name!r}")
    return task


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def module_name(task: Task) -> str:
    """Return the name that a task's three files share: `text-classification` → `text_classification`."""
    return task.id.replace("-", "_")


def find_task(name: str) -> Task:
    """Return the task with this id or alias. Raise SpecError, with the nearest known name, if it is unknown."""
    tasks = all_tasks()
    by_name = tasks | {alias: task for task in tasks.values() for alias in task.aliases}
    if name in by_name:
        return by_name[name]
    broken = _offered()[1]
    if name in broken:
        raise SpecError.of("task", f"task {name!r} is installed, but {broken[name]}")
    known = [*by_name, *broken]
    near = [one for one in known if len(name) > 2 and name.lower() in one] or get_close_matches(name, known, 1, 0.7)
    hint = f"did you mean {near[0]!r}?" if near else "known tasks: " + ", ".join(tasks)
    raise SpecError.of("task", f"unknown task {name!r}; {hint}")
