"""How is a length of time written on the command line? As a number of hours, days or weeks."""

import re
from datetime import timedelta

import click

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


class Duration(click.ParamType[timedelta]):
    """A length of time, such as `30d`. `example` is one of so many days, for the error."""

    name = "duration"

    def __init__(self, example: str) -> None:
        self._example = example

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        found = re.fullmatch(r"(\d{1,5})([hdw])", value)
        if found is None:
            self.fail(f"{value!r} is no time; write 12h, {self._example} or 4w", param, ctx)
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
