"""What do the routes share? The deployment's parts, and each job as the principal who asks may see it."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TypeVar

from jobs.api.auth import Authenticator, Principal
from jobs.api.job_index import JobIndex
from jobs.api.lru_cache import LruCache
from jobs.api.problems import Conflict
from jobs.api.progress_coalescer import ProgressCoalescer, Seen
from jobs.api.responses import EndView, JobDetail, JobView, Readiness, Submitted
from jobs.api.thread_pools import ThreadPools
from jobs.broker import Broker
from jobs.logs import event
from jobs.schedules.runs import Runs
from jobs.settings import Settings
from jobs.state import Progress, State
from jobs.storage import Storage
from jobs.storage.catalog import JOB_ID, Catalog
from jobs.storage.job_folder import JobFolder
from jobs.storage.schedule_store import ScheduleStore
from jobs.submission.accept import Accepted, Submitter, enqueue
from schemas.errors import (
    AccessDenied,
    Damaged,
    NightshiftError,
    NotFound,
    Permanent,
    ServiceUnavailable,
    TooManyRequests,
    Transient,
)
from schemas.job import AcceptedJob
from schemas.schedule import Rights

T = TypeVar("T")
_log = logging.getLogger(__name__)

#: Jobs that are cached, and how they ended: neither changes once it is written.
CACHED_JOBS = 10_000
#: Seconds for which the answer to `/readyz` stands.
READY_S = 2.0


class Service:
    """A deployment, as the API serves it. `settings` are the user's own: in the embedded mode they name no Redis."""

    def __init__(
        self, settings: Settings, state: State, broker: Broker, storage: Storage, authenticator: Authenticator
    ) -> None:
        self.settings = settings
        self.storage = storage
        self.broker = broker
        self.authenticator = authenticator
        self._state = state
        self._away: ServiceUnavailable | None = None
        self._asking = Lock()
        self._jobs: LruCache[AcceptedJob] = LruCache(CACHED_JOBS)
        self._ends: LruCache[EndView] = LruCache(CACHED_JOBS)
        self.catalog = Catalog(settings.catalog_uri, storage)
        self.index = JobIndex(self.catalog)
        self.schedules = ScheduleStore(settings.catalog_uri, storage)
        self.pools = ThreadPools()
        #: Event streams under way, by tenant. For the event loop alone.
        self.streams: Counter[str] = Counter()
        self._ready: tuple[float, Readiness | None] | None = None
        self._looking = Lock()
        self._progress = ProgressCoalescer(self._progress_of)

    def ask(self, question: Callable[[State], T]) -> T:
        """Return Redis's answer. Raise ServiceUnavailable if Redis is away.

        While it is away one request at a time tries it; the others fail at once.
        """
        away = self._away
        if away is not None and not self._asking.acquire(blocking=False):
            raise ServiceUnavailable(away.message)
        try:
            found = question(self._state)
            self._away = None
            return found
        except ServiceUnavailable as error:
            self._away = error
            raise
        finally:
            if away is not None:
                self._asking.release()

    def readiness(self) -> Readiness:
        """Return whether the server is of use, as it was found at most READY_S ago. Anyone may ask, and as often.

        Raise ServiceUnavailable if the catalog can't be read: the log says why.
        """
        with self._looking:
            if self._ready is None or time.monotonic() - self._ready[0] > READY_S:
                self._ready = time.monotonic(), self._look()
            found = self._ready[1]
        if found is None:
            raise ServiceUnavailable("the catalog can't be read")
        return found

    def _look(self) -> Readiness | None:
        try:
            self.catalog.check()
        except NightshiftError as error:
            event(_log, "not_ready", logging.WARNING, error=error.message)
            return None
        try:
            self.ask(lambda state: state.ping())
        except ServiceUnavailable:
            return Readiness(status="ready", redis="away")
        return Readiness(status="ready", redis="up")

    def folder(self, job: AcceptedJob) -> JobFolder:
        """Return the job's objects."""
        return self.catalog.folder_of(job)

    def submitter_for(self, who: Principal) -> Submitter:
        """Return what accepts the principal's jobs."""
        return Submitter(self.catalog, self.settings.redis_url is None, who.tenant, who.sees)

    def settings_for(self, who: Principal) -> Settings:
        """Return the settings, narrowed to what the principal may read and write."""
        return self.settings.narrowed(who.inputs, who.outputs)

    def runs(self, who: str) -> Runs:
        """Return what starts runs of schedules by hand, in somebody's name."""
        now = lambda: self.ask(lambda state: state.now())  # noqa: E731
        return Runs(self.settings, self._state, self.broker, self.catalog, self.schedules, who, now)

    def rights_of(self, who: Principal) -> Rights | None:
        """Return what the principal's token allows; None for the user of the machine itself."""
        if not who.token_id:
            return None
        narrowed = self.settings_for(who)
        return Rights(
            token=who.token_id,
            inputs=tuple(narrowed.allowed_inputs),
            outputs=tuple(narrowed.allowed_outputs),
            max_running_jobs=who.max_running_jobs,
            max_priority=who.max_priority,
            allow_files=narrowed.allow_files,
        )

    def check_quota(self, who: Principal) -> None:
        """Raise TooManyRequests if the tenant has as many jobs under way as it may.

        Call it in the thread pool `submit` alone: there a tenant with a quota submits one job at a time, so that each
        is counted before the next.
        """
        limit = who.max_running_jobs
        if limit is None:
            return
        running = self.ask(lambda state: state.jobs.count_active(who.tenant))
        if running >= limit:
            raise TooManyRequests(f"{running} of your jobs are under way, and you may have {limit}", 30)

    def job(self, id: str, who: Principal) -> AcceptedJob:
        """Return the job of this id. Raise NotFound if there is none, or the principal may not know of it."""
        found = self._jobs.get(id, lambda: self._read_job(id)) if JOB_ID.fullmatch(id) else None
        if found is None or not who.sees(found.tenant):
            raise NotFound(f"there is no job {id!r}")
        return found

    def _read_job(self, id: str) -> AcceptedJob | None:
        job = self.catalog.job(id)
        return None if job is None or self.catalog.came_second(job) else job

    def end(self, job: AcceptedJob, progress: Progress | None = None) -> EndView | None:
        """Return how the job ended; None if it hasn't. A job that has no manifest may have ended by its progress."""

        def read() -> EndView | None:
            manifest = self.folder(job).read_manifest()
            return None if manifest is None else EndView.of(manifest)

        has_ended = progress is not None and progress.status.final
        try:
            found = self._ends.get(job.id, read, lambda end: not end.is_refused)
        except Damaged:
            if not has_ended:
                raise
            found = None
        return EndView.of_progress(progress) if found is None and progress is not None and has_ended else found

    def progress(self, job: AcceptedJob) -> tuple[Progress | None, bool]:
        """Return what Redis knows of the job, and whether it answered at all."""
        try:
            return self.ask(lambda state: state.jobs.progress(job.id)), True
        except ServiceUnavailable:
            return None, False

    def view(self, job: AcceptedJob) -> JobView:
        """Return how far the job is: by Redis, or else by what storage knows."""
        progress, answered = self.progress(job)
        end = self.end(job, progress) if progress is None or progress.status.final else None
        return JobView.of(job, progress, end, answered)

    async def find(self, id: str, who: Principal) -> AcceptedJob:
        """Return the same as `job`, for the event loop: from the cache, or else in a thread."""
        if self._jobs.known(id) is not None:
            return self.job(id, who)
        return await self.pools.run("quick", who, lambda: self.job(id, who))

    async def coalesced_view(self, job: AcceptedJob, who: Principal) -> JobView:
        """Return the same as `view`, for the event loop: Redis is asked for all current requests at once.

        While Redis is away each request asks on its own: the one that tries whether it is back may wait long.
        """
        if self._away is not None:
            return await self.pools.run("quick", who, lambda: self.view(job))
        progress, answered = await self._progress.of(job.id)
        end = None
        if progress is None or progress.status.final:
            end = self._ends.known(job.id) or await self.pools.run("quick", who, lambda: self.end(job, progress))
        return JobView.of(job, progress, end, answered)

    def _progress_of(self, jobs: Sequence[str]) -> list[Seen]:
        try:
            return [(progress, True) for progress in self.ask(lambda state: state.jobs.progress_of(jobs))]
        except ServiceUnavailable:
            return [(None, False)] * len(jobs)

    def detail(self, job: AcceptedJob) -> JobDetail:
        return JobDetail.with_spec(self.view(job), job)

    def enter(self, accepted: Accepted) -> Submitted:
        """Hand an accepted job to the workers, unless it has ended. Return the answer to its submission."""
        if not accepted.ended:
            self.ask(lambda state: enqueue(accepted.job, state, self.broker, accepted.is_new))
        return Submitted(**dict(self.detail(accepted.job)), found=accepted.found.value)

    def check_unfinished(self, job: AcceptedJob) -> None:
        """Raise Conflict if the job has ended by its manifest, as far as that can be read: Redis has the last word."""
        try:
            end = self.end(job)
        except (AccessDenied, Permanent, Transient):
            return
        if end is not None and not end.is_refused:  # its commit may be tried again
            raise Conflict(f"job {job.id} has ended: it {end.status}")
