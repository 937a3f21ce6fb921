"""Which class handles a task? The one in the module of the task's name here, or the one that another package offers.

A package offers a handler by an entry point of the group `nightshift.handlers` with the task's id (docs/extending.md).
"""

import importlib
from importlib.metadata import entry_points
from typing import Any

from schemas.errors import Permanent
from schemas.task import Task
from schemas.tasks import built_in_tasks, module_name
from workers.handler import Handler

ENTRY_POINTS = "nightshift.handlers"


def handler_of(task: Task) -> type[Handler[Any]]:
    """Return the class that handles a task. Raise Permanent if the package that offers the task has none."""
    if task in built_in_tasks():
        return _handler_in(importlib.import_module(f"{__name__}.{module_name(task)}"), task)
    for point in entry_points(group=ENTRY_POINTS, name=task.id):
        handler = point.load()
        if isinstance(handler, type) and issubclass(handler, Handler) and handler.task is task:
            return handler
        raise Permanent(f"{point.value} is not a Handler with task = {task.id}", code="no_handler")
    raise Permanent(
        f"task {task.id!r} has no handler: its package offers no entry point {task.id!r} in {ENTRY_POINTS}",
        code="no_handler",
    )


def _handler_in(module: Any, task: Task) -> type[Handler[Any]]:
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Handler) and getattr(value, "task", None) is task:
            return value
    raise LookupError(f"{module.__name__} has no Handler with task = {task.id}")
