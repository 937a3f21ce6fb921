"""The protocol under schedules drawn from seeds: `SIMULATE=10000 make simulate`; a few of them in `make test`."""

import os
from pathlib import Path

import pytest

from jobs.settings import Settings
from tests.simulation.schedule import run_schedule

COUNT = int(os.environ.get("SIMULATE", "40"))
FIRST = int(os.environ.get("SIMULATE_FROM", "0"))
BATCH = 20


@pytest.fixture
def quick(settings: Settings, tmp_path: Path) -> Settings:
    times = {"lease_s": 20.0, "renew_s": 4.0, "sweep_s": 5.0, "catalog": "/catalog", "home": tmp_path}
    return settings.model_copy(update=times)


@pytest.mark.parametrize("first", range(FIRST, FIRST + COUNT, BATCH))
def test_schedules(quick: Settings, first: int) -> None:
    for seed in range(first, min(first + BATCH, FIRST + COUNT)):
        schedule = run_schedule(seed, quick)
        assert not schedule.wrong, "\n".join([f"seed {seed}:", *schedule.told, "wrong:", *schedule.wrong])
