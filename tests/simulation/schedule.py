"""One schedule: machines, jobs and faults drawn from a seed, run to its end, and what must hold then."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from jobs.settings import Settings
from jobs.state import State
from jobs.storage.catalog import Catalog
from jobs.storage.job_folder import JobFolder
from jobs.submission.cancel import cancel_job
from schemas.errors import AccessDenied, ServiceUnavailable, Transient
from schemas.job import AcceptedJob
from schemas.layout import MANIFEST, child
from schemas.manifest import JobStatus, Manifest
from tests.simulation.deployment import Deployment, Machine, SimBroker, Troubles
from tests.simulation.world import World

#: Seconds in which faults begin; until all of them are over; and until the jobs must have ended.
BEGIN_S, OVER_S, END_S = 20.0, 100.0, 3 * 3600.0
#: How one machine of several may be bad.
BAD = ("denied", "away", "device", "disk", "dies", "load", "model")


@dataclass
class Schedule:
    """What was drawn, in words; and what went wrong."""

    seed: int
    told: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    steps: int = 0

    def tell(self, what: str) -> None:
        self.told.append(what)


def run_schedule(seed: int, settings: Settings, faults: int | None = None) -> Schedule:
    """Run the schedule of a seed, of its faults only the first `faults` if given, and check it."""
    schedule, world = Schedule(seed), World(seed)
    with Deployment(world, settings) as deployment:
        _Draw(schedule, world, deployment, faults).all()
        _maintain(world, deployment)
        ended = world.run(lambda: _ended(deployment), OVER_S + END_S)
        schedule.steps = world.steps
        manifests = {job.id: _manifest(deployment, job) for job in deployment.jobs}
        if not ended:
            left = [job for job, manifest in manifests.items() if manifest is None]
            schedule.wrong.append(f"jobs that never end: {left or 'none, but Redis has some'}")
        late = len(deployment.objects.log)
        world.run(lambda: False, 30.0)
        _check(schedule, deployment, manifests, late)
    return schedule


def _ended(deployment: Deployment) -> bool:
    has_manifests = all(child(job.output, MANIFEST) in deployment.objects.content for job in deployment.jobs)
    return has_manifests and not deployment.redis.zcard("nightshift:active")


def _manifest(deployment: Deployment, job: AcceptedJob) -> Manifest | None:
    data = deployment.objects.content.get(child(job.output, MANIFEST))
    return Manifest.model_validate_json(data) if data is not None else None


def _maintain(world: World, deployment: Deployment) -> None:
    """Let Redis forget what expires by the world's clock."""

    def now_and_then() -> None:
        while True:
            world.sleep(3.0)
            for key in deployment.redis.zrangebyscore("nightshift:sim-expiry", 0, world.now):
                deployment.redis.zrem("nightshift:sim-expiry", key)
                deployment.redis.delete(key)

    world.at(0.0, now_and_then)


class _Draw:
    """Draws a schedule."""

    def __init__(self, schedule: Schedule, world: World, deployment: Deployment, faults: int | None) -> None:
        self._schedule = schedule
        self._world = world
        self._deployment = deployment
        self._random = world.random
        self._faults = faults

    def all(self) -> None:
        machines = self._machines()
        for _ in range(self._random.choice((1, 1, 2, 3))):
            self._job()
        kinds = self._kinds(machines)
        for number in range(self._random.randrange(7)):
            kind, at = self._random.choice(kinds), self._random.uniform(0, BEGIN_S)
            action = kind(at)
            if self._faults is None or number < self._faults:
                self._world.at(at, action)
        if self._random.random() < 0.3:
            self._world.deaths, self._world.deaths_until = 0.003, self._world.now + BEGIN_S
            self._schedule.tell("processes die at 0.3% of their steps")
        if self._random.random() < 0.3:
            self._deployment.objects.lost_answers = 0.03
            self._schedule.tell("3% of the answers to creations are lost")

    def _machines(self) -> list[Machine]:
        random, count = self._random, self._random.choice((1, 2, 3, 4))
        self.bad: Machine | None = None
        for number in range(count):
            workers = random.choice((1, 1, 2, 3))
            bad = random.choice(BAD) if number == 1 and random.random() < 0.6 else ""
            begins = 1_000_000 + random.choice((0.0, random.uniform(0, BEGIN_S)))
            ends = float("inf") if random.random() < 0.7 else 1_000_000 + OVER_S
            machine = self._deployment.add(f"m{number}", workers, bad=bad, bad_from=begins, bad_until=ends)
            self._schedule.tell(f"machine m{number} with {workers} workers {bad and 'that is bad: ' + bad}")
            if bad:
                self.bad = machine
            if bad in ("denied", "away"):
                kind = AccessDenied if bad == "denied" else Transient
                self._world.at(begins - 1_000_000, partial(self._break_storage, "m1", ends, kind))
        return self._deployment.machines

    def _break_storage(self, host: str, until: float, kind: type[Exception]) -> None:
        self._deployment.objects.faults[host] = until, kind

    def _job(self) -> None:
        random, troubles = self._random, Troubles()
        shards = random.choice((1, 2, 5, 12))
        if random.random() < 0.15:
            troubles.deadly = {random.randrange(shards)}
        if random.random() < 0.15:
            troubles.unreadable = {random.randrange(shards)}
        troubles.bad_model = random.random() < 0.08
        tenant, priority = random.choice(("", "a", "b")), random.choice((0, 5, 9))
        number = len(self._deployment.jobs)
        self._schedule.tell(f"job {number} of {shards} shards, {troubles}")
        self._deployment.submit(shards, troubles, tenant, priority)

    # Each returns what is to happen, and tells of it.

    def _kinds(self, machines: list[Machine]) -> list[Callable[[float], Callable[[], object]]]:
        kinds: list[Callable[[float], Callable[[], object]]] = [
            self._kill, self._kill, self._stall, self._flush_while_away, self._cut_off, self._flush, self._store_away,
            self._cancel, self._pause,
        ]  # fmt: skip
        if len(machines) > 1:
            kinds.append(self._crash)
        if self.bad is None:
            kinds += [self._redis_away, self._crash]
        return kinds

    def _kill(self, at: float) -> Callable[[], object]:
        machine = self._random.choice(self._deployment.machines)
        which = self._random.random()
        self._schedule.tell(f"{at:.0f} s: a process of {machine.name} is killed")

        def kill() -> None:
            alive = [process for process in machine.processes[1:] if process.alive]
            if machine.is_up and alive:
                self._deployment.kill(machine, alive[int(which * len(alive))])

        return kill

    def _crash(self, at: float) -> Callable[[], object]:
        """A machine that is needed as a witness against a bad one is back before it counts as gone."""
        machine, workers = self._random.choice(self._deployment.machines), self._random.choice((1, 2))
        back = self._random.uniform(5, 30)
        self._schedule.tell(f"{at:.0f} s: {machine.name} crashes, and is back after {back:.0f} s")

        def crash() -> None:
            if machine.is_up:
                self._deployment.crash(machine)
                self._world.at(back, lambda: self._deployment.boot(machine, workers))

        return crash

    def _cut_off(self, at: float) -> Callable[[], object]:
        host, seconds = self._random.choice(self._deployment.machines).name, self._random.choice((2.0, 10.0, 45.0))
        if self.bad is not None:  # others are its witnesses, as long as they report
            seconds = min(seconds, 15.0)
        self._schedule.tell(f"{at:.0f} s: {host} is cut off Redis for {seconds:.0f} s")
        return lambda: self._world.cut_off.update({host: self._world.now + seconds})

    def _redis_away(self, at: float) -> Callable[[], object]:
        seconds = self._random.choice((2.0, 10.0, 50.0))
        self._schedule.tell(f"{at:.0f} s: Redis is away for {seconds:.0f} s")
        return lambda: self._world.cut_off.update({"": self._world.now + seconds})

    def _flush(self, at: float) -> Callable[[], object]:
        self._schedule.tell(f"{at:.0f} s: Redis is emptied")

        def flush() -> None:
            self._deployment.redis.flushall()
            self._deployment.locks.clear()

        return flush

    def _flush_while_away(self, at: float) -> Callable[[], object]:
        flush, away = self._flush(at), self._store_away(at)

        def both() -> None:
            flush()
            away()

        return both

    def _stall(self, at: float) -> Callable[[], object]:
        machine, seconds = self._random.choice(self._deployment.machines), self._random.choice((5.0, 30.0))
        self._schedule.tell(f"{at:.0f} s: a process of {machine.name} stalls in its next shard for {seconds:.0f} s")
        return lambda: self._deployment.stalls.update({machine.name: seconds})

    def _store_away(self, at: float) -> Callable[[], object]:
        host = self._random.choice(["", *(machine.name for machine in self._deployment.machines)])
        kind, seconds = self._random.choice((Transient, AccessDenied)), self._random.choice((2.0, 10.0, 40.0))
        if self.bad is not None and host == self.bad.name:
            host = ""
        self._schedule.tell(f"{at:.0f} s: {host or 'everyone'} gets {kind.__name__} from storage for {seconds:.0f} s")
        return lambda: self._break_storage(host, self._world.now + seconds, kind)

    def _cancel(self, at: float) -> Callable[[], object]:
        job = self._random.choice(self._deployment.jobs)
        self._schedule.tell(f"{at:.0f} s: job {job.id} is cancelled")

        def cancel() -> None:
            catalog = Catalog(self._deployment.settings.catalog_uri, self._deployment.storage("client"))
            broker = SimBroker(self._deployment)
            if self._asked(lambda state: cancel_job(job.id, job.output, catalog, state, broker)):
                is_noted = catalog.uri + f"/cancelled/{job.id}.json" in self._deployment.objects.content
                # One whose manifest is being written may end as it was.
                ends = child(job.output, MANIFEST) in self._deployment.objects.content
                sure = is_noted and not ends and not self._is_done(job)
                (self._deployment.cancelled if sure else self._deployment.perhaps_cancelled).add(job.id)

        return cancel

    def _is_done(self, job: AcceptedJob) -> bool:
        parts = sum(
            uri.startswith(job.layout.parts_in(job.output) + "part-") for uri in self._deployment.objects.content
        )
        return parts == int(job.spec.labels["shards"])

    def _pause(self, at: float) -> Callable[[], object]:
        job, seconds = self._random.choice(self._deployment.jobs), self._random.uniform(1, 40)
        self._schedule.tell(f"{at:.0f} s: job {job.id} is paused for {seconds:.0f} s")

        def pause() -> None:
            self._asked(lambda state: state.jobs.pause(job.id))
            self._world.at(seconds, lambda: self._asked(lambda state: state.jobs.resume(job.id)))

        return pause

    def _asked(self, ask: Callable[[State], bool]) -> bool:
        """Ask as a client does, again while Redis is away."""
        state = self._deployment.state("client")
        while True:
            try:
                return ask(state)
            except ServiceUnavailable:
                self._world.sleep(1.0)


# -- what must hold ----------------------------------------------------------------------------------------------------


def _check(schedule: Schedule, deployment: Deployment, manifests: dict[str, Manifest | None], late: int) -> None:
    for at, uri in deployment.objects.log[late:]:
        if uri.startswith(deployment.settings.catalog_uri):  # an end that is marked late
            continue
        schedule.wrong.append(f"{uri} was written after the end of all jobs, at {at:.0f} s")
    for job in deployment.jobs:
        manifest = manifests[job.id]
        if manifest is not None:
            schedule.wrong += [f"job {job.id}: {what}" for what in _wrong_with(job, manifest, deployment)]
    schedule.wrong += [error for error in deployment.errors if "simulated" not in error]


def _wrong_with(job: AcceptedJob, manifest: Manifest, deployment: Deployment) -> list[str]:
    wrong = []
    folder = JobFolder.of(job, deployment.storage("check"))
    troubles = deployment.troubles[job.id]
    shards = int(job.spec.labels["shards"])
    named = [part.shard for part in manifest.parts]
    there = [shard for shard, _ in folder.parts()]
    lost = {one.shard: one.error.code for one in manifest.lost}
    if sorted(set(named)) != sorted(named) or set(named) & lost.keys():
        wrong.append(f"shards named twice: parts {named}, lost {lost}")
    if set(there) != set(named):
        more, gone = sorted(set(there) - set(named)), sorted(set(named) - set(there))
        wrong.append(f"parts {more} aren't in the manifest, parts {gone} of it are gone")
    if manifest.status is JobStatus.SUCCEEDED and set(named) != set(range(shards)):
        wrong.append(f"it succeeded with parts {named} of {shards}")
    was_cancelled = manifest.status is JobStatus.CANCELLED
    if was_cancelled != (job.id in deployment.cancelled) and job.id not in deployment.perhaps_cancelled:
        wrong.append(f"it ended as {manifest.status}; cancelled: {job.id in deployment.cancelled}")
    if manifest.status is JobStatus.FAILED and manifest.error is None and not lost:
        wrong.append("it failed, and nothing says why")
    blamable = troubles.deadly | troubles.unreadable
    for shard in lost.keys() - blamable if not troubles.bad_model else ():
        wrong.append(f"shard {shard} is lost ({lost[shard]}), and nothing was wrong with it")
    if manifest.status is JobStatus.FAILED and not (blamable or troubles.bad_model):
        wrong.append(f"it failed, and nothing was wrong with it: {manifest.error}")
    # A machine that is bad in ways of its own may be suspended, and is no witness then.
    good = [machine for machine in deployment.machines if not machine.bad]
    for shard in troubles.deadly & lost.keys() if len(good) > 1 else ():
        saw = set(deployment.seen.get((job.id, shard), ()))
        if len(saw) < 2:
            wrong.append(f"shard {shard} was given up, and only {saw} saw it")
    for (of, shard), hosts in deployment.seen.items():
        if of == job.id and shard >= 0 and len(hosts) > 60:
            wrong.append(f"shard {shard} ran {len(hosts)} times")
    return wrong
