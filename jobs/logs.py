"""Logs: one line an event, `key=value` for people or JSON for machines, on standard error.

An event's name is its message. Names that every line of an attempt shares (job, shard, attempt, task, model) are
bound once by `bound` and added here. What looks like a secret is masked, in other libraries' lines too. What libraries
warn of is logged as well, and never raised.
"""

import json
import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from schemas.redaction import masked

_bound: ContextVar[dict[str, Any]] = ContextVar("_bound", default={})  # noqa: B039 (never mutated)


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Add these fields to each line logged within, by this thread."""
    token = _bound.set(_bound.get() | fields)
    try:
        yield
    finally:
        _bound.reset(token)


def event(logger: logging.Logger, name: str, level: int = logging.INFO, /, **fields: Any) -> None:
    """Log the event `name` with its fields."""
    logger.log(level, name, extra={"fields": _bound.get() | fields})


#: Characters of a line, which is one of JSON: what is quoted in it is cut before.
_LONGEST = 10_000_000


class _Formatter(logging.Formatter):
    def __init__(self, style: Literal["text", "json"]) -> None:
        super().__init__()
        self._json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {
            "time": when,
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        fields |= getattr(record, "fields", {})
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if self._json:
            return masked(json.dumps(fields, default=str), _LONGEST)
        return masked(" ".join(f"{key}={_quoted(value)}" for key, value in fields.items()), _LONGEST)


def _quoted(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    # A path or a name may hold what ends a line, or moves a terminal's cursor: it is written out as JSON has it.
    odd = not text.replace("\n", "").isprintable()
    return json.dumps(text, ensure_ascii=odd) if odd or not text or any(c in text for c in ' "=\n') else text


def to_file(file: Path, loggers: Iterable[str], level: str, style: Literal["text", "json"]) -> logging.Handler:
    """Append what these loggers say to a file, and to nothing else. The caller closes the handler that is returned."""
    handler = logging.FileHandler(file, encoding="utf-8", delay=True)
    handler.setFormatter(_Formatter(style))
    for name in loggers:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
    return handler


def never_raise_warnings() -> None:
    """Go back to Python's own filters if PYTHONWARNINGS or `-W` ask for exceptions.

    A warning is for those who write code. Raised within a library it would take the answer away that the library gives.
    """
    if any(action == "error" for action, *_ in warnings.filters):
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)


def configure(level: str, style: Literal["text", "json"]) -> None:
    """Send this process's log, and what libraries warn of, to standard error in one of the two styles."""
    never_raise_warnings()
    logging.captureWarnings(True)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(style))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in (
        "celery",
        "kombu",
        "amqp",
        "botocore",
        "boto3",
        "urllib3",
        "s3transfer",
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
        "filelock",
        "huggingface_hub",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
