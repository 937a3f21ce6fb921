"""A supervisor that does nothing but fire schedules, as a process: `python -m … NAME CLOCK`. CLOCK is a file that has
the time, as the test sets it."""

import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from jobs import logs
from jobs.broker import Broker, make_app
from jobs.schedules.scheduler import Scheduler
from jobs.settings import Settings
from jobs.state import State
from schemas.errors import NightshiftError

EVERY_S = 0.05


def main(name: str, clock: Path) -> None:
    settings = Settings.read()
    logs.configure("info", "text")
    state = State(settings)
    broker = Broker(make_app(settings, name))
    scheduler = Scheduler(settings, state, broker, name, lambda: datetime.fromisoformat(clock.read_text()))
    while True:
        with suppress(NightshiftError):
            scheduler.round()
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
