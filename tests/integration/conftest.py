"""Fixtures of jobs inside the test's own process."""

from pathlib import Path

import pytest

from jobs.settings import Settings
from tests.integration.harness import House, write_reviews
from tests.texts import sentences


@pytest.fixture
def house(settings: Settings) -> House:
    return House(settings)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A table of 100 texts in five row groups, alone in its folder."""
    return write_reviews(tmp_path / "in" / "a.parquet", sentences(100), row_group=20)
