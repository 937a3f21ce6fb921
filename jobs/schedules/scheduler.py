"""Who fires a schedule? Every supervisor looks at each sweep, and one at a time: a lock in Redis sees to that.

The lock only saves work. What was decided of a due time is an object of the catalog that is created once, so of two
supervisors that look at once, or of one that was frozen, one decides. What is kept here in memory is a cache.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from jobs.broker import Broker
from jobs.logs import bound, event
from jobs.schedules.follow import Follower
from jobs.schedules.policies import Decision, Standing, decide, jitter
from jobs.schedules.runs import Runs, digest_of
from jobs.schedules.seen import Seen
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.storage.schedule_store import Key, ScheduleStore
from schemas.errors import NightshiftError, ServiceUnavailable, SpecError, TooManyRequests
from schemas.schedule import MAX_CATCH_UP, Outcome, RunRecord, ScheduleVersion, run_name
from schemas.schedule import Standing as ScheduleStanding

_log = logging.getLogger(__name__)
#: Seconds after which the catalog is listed anew though Redis says that nothing has changed.
RELIST_S = 60
#: Rounds that a schedule is left alone at most, after faults that should pass.
_MOST_ROUNDS = 12


class Scheduler:
    """Fires the schedules of a deployment. `name` is the supervisor's own. `now` is by default Redis's clock, which is
    one for all machines."""

    def __init__(
        self, settings: Settings, state: State, broker: Broker, name: str, now: Callable[[], datetime] | None = None
    ) -> None:
        storage = Storage()
        self._settings = settings
        self._state = state
        self._name = name
        self._now = now or state.now
        self._store = ScheduleStore(settings.catalog_uri, storage)
        catalog = Catalog(settings.catalog_uri, storage)
        self._runs = Runs(settings, state, broker, catalog, self._store, name, self._now)
        self._follower = Follower(self._runs)
        self._seen: dict[Key, Seen] = {}
        self._hint: str | None = None
        self._listed: datetime | None = None

    def round(self) -> None:
        """Decide on what is due and go on with what is open, unless another supervisor does.

        Raise ServiceUnavailable if Redis is away, Transient if the catalog is.
        """
        if not self._state.locks.take("schedules", self._name, max(10.0, 4 * self._settings.sweep_s)):
            return
        self._list_if_changed()
        for key, seen in list(self._seen.items()):
            if seen.left_alone > 0:
                seen.left_alone -= 1
                continue
            with bound(schedule=str(key)):
                try:
                    self._look(key, seen)
                    seen.faults = 0
                except ServiceUnavailable:
                    raise
                except Exception as error:  # noqa: BLE001 (the other schedules go on)
                    self._put_off(seen, error)

    def _put_off(self, seen: Seen, error: Exception) -> None:
        if isinstance(error, NightshiftError):
            event(_log, "schedule_put_off", logging.WARNING, error=error.message)
        else:
            _log.exception("schedule_put_off")
        seen.left_alone = min(_MOST_ROUNDS, 2**seen.faults)
        seen.faults += 1

    def _list_if_changed(self) -> None:
        """List the catalog's schedules again if they may have changed. Of those that have, read the last version."""
        hint, now = self._state.schedules.seen(), self._now()
        fresh = self._listed is not None and abs(now - self._listed) < timedelta(seconds=RELIST_S)
        if fresh and hint == self._hint:
            return
        newest = dict(self._store.newest())
        self._seen = {key: seen for key, seen in self._seen.items() if key in newest}
        for key, number in newest.items():
            seen = self._seen.get(key)
            if seen is not None and seen.version.number == number:
                seen.loaded = seen.loaded and hint == self._hint
                continue
            try:
                self._seen[key] = Seen(key, self._store.version(key, number))
            except NightshiftError as error:
                event(_log, "schedule_not_read", logging.ERROR, schedule=str(key), error=error.message)
        self._hint, self._listed = hint, now

    def _look(self, key: Key, seen: Seen) -> None:
        now = self._now()
        if not seen.loaded:
            seen.load(self._store, now)
            self._follower.remind(seen)
        for record in list(seen.open.values()):
            try:
                self._follower.follow(seen, record)
            except ServiceUnavailable:
                raise
            except NightshiftError as error:  # what is due next doesn't depend on it
                event(_log, "run_not_followed", logging.WARNING, run=record.run, error=error.message)
        if seen.version.standing is not ScheduleStanding.ACTIVE or not seen.may_be_due(now):
            return
        if not seen.is_fresh:  # what others decided since, or started by hand
            seen.load(self._store, now)
        pending = self._pending(seen, now)
        for place, due in enumerate(pending):
            if not self._decide(seen, due, now, later=len(pending) - place - 1):
                return
        seen.next_due = None

    def _pending(self, seen: Seen, now: datetime) -> list[datetime]:
        """Return the due times that nothing was decided of, the earliest first: at most the last MAX_CATCH_UP + 1."""
        found: list[datetime] = []
        for due in seen.times.before(now, seen.version.counts_from):
            if len(found) > MAX_CATCH_UP or run_name(due) in seen.decided or seen.is_decided(self._store, due):
                break
            found.append(due)
        return found[::-1]

    def _decide(self, seen: Seen, due: datetime, now: datetime, later: int) -> bool:
        """Decide on a due time, and start its run. Return False if it, and all after it, have to wait."""
        version, run = seen.version, run_name(due)
        ready = due + jitter(version.schedule, digest_of(seen.key, run))
        standing = Standing(now, ready, later, tuple(sorted(seen.open)), seen.freed)
        decision = decide(version.schedule, standing)
        if decision.outcome is None:
            return False
        if decision.outcome is not Outcome.STARTED:
            self._conclude(seen, self._runs.record(version, due, run, decision.outcome, decision.why))
            return True
        try:
            self._start(seen, version, due, run, decision)
        except TooManyRequests as error:
            event(_log, "run_waits", logging.INFO, run=run, why=error.message)
            return False
        return True

    def _start(self, seen: Seen, version: ScheduleVersion, due: datetime, run: str, decision: Decision) -> None:
        try:
            found = self._runs.prepare(version, due, run)
        except SpecError as error:
            self._conclude(seen, self._runs.record(version, due, run, Outcome.REFUSED, error.message))
            return
        record = self._conclude(seen, self._runs.started(version, due, run, found, decision.why))
        if record.outcome is not Outcome.STARTED:
            return
        for older in decision.cancels:
            self._runs.cancel(seen.open[older])
        self._follower.begin(seen, record, found)

    def _conclude(self, seen: Seen, record: RunRecord) -> RunRecord:
        """Write a decision, and note the one that stands. One without a job ends the run, too."""
        stands = self._store.decide(record)
        seen.note(stands)
        why = {"why": stands.why} if stands.why else {}
        is_own = stands.decided_at == record.decided_at and stands.decided_by == record.decided_by
        if is_own:
            event(_log, "run_decided", run=stands.run, outcome=stands.outcome, job=stands.job or "none", **why)
        if stands.outcome is not Outcome.STARTED:
            self._follower.follow(seen, stands)
        return stands
