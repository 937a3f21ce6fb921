"""What does a supervisor know of one schedule? A cache of the catalog: it may be old, and then a write finds out."""

from datetime import datetime, timedelta

from jobs.schedules.due_times import DueTimes
from jobs.storage.schedule_store import Key, ScheduleStore, months
from schemas.schedule import RunEnd, RunRecord, ScheduleVersion, run_name

#: How far back a supervisor looks for open runs. A job goes on for as long as it takes, but older runs aren't retried.
LOOK_BACK = timedelta(days=31)
#: Ended runs among which the last one that had a job is looked for.
_LOOKED_AT = 10


class Seen:
    """A schedule's last version, and its runs of the last weeks. `open` are the decisions whose runs haven't ended."""

    def __init__(self, key: Key, version: ScheduleVersion) -> None:
        self.key = key
        self.version = version
        self.times = DueTimes(version.schedule.cron, version.schedule.time_zone)
        self.decided: set[str] = set()
        self.open: dict[str, RunRecord] = {}
        #: Runs that ended lately, the latest last.
        self.ended: list[str] = []
        #: When the last run that had a job ended.
        self.freed: datetime | None = None
        self.loaded = False
        #: The next due time; None if it isn't known. The runs are listed anew when it has come.
        self.next_due: datetime | None = None
        self.is_fresh = False
        self.faults = 0
        self.left_alone = 0

    def load(self, store: ScheduleStore, now: datetime) -> None:
        """List the runs of the last weeks, and read those that are open."""
        span = months(now - LOOK_BACK, now + timedelta(days=1))[::-1]
        names = [name for month in span for name in store.runs(self.key, month)]
        ended = [name for month in span for name in store.runs(self.key, month, ended=True)]
        self.decided = set(names)
        known = self.open
        self.open = {}
        for name in sorted(self.decided - set(ended)):
            record = known.get(name) or store.record(self.key, name)
            if record is not None:
                self.open[name] = record
        if ended != self.ended:
            ends = (store.ended(self.key, name) for name in ended[: -_LOOKED_AT - 1 : -1])
            self.freed = next((end.ended_at for end in ends if end is not None and end.jobs), None)
        self.ended = ended
        self.loaded = self.is_fresh = True

    def may_be_due(self, now: datetime) -> bool:
        """Return whether a due time has come that nothing may have been decided of.

        The clock may have jumped: one that goes back finds what was decided, by its name.
        """
        if self.next_due is None:
            self.next_due = next(self.times.after(self._decided_until(now)), None)
            self.is_fresh = False
        return self.next_due is not None and self.next_due <= now

    def _decided_until(self, now: datetime) -> datetime:
        """Return a time up to which everything was decided."""
        last = next((due for due in self.times.before(now, self.version.counts_from)), None)
        if last is not None and run_name(last) in self.decided:
            return last
        return self.version.counts_from

    def is_decided(self, store: ScheduleStore, due: datetime) -> bool:
        """Return whether something was decided of a due time that may be older than what was listed."""
        if store.record(self.key, run_name(due)) is None:
            return False
        self.decided.add(run_name(due))
        return True

    def note(self, record: RunRecord) -> None:
        """Note a decision, whose run is open until it ends."""
        self.decided.add(record.run)
        self.open[record.run] = record

    def note_end(self, run: str, end: RunEnd) -> None:
        self.open.pop(run, None)
        self.ended.append(run)
        if end.jobs:
            self.freed = end.ended_at
