"""What the routes share: who asks, the deployment's parts, and a job as that principal may see it."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Annotated, Generic, TypeVar
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from jobs.api.auth import LOCAL, Authenticator, Principal, is_loopback
from jobs.api.job_index import JOB_ID, Index
from jobs.api.problems import Conflict
from jobs.api.progress_coalescer import Looks, Seen
from jobs.api.responses import EndView, JobDetail, JobView, Submitted
from jobs.api.thread_pools import Lanes
from jobs.api.tokens import Scope
from jobs.broker import Broker
from jobs.settings import Settings
from jobs.state import Progress, State
from jobs.storage import Storage
from jobs.storage.catalog import find_in_catalog
from jobs.storage.job_folder import read_job, read_manifest
from jobs.submission.accept import Accepted, Found, enqueue
from schemas.errors import Forbidden, NotFound, ServiceUnavailable, TooManyRequests
from schemas.job import AcceptedJob

T = TypeVar("T")

#: Jobs, and how they ended, that are remembered: neither changes once it is written.
REMEMBERED = 10_000


class Remembered(Generic[T]):
    """What was found for a name, as long as it isn't among those longest unused. Threads may share one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: OrderedDict[str, T] = OrderedDict()
        self._lock = Lock()

    def known(self, name: str) -> T | None:
        """What is remembered for the name."""
        with self._lock:
            if name in self._found:
                self._found.move_to_end(name)
            return self._found.get(name)

    def get(self, name: str, find: Callable[[], T | None]) -> T | None:
        """What is remembered, or else found and remembered from now on."""
        found = self.known(name)
        if found is not None:
            return found
        found = find()
        if found is not None:
            with self._lock:
                self._found[name] = found
                while len(self._found) > self._most:
                    self._found.popitem(last=False)
        return found


class Service:
    """A deployment, as the API serves it. `settings` are the user's own: they name no Redis in the embedded mode."""

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
        self._jobs: Remembered[AcceptedJob] = Remembered(REMEMBERED)
        self._ends: Remembered[EndView] = Remembered(REMEMBERED)
        self.index = Index(storage, settings.catalog_uri)
        self.lanes = Lanes()
        self._looks = Looks(self._seen)

    def ask(self, question: Callable[[State], T]) -> T:
        """Redis's answer. Raises ServiceUnavailable; while Redis is away at once, for all but one who tries it."""
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

    def settings_for(self, who: Principal) -> Settings:
        """The settings, narrowed to what the principal may read and write: whatever is held to them is held to both."""
        return self.settings.narrowed(who.inputs, who.outputs)

    def check_quota(self, who: Principal) -> None:
        """Raises TooManyRequests where the tenant has as many jobs under way as it may.

        Asked in the lane `submit` alone, which lets a tenant with a quota in one at a time, until its job is entered.
        """
        limit = who.max_running_jobs
        if limit is None:
            return
        running = self.ask(lambda state: state.jobs.count_active(who.tenant))
        if running >= limit:
            raise TooManyRequests(f"{running} of your jobs are under way, and you may have {limit}", 30)

    def job(self, id: str, who: Principal) -> AcceptedJob:
        """The job of this id. Raises NotFound where there is none, or none that the principal may know of."""
        found = self._jobs.get(id, lambda: self._read_job(id)) if JOB_ID.fullmatch(id) else None
        if found is None or not who.sees(found.tenant):
            raise NotFound(f"there is no job {id!r}")
        return found

    def _read_job(self, id: str) -> AcceptedJob | None:
        pointer = find_in_catalog(id, self.storage, self.settings.catalog_uri)
        job = None if pointer is None else read_job(pointer.output, self.storage)
        return job if job is not None and job.id == id else None

    def end(self, job: AcceptedJob) -> EndView | None:
        """How the job ended; None where it hasn't."""

        def read() -> EndView | None:
            manifest = read_manifest(job.output, self.storage)
            return None if manifest is None else EndView.of(manifest)

        return self._ends.get(job.id, read)

    def progress(self, job: AcceptedJob) -> tuple[Progress | None, bool]:
        """What Redis knows of the job, and whether it answered at all."""
        try:
            return self.ask(lambda state: state.jobs.progress(job.id)), True
        except ServiceUnavailable:
            return None, False

    def view(self, job: AcceptedJob) -> JobView:
        """Where the job stands: by Redis, else by what storage knows."""
        progress, answered = self.progress(job)
        end = self.end(job) if progress is None or progress.status.final else None
        return JobView.of(job, progress, end, answered)

    async def find(self, id: str, who: Principal) -> AcceptedJob:
        """As `job`, for the event loop: from memory, or else in a thread."""
        if self._jobs.known(id) is not None:
            return self.job(id, who)
        return await self.lanes.run("look", who, lambda: self.job(id, who))

    async def look(self, job: AcceptedJob, who: Principal) -> JobView:
        """As `view`, for the event loop: asked together with all others that look just now.

        While Redis is away each asks on its own, since whoever tries whether it is back may have to wait long for that.
        """
        if self._away is not None:
            return await self.lanes.run("look", who, lambda: self.view(job))
        progress, answered = await self._looks.at(job.id)
        end = None
        if progress is None or progress.status.final:
            end = self._ends.known(job.id) or await self.lanes.run("look", who, lambda: self.end(job))
        return JobView.of(job, progress, end, answered)

    def _seen(self, jobs: Sequence[str]) -> list[Seen]:
        try:
            return [(progress, True) for progress in self.ask(lambda state: state.jobs.progress_of(jobs))]
        except ServiceUnavailable:
            return [(None, False)] * len(jobs)

    def detail(self, job: AcceptedJob) -> JobDetail:
        return JobDetail.with_spec(self.view(job), job)

    def enter(self, accepted: Accepted) -> Submitted:
        """Hand an accepted job to the workers, unless it has ended; what whoever submitted it is answered."""
        if accepted.found is not Found.ENDED:
            self.ask(lambda state: enqueue(accepted.job, state, self.broker))
        return Submitted(**dict(self.detail(accepted.job)), found=accepted.found.value)

    def unfinished(self, job: AcceptedJob) -> None:
        """Raises Conflict where the job has ended."""
        end = self.end(job)
        if end is not None:
            raise Conflict(f"job {job.id} has ended: it {end.status}")


@dataclass(frozen=True)
class Asked:
    """A request: who asks, and the service that answers."""

    who: Principal
    service: Service


_BEARER = HTTPBearer(auto_error=False, description="A token, as `nightshift token new` prints it.")


async def _asked(request: Request, _: Annotated[object, Depends(_BEARER)]) -> Asked:
    service: Service = request.app.state.service
    peer = request.client.host if request.client else ""
    who = service.authenticator.authenticate(request.headers.get("authorization"), peer)
    if who is LOCAL:
        _refuse_other_sites(request)
    return Asked(who, service)


def _refuse_other_sites(request: Request) -> None:
    """Where no token is needed a web page that this machine's user looks at must not ask in their name."""
    origin = request.headers.get("origin")
    names = [urlsplit(f"//{request.headers.get('host', '')}").hostname]
    names += [urlsplit(origin).hostname] if origin is not None else []
    if not all(name is not None and is_loopback(name) for name in names):
        raise Forbidden("without a token only this machine itself may ask, by the name localhost or 127.0.0.1")


async def _reading(asked: Annotated[Asked, Depends(_asked)]) -> Asked:
    asked.who.require(Scope.READ)
    return asked


async def _submitting(asked: Annotated[Asked, Depends(_asked)]) -> Asked:
    asked.who.require(Scope.SUBMIT)
    return asked


async def _overseeing(asked: Annotated[Asked, Depends(_asked)]) -> Asked:
    asked.who.require(Scope.ADMIN)
    return asked


Reading = Annotated[Asked, Depends(_reading)]
Submitting = Annotated[Asked, Depends(_submitting)]
Overseeing = Annotated[Asked, Depends(_overseeing)]
