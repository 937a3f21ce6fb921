"""When is a schedule due? At readings of its time zone's clock, each of which counts once.

A reading that the clock leaves out in spring is due at the first instant after the gap. One that comes twice in autumn
is due the first time. So a schedule of the time zone UTC alone is due at even distances.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from itertools import islice, pairwise
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from schemas.errors import SpecError

_EXAMPLE = "write five fields, such as '15 3 * * *' for 03:15 each day"


class DueTimes:
    """The due times of a cron expression in a time zone. Raise SpecError, naming the field, unless both are such."""

    def __init__(self, cron: str, time_zone: str) -> None:
        self._cron = cron
        self.zone = zone_of(time_zone)
        if len(cron.split()) != 5:
            raise SpecError.of("cron", f"{cron!r} has {len(cron.split())} fields; {_EXAMPLE}")
        try:
            next(CronSim(cron, datetime(2000, 1, 1)))
        except CronSimError as error:
            raise SpecError.of("cron", f"{cron!r} is no cron expression: {error}; {_EXAMPLE}") from None
        except StopIteration:
            raise SpecError.of("cron", f"{cron!r} is never due: no day is both of its month and its week") from None

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield the due times after an instant, in UTC, the earliest first."""
        last = instant.astimezone(UTC)
        # An hour that comes twice is read twice: its readings are due the first time, and are skipped below.
        for reading in CronSim(self._cron, self._reading(last)):
            due = self._instant(reading)
            if due > last:
                yield due
                last = due

    def before(self, instant: datetime, after: datetime) -> Iterator[datetime]:
        """Yield the due times up to an instant and after another, in UTC, the latest first."""
        until = instant.astimezone(UTC)
        last: datetime | None = None
        # Hours on: while a reading comes for the second time, later ones have been due already.
        start = self._reading(until) + timedelta(hours=3)
        for reading in CronSim(self._cron, start, reverse=True):
            due = self._instant(reading)
            if due <= after:
                return
            if due <= until and due != last:
                yield due
                last = due

    def shortest_gap_s(self, instant: datetime, count: int) -> float:
        """Return the seconds between the two nearest of the next due times."""
        times = list(islice(self.after(instant), count))
        gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
        return min(gaps, default=float("inf"))

    def _reading(self, instant: datetime) -> datetime:
        return instant.astimezone(self.zone).replace(tzinfo=None)

    def _instant(self, reading: datetime) -> datetime:
        """Return when the zone's clock first shows this reading; if it never does, the first instant after the gap."""
        local = reading.replace(tzinfo=self.zone, fold=0)
        instant = local.astimezone(UTC)
        if instant.astimezone(self.zone).replace(tzinfo=None) == reading:
            return instant
        # By the offset from before the gap the reading is behind it, by the one from after it is ahead of it.
        ahead, behind = local.replace(fold=1).astimezone(UTC), instant
        offset = behind.astimezone(self.zone).utcoffset()
        while behind - ahead > timedelta(seconds=1):
            middle = ahead + timedelta(seconds=(behind - ahead) // timedelta(seconds=2))
            if middle.astimezone(self.zone).utcoffset() == offset:
                behind = middle
            else:
                ahead = middle
        return behind


def zone_of(name: str) -> ZoneInfo:
    """Return the time zone of this name. Raise SpecError, with the nearest name, if there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # no such name; no name at all; a folder of the database
        known = available_timezones()
    if not known:
        raise SpecError.of("time_zone", "this machine has no database of time zones: install tzdata")
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "write a name such as 'Europe/Berlin' or 'UTC'"
    raise SpecError.of("time_zone", f"there is no time zone {name!r}; {hint}")
