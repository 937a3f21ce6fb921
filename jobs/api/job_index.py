"""Which jobs are there, and which of a tenant? Their ids, from the catalog's listings, kept between requests."""

from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from threading import Lock
from time import monotonic

from jobs.api.auth import Principal
from jobs.api.tokens import Scope
from jobs.storage.catalog import Catalog

#: Days after which the whole listing is read again, not day by day.
_DAYS = 60


class _Ids:
    """The ids of all jobs, or of one tenant's, in order.

    They begin with their time, and none is added later. So those that are older than a day are listed once. A job that
    `gc` removed stays listed for a while, and isn't found when it is read.
    """

    def __init__(self, catalog: Catalog, tenant: str | None) -> None:
        self._catalog = catalog
        self._tenant = tenant
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
            self._ids = sorted(self._catalog.ids(self._tenant))
        else:
            days = [since + timedelta(days=day) for day in range((now - since).days + 2)]
            old = self._ids[: bisect_left(self._ids, f"{since:%Y%m%d}")]
            self._ids = old + sorted(id for day in days for id in self._catalog.ids(self._tenant, f"{day:%Y%m%d}"))
        # A day less than the clock says: another server's clock may be behind.
        self._listed_until = now - timedelta(days=1)


class JobIndex:
    """The ids of all jobs, and of each tenant's."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._ids: dict[str | None, _Ids] = {}

    def of(self, who: Principal) -> list[str]:
        """Return the ids of the jobs that the principal may see, oldest first."""
        tenant = None if Scope.ADMIN in who.scopes else who.tenant
        if tenant not in self._ids:
            self._ids[tenant] = _Ids(self._catalog, tenant)
        return self._ids[tenant].ids()
