"""A server of Nightshift's for one user, with a Redis and a worker of its own; and how other programs are run."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.api import server
from tests.integration.harness import write_reviews
from tests.texts import sentences

ROOT = Path(__file__).parents[2]
#: What runs a command of another program: its words, and what its environment has beside ours.
Run = Callable[..., str]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with server(tmp_path / "api.log") as url:
        yield url


@pytest.fixture
def spec(classifier: Path, tmp_path: Path) -> dict[str, object]:
    """A job over 200 reviews. Its places have a `DAY` in them, which each program writes in its own way."""
    for day in ("2026-11-20", "2026-11-21"):
        write_reviews(tmp_path / "in" / day / "a.parquet", sentences(200))
    return {
        "task": "text-classification",
        "model": str(classifier),
        "input": {"uri": f"{tmp_path}/in/DAY/", "columns": {"text": "review"}},
        "output": {"uri": f"{tmp_path}/out/DAY/"},
    }


def environment_of(name: str) -> Path:
    """The programs of an environment that `make integrations-check` makes."""
    programs = ROOT / f".venv-{name}" / "bin"
    assert programs.is_dir(), f"{programs} is not there: run make integrations-check"
    return programs


def clean_environment(programs: Path) -> dict[str, str]:
    """This process's environment, in which those programs come first."""
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return dict(os.environ) | {"PATH": path, "VIRTUAL_ENV": str(programs.parent), "HF_HUB_OFFLINE": "1"}


def said_by(command: list[str], env: dict[str, str], folder: Path, timeout_s: float = 600) -> str:
    """What a command prints, which must succeed."""
    done = subprocess.run(
        command, env=env, cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout
