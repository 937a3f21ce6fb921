"""Two simulated fortnights, in which clocks change: each due time is fired exactly once.

Three supervisors are processes of their own, by a clock that the test moves. One is killed as a night falls due, one is
frozen over some nights, Redis is emptied twice, a day is missed altogether, and the clock goes back and comes again.
"""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from jobs.settings import Settings
from jobs.storage.schedule_store import Key
from tests.acceptance.cli import environment
from tests.integration.schedules.stage import DAY, Stage
from tests.servers import running, wait_for

BERLIN = ZoneInfo("Europe/Berlin")
#: What happens as which night falls due.
KILLED, EMPTIED, FROZEN, MISSED, THAWED, EMPTIED_AGAIN, BACK = 2, 3, 5, 7, 9, 10, 12
#: 02:30 in Berlin of each night: the gap and the hour that comes twice are in the seventh.
SPRING = [datetime(2026, 3, 22 + n, 2, 30) for n in range(10)] + [datetime(2026, 4, 1 + n, 2, 30) for n in range(4)]
AUTUMN = [datetime(2026, 10, 18 + n, 2, 30) for n in range(14)]


def _due(night: datetime) -> datetime:
    """When a night is due: the one that is left out, as its clock is put forward."""
    if night == datetime(2026, 3, 29, 2, 30):
        return datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    return night.replace(tzinfo=BERLIN, fold=0).astimezone(UTC)


class Supervisors:
    """Supervisors by name, and the clock that they go by."""

    def __init__(self, stage: Stage, stack: ExitStack) -> None:
        self._stage = stage
        self._file = stage.folder / "clock"
        self.set(stage.clock.now)
        self.frozen: set[str] = set()
        command = [sys.executable, "-m", "tests.integration.schedules.rounds"]
        self._processes: dict[str, subprocess.Popen[bytes]] = {
            name: stack.enter_context(
                running([*command, name, str(self._file)], environment(), stage.folder / f"{name}.log")
            )
            for name in ("one", "two", "three")
        }

    def set(self, now: datetime) -> None:
        whole = self._file.with_suffix(".new")
        whole.write_text(now.isoformat())
        whole.replace(self._file)
        self._stage.clock.now = now

    def owner(self) -> str:
        """The one that holds the lock, once one does."""
        key = "nightshift:lock:schedules"
        wait_for("a supervisor has the lock", lambda: self._stage.state._redis.get(key))
        return str(self._stage.state._redis.get(key))

    def tell(self, name: str, number: signal.Signals) -> None:
        self._processes[name].send_signal(number)
        if number is signal.SIGKILL:
            self._processes.pop(name).wait(30)
        self.frozen = self.frozen | {name} if number is signal.SIGSTOP else self.frozen - {name}

    @contextmanager
    def all_frozen(self) -> Iterator[None]:
        """Freeze those that aren't already, for as long as the context lasts."""
        awake = [name for name in self._processes if name not in self.frozen]
        for name in awake:
            self.tell(name, signal.SIGSTOP)
        yield
        for name in awake:
            self.tell(name, signal.SIGCONT)

    def free_lock(self) -> None:
        """What its seconds to live do for the lock of a supervisor that is gone."""
        self._stage.state._redis.delete("nightshift:lock:schedules")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("nights", [SPRING, AUTUMN], ids=["spring", "autumn"])
def test_each_due_time_of_a_fortnight_is_fired_once(
    settings: Settings, classifier: Path, tmp_path: Path, nights: list[datetime]
) -> None:
    stage = Stage(settings, classifier, tmp_path)
    due = [_due(night) for night in nights]
    stage.clock.now = due[0] - timedelta(hours=12)
    key = stage.add(catch_up="all")
    # Every few hours, without input: many more due times, whose records are all that there is of them.
    often = stage.add(
        "often", cron="0 */3 * * *", catch_up="all", catch_up_limit=20,
        spec={"input": {"uri": f"{tmp_path}/none/", "columns": {"text": "review"}},
              "output": {"uri": f"{tmp_path}/often/{{run}}/"}, "missing_input": "empty"},
    )  # fmt: skip
    for night in nights:
        stage.input(f"{night:%Y-%m-%d}", texts=2)
    with ExitStack() as stack:
        supervisors = Supervisors(stage, stack)
        frozen = ""
        for number, time in enumerate(due):
            owner = supervisors.owner()
            if number == MISSED:
                with supervisors.all_frozen():
                    supervisors.set(time + DAY / 2)
                _finish(stage, key, due[: number + 1])
                continue
            supervisors.set(time)
            if number == KILLED:
                supervisors.tell(owner, signal.SIGKILL)
                supervisors.free_lock()
            elif number == FROZEN:
                frozen = owner
                supervisors.tell(frozen, signal.SIGSTOP)
                supervisors.free_lock()
            elif number in (EMPTIED, EMPTIED_AGAIN):
                stage.state._redis.flushall()
            elif number == THAWED:
                supervisors.tell(frozen, signal.SIGCONT)
                supervisors.free_lock()
            _finish(stage, key, due[: number + 1])
            if number == BACK:
                for back in (time - 5 * DAY, time - DAY / 2, time):
                    supervisors.set(back)
                    for _ in range(3):
                        supervisors.free_lock()
                        supervisors.owner()
            supervisors.set(time + DAY / 2)
        last = stage.clock.now
        expected = sum(1 for _ in _every_three_hours(due[0] - DAY / 2, last))
        wait_for("every third hour is decided", lambda: len(_records(stage, often)) == expected)
    assert _records(stage, key) == due, "each night, and nothing else"
    assert _records(stage, often) == list(_every_three_hours(due[0] - DAY / 2, last))
    assert set(stage.outcomes(key).values()) == {"succeeded"}
    assert set(stage.outcomes(often).values()) == {"empty"}
    jobs = [stage.catalog.job(id) for id in stage.catalog.ids()]
    assert Counter(job.run.due for job in jobs if job and job.run) == Counter(due), "one job a night"
    outputs = sorted(path.parent.name for path in (tmp_path / "out").rglob("_manifest.json"))
    assert outputs == [f"{night:%Y-%m-%d}" for night in nights]


def _every_three_hours(after: datetime, until: datetime) -> Iterator[datetime]:
    """The times of Berlin's clock at 0, 3, 6 … o'clock, none of which comes twice or is left out."""
    day = after.astimezone(BERLIN).date()
    while day <= until.astimezone(BERLIN).date():
        for hour in range(0, 24, 3):
            time = datetime(day.year, day.month, day.day, hour, tzinfo=BERLIN).astimezone(UTC)
            if after < time <= until:
                yield time
        day += timedelta(days=1)


def _records(stage: Stage, key: Key) -> list[datetime]:
    folder = Path(stage.settings.catalog_uri) / "runs" / key.path
    return sorted(datetime.strptime(f"{file.stem}+0000", "%Y%m%dT%H%M%SZ%z") for file in folder.glob("*.json"))


def _finish(stage: Stage, key: Key, due: list[datetime]) -> None:
    """Do the workers' part of each night so far, until all of them have ended."""

    def all_ended() -> bool:
        waiting = [run for run in stage.history(key).values() if run.status == "running"]
        for run in waiting:
            job = stage.catalog.job(run.jobs[0])
            if job is not None and _is_entered(stage, job.id):
                stage.work(job)
        found: dict[str, Any] = stage.history(key)
        return len(found) == len(due) and {run.status for run in found.values()} == {"succeeded"}

    wait_for(f"{len(due)} nights have succeeded", all_ended, timeout_s=60)


def _is_entered(stage: Stage, job: str) -> bool:
    progress = stage.state.jobs.progress(job)
    return progress is not None and not progress.status.final
