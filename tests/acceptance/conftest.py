"""Fixtures of jobs that processes of their own run.

What pytest leaves alone here: the files of outside developers, which run in a copy of the packages.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import make_classifier

collect_ignore = ["deadly_task", "outside_task"]


@pytest.fixture(scope="session")
def slow_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes a while, so that a shard or a job can be caught in the middle."""
    shape: dict[str, Any] = {"num_hidden_layers": 4, "num_attention_heads": 4}
    return make_classifier(tmp_path_factory.mktemp("slow"), hidden_size=256, intermediate_size=1024, **shape)
