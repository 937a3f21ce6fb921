"""The stage on which schedules are fired."""

from pathlib import Path

import pytest

from jobs.settings import Settings
from tests.integration.schedules.stage import Stage


@pytest.fixture
def stage(settings: Settings, classifier: Path, tmp_path: Path) -> Stage:
    return Stage(settings, classifier, tmp_path)
