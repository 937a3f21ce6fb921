"""A deployment in the test's own process with a clock that the test moves, and supervisors that fire its schedules."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jobs.schedules import manage
from jobs.schedules.history import Run, history
from jobs.schedules.runs import Runs
from jobs.schedules.scheduler import Scheduler
from jobs.settings import Settings
from jobs.storage.schedule_store import Key, ScheduleStore
from schemas.job import AcceptedJob
from schemas.manifest import Manifest
from schemas.schedule import Rights, Schedule, ScheduleVersion, Standing, parse_schedule
from tests.integration.harness import House, write_reviews

#: 02:30 in Berlin, and noon before.
NOON = datetime(2026, 11, 19, 11, 0, tzinfo=UTC)
NIGHT = datetime(2026, 11, 20, 1, 30, tzinfo=UTC)
DAY = timedelta(days=1)


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Stage(House):
    """Schedules of the tenant `""`, which read `in/<date>/` of a folder and write `out/<date>/`."""

    def __init__(self, settings: Settings, model: Path, folder: Path) -> None:
        super().__init__(settings)
        self.model = model
        self.folder = folder
        self.clock = Clock(NOON)
        self.store = ScheduleStore(settings.catalog_uri, self.storage)
        self.one, self.other = self.supervisor("one"), self.supervisor("other")

    def supervisor(self, name: str) -> Scheduler:
        return Scheduler(self.settings, self.state, self.broker, name, self.clock)

    def at(self, now: datetime, supervisor: Scheduler | None = None) -> None:
        """Move the clock, and have a supervisor do a round, whoever did the last one."""
        self.clock.now = now
        self.state._redis.delete("nightshift:lock:schedules")
        (supervisor or self.one).round()

    def schedule(self, name: str = "nightly", **changes: Any) -> Schedule:
        spec = {
            "task": "text-classification",
            "model": str(self.model),
            "input": {"uri": f"{self.folder}/in/{{date}}/", "columns": {"text": "review"}},
            "output": {"uri": f"{self.folder}/out/{{name}}/{{date}}/"},
        } | changes.pop("spec", {})
        base = {"name": name, "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "spec": spec}
        return parse_schedule(base | changes)

    def add(self, name: str = "nightly", rights: Rights | None = None, tenant: str = "", **changes: Any) -> Key:
        """Add a schedule, by the test's clock."""
        self.put(self.schedule(name, **changes), manage.Maker("tester", tenant, rights))
        return Key(tenant, name)

    def put(self, schedule: Schedule, maker: manage.Maker, replace: bool = False) -> ScheduleVersion:
        version = manage.add(schedule, maker, self.store, self.settings, self.clock.now, replace)
        self.state.schedules.note()
        return version

    def stand(self, key: Key, standing: Standing) -> None:
        manage.change_standing(key, standing, manage.Maker("tester", key.tenant), self.store, self.clock.now)
        self.state.schedules.note()

    def version(self, key: Key) -> ScheduleVersion:
        found = self.store.current(key)
        assert found is not None
        return found

    def input(self, day: str, texts: int = 4) -> None:
        write_reviews(self.folder / "in" / day / "a.parquet", [f"a fine film {n}" for n in range(texts)])

    def history(self, key: Key) -> dict[str, Run]:
        """The runs by their date in Berlin, oldest first."""
        found = list(history(self.store, self.version(key), self.clock.now))
        return {f"{run.due + timedelta(hours=2):%m-%d}": run for run in reversed(found)}

    def outcomes(self, key: Key) -> dict[str, str]:
        return {day: str(run.status) for day, run in self.history(key).items()}

    def job(self, run: Run) -> AcceptedJob:
        job = self.catalog.job(run.jobs[-1])
        assert job is not None
        return job

    def work(self, job: AcceptedJob) -> Manifest:
        """Plan, run and end a job, as workers do."""
        for shard in range(self.plan(job)):
            self.attempt(job, shard, f"{job.id}-{shard}")
        return self.finish(job)

    def runs(self) -> Runs:
        return Runs(self.settings, self.state, self.broker, self.catalog, self.store, "tester", self.clock)
