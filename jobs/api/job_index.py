"""The ids of all jobs and of each tenant's, from the catalog's listings, kept between requests."""

import re
from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Lock
from time import monotonic

from jobs.api.auth import Principal
from jobs.api.tokens import Scope
from jobs.storage import Storage
from jobs.storage.catalog import tenant_folder
from schemas.layout import child

JOB_ID = re.compile(r"\d{8}-\d{6}-[0-9a-z]{6}")
#: Days after which a folder is listed whole again, not day by day.
_DAYS = 60


class _Folder:
    """The ids under one folder of the catalog, in order. They begin with their time, and none is ever removed: so what
    is older than a day is listed once."""

    def __init__(self, prefix: str, storage: Storage) -> None:
        self._prefix = prefix
        self._storage = storage
        self._ids: list[str] = []
        self._listed_until: datetime | None = None
        self._fresh_until = 0.0
        self._lock = Lock()

    def ids(self) -> list[str]:
        with self._lock:
            if monotonic() > self._fresh_until:
                self._refresh()
                self._fresh_until = monotonic() + 1
            return self._ids

    def _refresh(self) -> None:
        now = datetime.now(UTC)
        since = self._listed_until
        if since is None or now - since > timedelta(days=_DAYS):
            self._ids = sorted(self._listed(""))
        else:
            days = [since + timedelta(days=day) for day in range((now - since).days + 2)]
            old = self._ids[: bisect_left(self._ids, f"{since:%Y%m%d}")]
            self._ids = old + sorted(id for day in days for id in self._listed(f"{day:%Y%m%d}"))
        # A day more than the clock says: another server's may be behind.
        self._listed_until = now - timedelta(days=1)

    def _listed(self, start: str) -> Iterator[str]:
        for info in self._storage.list(self._prefix + start):
            id = info.uri.removeprefix(self._prefix).removesuffix(".json")
            if JOB_ID.fullmatch(id):
                yield id


class Index:
    """The ids of all jobs, and of each tenant's."""

    def __init__(self, storage: Storage, catalog: str) -> None:
        self._storage = storage
        self._catalog = catalog
        self._folders: dict[str, _Folder] = {}

    def of(self, who: Principal) -> list[str]:
        """The ids of the jobs that the principal may see, oldest first."""
        name = "jobs/" if Scope.ADMIN in who.scopes else tenant_folder(who.tenant)
        if name not in self._folders:
            self._folders[name] = _Folder(child(self._catalog, name), self._storage)
        return self._folders[name].ids()
