"""The protocol under schedules drawn from seeds: `make simulate` runs 10,000, `make test` a few of them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.settings import Settings
from tests.simulation.bugs import PLANTED
from tests.simulation.schedule import run_schedule

COUNT = int(os.environ.get("SIMULATE", "60"))
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
        if schedule.wrong:
            fewest = next((n for n in range(7) if run_schedule(seed, quick, n).wrong), None)
            told = [f"seed {seed}, wrong with the first {fewest} of its faults too:", *schedule.told]
            raise AssertionError("\n".join([*told, "wrong:", *schedule.wrong]))


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_bug_is_found(quick: Settings, plant: Callable[[], Any]) -> None:
    for seed in range(1000):
        with plant():
            wrong = run_schedule(seed, quick).wrong
        if wrong:
            print(f"{plant.__name__}: seed {seed}: {wrong[0]}")  # noqa: T201 - for docs/faults.md
            return
    raise AssertionError("a thousand seeds don't show it")
