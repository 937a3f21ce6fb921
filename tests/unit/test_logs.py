"""A log line is one line, whatever is in it."""

import io
import json
import logging
import subprocess
import sys

import pytest

from jobs import logs


@pytest.fixture
def logged() -> io.StringIO:
    """What the logger `tests.logs` writes, in the style for people."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logs._Formatter("text"))
    logger = logging.getLogger("tests.logs")
    logger.handlers[:] = [handler]
    logger.propagate = False
    return out


@pytest.mark.parametrize("end", ["\n", "\r", "\x0b", "\x1c", "\x1b[2K", "\x85", "\u2028", "\x00"])
def test_nothing_ends_a_line_or_moves_the_cursor(end: str, logged: io.StringIO) -> None:
    path = f"/v1/jobs/é{end}event=forged"
    logs.event(logging.getLogger("tests.logs"), "request", logging.WARNING, path=path, status=404)
    (line,) = logged.getvalue().splitlines()
    assert line.isprintable()
    quoted = line.partition(" path=")[2].removesuffix(" status=404")
    assert json.loads(quoted) == path


def test_plain_words_stay_as_they_are(logged: io.StringIO) -> None:
    logs.event(logging.getLogger("tests.logs"), "request", logging.WARNING, path="/é/x", label="a b", seconds=0.25)
    assert logged.getvalue().endswith(' path=/é/x label="a b" seconds=0.250\n')


WARNS = """
import warnings
from jobs import logs
logs.configure("info", "json")
for kind in (UserWarning, DeprecationWarning):
    for _ in range(2):
        warnings.warn(f"the old\\nredis://:secret@host/0", kind, stacklevel={level})
"""


def logged_warnings(rules: str, level: int) -> list[str]:
    """The lines of the log of a process that warns, under PYTHONWARNINGS as given."""
    command = [sys.executable, "-c", WARNS.replace("{level}", str(level))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONWARNINGS": rules})
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["level"] for line in lines} <= {"warning"}
    return [line["event"] for line in lines]


@pytest.mark.parametrize("rules", ["error", "e::UserWarning,error::DeprecationWarning"])
def test_a_warning_is_logged_once_and_not_raised(rules: str) -> None:
    """A deprecation, which is for those who write code, isn't even logged, as Python has it."""
    (user,) = logged_warnings(rules, 1)
    assert "UserWarning: the old\nredis://" in user
    assert "secret" not in user


@pytest.mark.parametrize(("rules", "count"), [("", 1), ("ignore", 0), ("ignore,default::DeprecationWarning", 1)])
def test_what_is_ignored_stays_ignored(rules: str, count: int) -> None:
    assert len(logged_warnings(rules, 9)) == count
