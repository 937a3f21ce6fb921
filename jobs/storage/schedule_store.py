"""Which schedules are there, and what became of their runs? The catalog says so. Its objects are written once.

Tenants can't write to the catalog. A schedule is changed by another version, and its last version stands.

schedules/<tenant>/<name>/v000001.json    a version of a schedule; the tenant is `@` if there is none
runs/<tenant>/<name>/<run>.json           what was decided of a due time
runs-ended/<tenant>/<name>/<run>.json     how the run ended; a run without it is open
"""

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from urllib.parse import quote, unquote

from pydantic import BaseModel

from jobs.storage import Storage
from jobs.storage.stored import parse_stored
from schemas.errors import AlreadyExists, NotFound
from schemas.layout import child
from schemas.schedule import RunEnd, RunRecord, ScheduleVersion

Content = TypeVar("Content", bound=BaseModel)
#: The folder of the schedules that have no tenant. No quoted name is this.
_NO_TENANT = "@"
_DAMAGED = "remove the schedule, and add it again under another name"


@dataclass(frozen=True, order=True)
class Key:
    """The tenant and the name of a schedule."""

    tenant: str
    name: str

    @property
    def path(self) -> str:
        return f"{_folder(self.tenant)}/{self.name}/"

    def __str__(self) -> str:
        return f"{self.tenant}/{self.name}" if self.tenant else self.name


@dataclass(frozen=True)
class ScheduleStore:
    """The schedules of the catalog at `uri`."""

    uri: str
    storage: Storage

    def newest(self, tenant: str | None = None) -> Iterator[tuple[Key, int]]:
        """Yield each schedule, of all tenants or of one, with the number of its last version. Removed ones are there.

        Only names are listed.
        """
        prefix = self._uri("schedules/")
        key, number = None, 0
        for info in self.storage.list(prefix + ("" if tenant is None else f"{_folder(tenant)}/")):
            folder, _, rest = info.uri.removeprefix(prefix).partition("/")
            name, _, file = rest.partition("/")
            if not file.startswith("v") or not file.endswith(".json") or not file[1:-5].isdecimal():
                continue
            found = Key("" if folder == _NO_TENANT else unquote(folder), name)
            if key is not None and found != key:
                yield key, number
            key, number = found, int(file[1:-5])
        if key is not None:
            yield key, number

    def current(self, key: Key) -> ScheduleVersion | None:
        """Return the last version of a schedule, whatever its standing; None if there never was such a schedule."""
        names = [info.uri for info in self.storage.list(self._uri(f"schedules/{key.path}"))]
        return self._read(names[-1], ScheduleVersion) if names else None

    def version(self, key: Key, number: int) -> ScheduleVersion:
        """Return a version of a schedule. Raise NotFound if there is no such version."""
        return self._read(self._version_uri(key, number), ScheduleVersion)

    def add_version(self, version: ScheduleVersion) -> None:
        """Write the next version of a schedule. Raise AlreadyExists if another one came first."""
        key = Key(version.tenant, version.name)
        body = version.model_dump_json().encode()
        self.storage.create(self._version_uri(key, version.number), body, secrets.token_hex(8))

    def decide(self, record: RunRecord) -> RunRecord:
        """Write what was decided of a due time. Return the decision that stands: another's if that came first."""
        uri = self.record_uri(Key(record.tenant, record.schedule), record.run)
        return self._create(uri, record, RunRecord)

    def record(self, key: Key, run: str) -> RunRecord | None:
        """Return what was decided of a run; None if nothing was."""
        return self._find(self.record_uri(key, run), RunRecord)

    def record_at(self, uri: str) -> RunRecord:
        """Return the decision that is stored at this URI, as `record_uri` returns it."""
        return self._read(uri, RunRecord)

    def record_uri(self, key: Key, run: str) -> str:
        return self._uri(f"runs/{key.path}{run}.json")

    def end(self, key: Key, run: str, end: RunEnd) -> RunEnd:
        """Write how a run ended. Return the end that stands."""
        return self._create(self._uri(f"runs-ended/{key.path}{run}.json"), end, RunEnd)

    def ended(self, key: Key, run: str) -> RunEnd | None:
        """Return how a run ended; None if it is open."""
        return self._find(self._uri(f"runs-ended/{key.path}{run}.json"), RunEnd)

    def runs(self, key: Key, month: datetime, ended: bool = False) -> list[str]:
        """Return the names of the runs that were due in this month of UTC, in order; with `ended`, of those that
        ended."""
        prefix = self._uri(f"{'runs-ended' if ended else 'runs'}/{key.path}")
        names = (info.uri.removeprefix(prefix) for info in self.storage.list(f"{prefix}{month:%Y%m}"))
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def is_record(self, uri: str) -> bool:
        """Return whether the URI is that of a run's decision, and not a job's output."""
        return uri.startswith(self._uri("runs/"))

    def tenant_of(self, uri: str) -> str:
        """Return the tenant whose run's decision is stored at this URI."""
        folder = uri.removeprefix(self._uri("runs/")).partition("/")[0]
        return "" if folder == _NO_TENANT else unquote(folder)

    def _version_uri(self, key: Key, number: int) -> str:
        return self._uri(f"schedules/{key.path}v{number:06d}.json")

    def _uri(self, name: str) -> str:
        return child(self.uri, name)

    def _create(self, uri: str, content: Content, kind: type[Content]) -> Content:
        try:
            self.storage.create(uri, content.model_dump_json().encode(), secrets.token_hex(8))
        except AlreadyExists:
            return self._read(uri, kind)
        return content

    def _find(self, uri: str, kind: type[Content]) -> Content | None:
        try:
            return self._read(uri, kind)
        except NotFound:
            return None

    def _read(self, uri: str, kind: type[Content]) -> Content:
        return parse_stored(kind, self.storage.read(uri), uri, "bad_schedule", _DAMAGED)


def months(first: datetime, last: datetime) -> list[datetime]:
    """Return a day of each month from that of `first` to that of `last`, the latest first."""
    found = []
    month = last.replace(day=1)
    while (month.year, month.month) >= (first.year, first.month):
        found.append(month)
        month = (month - timedelta(days=1)).replace(day=1)
    return found


def _folder(tenant: str) -> str:
    return quote(tenant, safe="").replace(".", "%2E") or _NO_TENANT


def notice_id(key: Key, run: str) -> str:
    """Return the id of the webhook that tells of a run. No job has such an id."""
    digest = hashlib.sha256("\0".join((key.tenant, key.name, run)).encode()).hexdigest()
    return f"run-{digest[:32]}"
