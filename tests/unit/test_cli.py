"""What holds for each command: a reader of its output may leave."""

import os
import subprocess

from tests.acceptance.cli import NIGHTSHIFT, environment


def test_a_reader_that_leaves() -> None:
    """As `| head` does: the command ends, and says nothing of it."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*NIGHTSHIFT, "tasks"], stdout=writing, stderr=subprocess.PIPE, env=environment(), timeout=120, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
