"""Fixtures of jobs inside the test's own process."""

from pathlib import Path

import pytest

from jobs.settings import Settings
from tests.integration.harness import House, write_reviews
from tests.servers import redis_servers
from tests.texts import sentences


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test with a Redis runs on each server there is: Valkey always, Redis where it is installed."""
    if "redis_url" in metafunc.fixturenames:
        servers = redis_servers()
        metafunc.parametrize("redis_url", list(servers.values()), ids=list(servers), indirect=True, scope="session")


@pytest.fixture
def house(settings: Settings) -> House:
    return House(settings)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A table of 100 texts in five row groups, alone in its folder."""
    return write_reviews(tmp_path / "in" / "a.parquet", sentences(100), row_group=20)
