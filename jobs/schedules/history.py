"""What became of a schedule's runs, and what comes next? The newest run first."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from jobs.parallel_map import parallel_map
from jobs.schedules.due_times import DueTimes
from jobs.schedules.expand import expand
from jobs.settings import Settings
from jobs.storage.schedule_store import Key, ScheduleStore, months
from schemas.errors import SpecError
from schemas.schedule import MAX_CATCH_UP, Outcome, RunEnd, RunRecord, RunStatus, ScheduleVersion, Standing, run_name

#: Due times that are shown at most.
MOST_NEXT = 100
#: Runs that are read at once.
_READERS = 8


@dataclass(frozen=True)
class Run:
    """A run of a schedule. `record` is None while nothing was decided of it: it waits."""

    run: str
    due: datetime
    record: RunRecord | None
    end: RunEnd | None

    @property
    def status(self) -> RunStatus:
        if self.end is not None:
            return self.end.status
        if self.record is None:
            return RunStatus.WAITING
        return RunStatus.RUNNING if self.record.outcome is Outcome.STARTED else RunStatus(self.record.outcome.value)

    @property
    def why(self) -> str:
        """Why there is no job, or why it failed."""
        if self.end is not None and self.end.error is not None:
            return self.end.error.message
        return "" if self.record is None else self.record.why

    @property
    def jobs(self) -> tuple[str, ...]:
        """The ids of the run's job and of the retries of it, as far as they are noted."""
        if self.end is not None and self.end.jobs:
            return self.end.jobs
        return (self.record.job,) if self.record is not None and self.record.job is not None else ()


def history(store: ScheduleStore, version: ScheduleVersion, now: datetime, before: str | None = None) -> Iterator[Run]:
    """Yield the runs of a schedule, the newest first, from those on that come before the run of this name.

    Those that wait come first. The runs of an earlier schedule of this name are there, too.
    """
    key = Key(version.tenant, version.name)
    if before is None:
        yield from _waiting(store, version, now)
    names = (name for name in _names(store, key, now) if before is None or name < before)

    def read(name: str) -> Run | None:
        record = store.record(key, name)
        return None if record is None else Run(name, record.due, record, store.ended(key, name))

    yield from (run for run in parallel_map(read, names, _READERS) if run is not None)


def _names(store: ScheduleStore, key: Key, now: datetime) -> Iterator[str]:
    """Yield the names of the runs that something was decided of, the newest first."""
    first = store.version(key, 1).made_at
    for month in months(first, now):
        yield from sorted(store.runs(key, month), reverse=True)


def _waiting(store: ScheduleStore, version: ScheduleVersion, now: datetime) -> Iterator[Run]:
    """Yield the due times that have come and of which nothing was decided yet."""
    if version.standing is not Standing.ACTIVE:
        return
    times = DueTimes(version.schedule.cron, version.schedule.time_zone)
    for due in islice(times.before(now, version.counts_from), MAX_CATCH_UP + 1):
        if store.record(Key(version.tenant, version.name), run_name(due)) is not None:
            return
        yield Run(run_name(due), due, None, None)


@dataclass(frozen=True)
class Next:
    """A due time to come. `error` says why its run would be refused, as far as can be told now."""

    due: datetime
    inputs: tuple[str, ...]
    output: str | None
    error: str | None


def next_runs(version: ScheduleVersion, now: datetime, settings: Settings) -> Iterator[Next]:
    """Yield the next due times of a schedule, by the clock of its time zone, with what their runs read and write.

    There are none if it is paused.
    """
    if version.standing is not Standing.ACTIVE:
        return
    times = DueTimes(version.schedule.cron, version.schedule.time_zone)
    for due in times.after(max(now, version.counts_from)):
        local = due.astimezone(times.zone)
        try:
            spec = expand(version, due, run_name(due), settings)
        except SpecError as error:
            yield Next(local, (), None, error.message)
        else:
            yield Next(local, tuple(spec.input.uris), spec.output.uri, None)
