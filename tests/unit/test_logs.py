"""A log line is one line, whatever is in it."""

import io
import json
import logging

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
