"""Fixtures of the campaign, and the table it prints: what was done to what, how often, what came out."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import schemas.tasks
from jobs.settings import Settings
from tests.faults.redis_server import RedisServer
from tests.faults.stage import OVERLAY, Failpoints, Stage, copy_with_stub_task

collect_ignore = ["overlay"]

Note = Callable[[str, int, str], None]
_NOTES = pytest.StashKey[list[tuple[str, int, str]]]()


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_with_stub_task(tmp_path_factory.mktemp("copy"))


@pytest.fixture
def stub_task() -> Iterator[None]:
    """This process knows the stub task, to submit jobs of it, for as long as the test lasts."""
    schemas.tasks.__path__.append(str(OVERLAY / "schemas" / "tasks"))
    schemas.tasks.all_tasks.cache_clear()
    yield
    schemas.tasks.__path__.pop()
    schemas.tasks.all_tasks.cache_clear()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def stage(copy: Path, stub_task: None, redis_server: RedisServer, tmp_path: Path) -> Stage:
    return make_stage(copy, tmp_path, redis_server.url)


def make_stage(copy: Path, folder: Path, redis_url: str) -> Stage:
    """A deployment whose leases are so short that a test can wait for one to run out."""
    settings = Settings.read(redis_url=redis_url, lease_s=6, renew_s=0.5, sweep_s=0.3, grace_s=10, home=folder / "home")
    return Stage(copy, folder, settings, Failpoints(folder / "failpoints"))


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Add a row to the campaign's table: what was done, how often, what came out."""
    notes = request.config.stash.setdefault(_NOTES, [])
    return lambda what, times, outcome: notes.append((what, times, outcome))


def seeds() -> list[int]:
    """The seeds of the random killer, from `make faults SEEDS=…`."""
    return [int(seed) for seed in os.environ.get("FAULT_SEEDS", "1 2 3").split()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take up the rows of a process that ran tests."""
    notes = getattr(node, "workeroutput", {}).get("notes", [])
    node.config.stash.setdefault(_NOTES, []).extend(map(tuple, notes))


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["notes"] = session.config.stash.get(_NOTES, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    notes = config.stash.get(_NOTES, [])
    if notes:
        terminalreporter.section("campaign")
        terminalreporter.line("| what was done | times | what came out |")
        terminalreporter.line("|---|---|---|")
        for what, times, outcome in notes:
            terminalreporter.line(f"| {what} | {times} | {outcome} |")
