"""Progress on standard error: a live bar in a terminal, plain lines elsewhere, nothing under --json."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import click

from jobs.state import Progress, rate_of
from schemas.manifest import JobStatus

#: Seconds between two plain lines while little changes.
LINE_S = 10.0


class Display(Protocol):
    def show(self, progress: Progress) -> None: ...


@contextmanager
def display(quiet: bool) -> Iterator[Display]:
    """Show progress on standard error: live in a terminal, by lines elsewhere, not at all if `quiet`."""
    if quiet:
        yield _Quiet()
    elif sys.stderr.isatty():
        with _live() as live:
            yield live
    else:
        yield _Lines()


class _Quiet:
    def show(self, progress: Progress) -> None:
        pass


class _Lines:
    """Prints a line when the status changes, and one every LINE_S seconds."""

    def __init__(self) -> None:
        self._last: tuple[JobStatus, float] | None = None

    def show(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._last and self._last[0] is progress.status and now - self._last[1] < LINE_S:
            return
        self._last = (progress.status, now)
        click.echo(f"{progress.status}: {describe(progress)}", err=True)


def describe(progress: Progress) -> str:
    """Return shards, records, speed, time left and errors so far, in a line."""
    if progress.waits_for is not None:
        return f"waiting for a worker (of the group {progress.waits_for})"
    if progress.status is JobStatus.PLANNING:
        return "reading the input's footers"
    rate = rate_of(progress)
    words = [
        f"{progress.shards_done}/{progress.shards} shards",
        f"{progress.rows_done + progress.rows_live:,}/{progress.rows:,} records",
    ]
    if progress.status is JobStatus.PAUSED:
        words += [f"{progress.shards_running} shards in hand"] if progress.shards_running else []
        words += [f"go on with: nightshift continue {progress.job}"]
    elif rate.rows_per_s is not None and rate.left_s is not None:
        words += [f"{rate.rows_per_s:,.0f} records/s"]
        if not progress.status.final:
            words += [f"{duration(rate.left_s)} left"]
    elif progress.status is JobStatus.RUNNING:
        words += ["waiting for a worker" if not progress.shards_running else "loading the model"]
    if progress.finishable and progress.error is not None and not progress.status.final:
        words += [progress.error.message]  # its table is away
    errors = sum(progress.errors.values())
    words += [f"{errors:,} errors"] if errors else []
    words += [f"{progress.shards_failed} shards failed"] if progress.shards_failed else []
    words += [f"{progress.workers_lost} workers lost, last: {progress.last_loss}"] if progress.workers_lost else []
    return ", ".join(words)


def counted(count: int, what: str) -> str:
    """Return the count with its noun, in the plural unless it is one: `1 part`, `1,000 records`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


@contextmanager
def _live() -> Iterator[Display]:
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[status]}"),
        BarColumn(),
        TextColumn("{task.description}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task("", total=None, status="starting")

        class Live:
            def show(self, progress: Progress) -> None:
                done = progress.rows_done + progress.rows_live
                bar.update(
                    line,
                    total=progress.rows or None,
                    completed=done,
                    status=str(progress.status),
                    description=describe(progress),
                )

        yield Live()
