"""How does a template name the run that it is filled for? By holes: `{date-1d:%Y/%m/%d}`, `{name}`, `{run}`.

The date is the run's due time by the clock of the schedule's time zone. `{{` and `}}` stand for `{` and `}`.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from schemas.errors import SpecError

#: What `{date}` alone writes.
DATE_FORMAT = "%Y-%m-%d"
#: What a format may use. None of them depends on a machine's language.
DIRECTIVES = "YmdHMSyjGVuz"

_PIECES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_DATE = re.compile(r"date((?:[+-]\d{1,4}[wdhm])*)(?::(.*))?", re.DOTALL)
_SHIFT = re.compile(r"([+-]\d+)([wdhm])")
_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes"}
_KNOWN = "{date}, {date-1d:%Y/%m/%d}, {name} and {run}; '{{' stands for a brace"


@dataclass(frozen=True)
class Filling:
    """What fills the holes. `date` has the schedule's time zone; `run` is the run's own name."""

    date: datetime
    name: str
    run: str


def filled(text: str, filling: Filling, field: str) -> str:
    """Return the text with its holes filled. Raise SpecError, naming `field` and the hole, for one that is no hole."""

    def put(found: re.Match[str]) -> str:
        whole, hole = found[0], found[1]
        if whole in ("{{", "}}"):
            return whole[0]
        if hole is None:
            raise SpecError.of(field, f"{text!r} has a {whole!r} without its other brace; write {whole * 2!r} for one")
        if hole in ("name", "run"):
            return filling.name if hole == "name" else filling.run
        date = _DATE.fullmatch(hole)
        if date is None:
            raise SpecError.of(field, f"{text!r}: {whole!r} is no hole; holes are {_KNOWN}")
        return _written(_shifted(filling.date, date[1]), DATE_FORMAT if date[2] is None else date[2], whole, field)

    return _PIECES.sub(put, text)


def _shifted(date: datetime, shifts: str) -> datetime:
    """Return the date, so much earlier or later. Weeks and days go by the calendar, hours and minutes by the clock.

    A day before 03:00 is 03:00, though the day may have had 23 hours. Two hours before it are two hours of time.
    """
    for number, unit in _SHIFT.findall(shifts):
        step = timedelta(**{_UNITS[unit]: int(number)})
        zone = date.tzinfo
        date = date + step if unit in "wd" else (date.astimezone(UTC) + step).astimezone(zone)
    return date


def _written(date: datetime, form: str, hole: str, field: str) -> str:
    bad = next((found for found in re.findall(r"%(.?)", form, re.DOTALL) if found not in [*DIRECTIVES, "%"]), None)
    if not form or bad is not None:
        what = "has an empty format" if not form else f"has a format with '%{bad}'"
        raise SpecError.of(field, f"{hole!r} {what}; use {', '.join('%' + one for one in DIRECTIVES)}")
    return date.strftime(form)
