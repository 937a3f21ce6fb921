"""The handlers, one module a task, of the same name as its module in `schemas.tasks`."""

import importlib
from typing import Any

from schemas.task import Task
from schemas.tasks import module_name
from workers.handler import Handler


def handler_of(task: Task) -> type[Handler[Any]]:
    """The class in the task's module of this package that handles it."""
    module = importlib.import_module(f"{__name__}.{module_name(task)}")
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Handler) and getattr(value, "task", None) is task:
            return value
    raise LookupError(f"{module.__name__} has no Handler with task = {task.id}")
