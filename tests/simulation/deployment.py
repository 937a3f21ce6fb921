"""A deployment in the simulated world: the product's own worker, control, supervisor and sweep code, on Redis itself.

Simulated are the machines, their clocks, storage, the network, the locks, Celery's queues, and what a model computes.
Redis and the scripts in it are real; its clock is the world's.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import redis

import jobs.control.controller
import jobs.control.patience
import jobs.state
import jobs.state.connection
import jobs.state.jobs
import jobs.state.workers
import jobs.storage.job_folder
import jobs.storage.parquet
import jobs.supervisor.recovery
import jobs.supervisor.sweep
import workers.execution.attempt
import workers.execution.lease
import workers.execution.retry_policy
import workers.execution.suspension
import workers.execution.ticket
from jobs.broker import CONTROL_QUEUE, FINISH_JOB, PLAN_JOB, RUN_SHARD, Broker, task_queue
from jobs.control.controller import Control
from jobs.settings import Settings
from jobs.state import State
from jobs.state.connection import Connection, Script, _Pipeline, _Redis
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.submission.accept import Submitter, enqueue, new_job
from jobs.supervisor.recovery import rebuild_if_new
from jobs.supervisor.sweep import sweep
from schemas.errors import NightshiftError, Permanent, ServiceUnavailable, Unreadable
from schemas.job import AcceptedJob, ResolvedModel, parse_spec
from schemas.loss import Loss
from schemas.plan import Planned, Shard, Slice
from schemas.report import ShardReport
from schemas.task import Group
from tests.simulation.store import Objects, storage_of
from tests.simulation.world import Dead, Process, Threading, Time, World, serial_map
from workers.execution.breaker import Breaker
from workers.execution.job_context import JobContext
from workers.execution.ticket import run_turns
from workers.io.witnesses import Witnesses

TASK = "text-classification"
REPORT_S = 60.0
_COLUMNS = pa.schema([("id", pa.int64()), ("text", pa.string())])


@dataclass
class Troubles:
    """What is wrong with a job: the shards that end or fail whoever runs them, and whether its model loads nowhere."""

    deadly: set[int] = field(default_factory=set)
    unreadable: set[int] = field(default_factory=set)
    bad_model: bool = False


@dataclass
class Machine:
    """A machine. `bad` says how it fails, from when it does so until `bad_until`."""

    name: str
    bad: str = ""
    bad_from: float = 0.0
    bad_until: float = float("inf")
    is_up: bool = True
    processes: list[Process] = field(default_factory=list)
    failures: dict[int, list[str]] = field(default_factory=dict)

    def is_bad(self, how: str, now: float) -> bool:
        return self.bad == how and self.bad_from <= now < self.bad_until


class SimLocks:
    """Locks by the world's clock. One that is held `alone` is kept as long as its process lives and reaches Redis."""

    def __init__(self, deployment: "Deployment") -> None:
        self._world = deployment.world
        self._held = deployment.locks

    def take(self, name: str, owner: str, seconds: float) -> bool:
        self._world.step("redis")
        there = self._held.get(name)
        if there is not None and there[0] != owner and self._lasts(there):
            return False
        self._held[name] = owner, self._world.now + seconds, None
        return True

    def _lasts(self, there: tuple[str, float, Process | None]) -> bool:
        _, until, holder = there
        renewed = holder is not None and holder.alive and not self._world.is_cut_off(holder.host)
        return renewed or until > self._world.now

    def release(self, name: str, owner: str) -> None:
        self._world.step("redis")
        if self._held.get(name, ("",))[0] == owner:
            del self._held[name]

    @contextmanager
    def alone(self, name: str, owner: str, seconds: float) -> Iterator[bool]:
        if not self.take(name, owner, seconds):
            yield False
            return
        self._held[name] = owner, self._world.now + seconds, self._world.process
        try:
            yield True
        finally:
            self.release(name, owner)


class SimBroker(Broker):
    """Celery's queues, as lists in Redis. A message may be lost, or come twice."""

    def __init__(self, deployment: "Deployment") -> None:
        self._deployment = deployment

    def _send(self, function: str, queue: str, message: dict[str, object]) -> None:
        world = self._deployment.world
        world.step("redis")
        chance = world.random.random()
        for _ in range(0 if chance < 0.01 else 2 if chance < 0.03 else 1):
            self._deployment.redis.lpush(queue, json.dumps([function, message]))
        world.wake()


class Deployment:
    """Machines with a supervisor, worker processes and a control process each."""

    def __init__(self, world: World, settings: Settings) -> None:
        self.world = world
        self.settings = settings
        self.objects = Objects()
        self.locks: dict[str, tuple[str, float, Process | None]] = {}
        assert settings.redis_url is not None
        self.redis: Any = redis.Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True)
        self.machines: list[Machine] = []
        self.troubles: dict[str, Troubles] = {}
        self.jobs: list[AcceptedJob] = []
        self.seen: dict[tuple[str, int], list[str]] = {}
        #: Jobs whose cancel was accepted; and those of which storage, which was away, has no note.
        self.cancelled: set[str] = set()
        self.perhaps_cancelled: set[str] = set()
        self.errors: list[str] = []
        self._stack = ExitStack()

        world.kill = self._died
        #: Processes that stall in the middle of their next shard, for so many seconds, by machine.
        self.stalls: dict[str, float] = {}

    def _died(self, process: Process) -> None:
        machine = next((one for one in self.machines if process in one.processes[1:]), None)
        if machine is not None:
            self.kill(machine, process)

    def __enter__(self) -> "Deployment":
        self.redis.flushall()
        self.redis.set("nightshift:epoch", self.redis.info("server")["run_id"])
        for target, name, value in self._replaced():
            self._stack.enter_context(patch.object(target, name, value))
        return self

    def __exit__(self, *error: object) -> None:
        self.world.close()
        self._stack.close()
        self.redis.close()

    def _replaced(self) -> Iterator[tuple[Any, str, Any]]:
        world, time, threading = self.world, Time(self.world), Threading(self.world)
        for module in (
            jobs.state.workers, jobs.state.jobs, jobs.control.controller, jobs.control.patience,
            workers.execution.lease, workers.execution.attempt, workers.execution.ticket, workers.execution.suspension,
        ):  # fmt: skip
            yield module, "time", time
        yield workers.execution.lease, "threading", threading
        yield workers.execution.retry_policy, "random", world.random
        yield jobs.storage.job_folder, "parallel_map", serial_map
        yield jobs.supervisor.recovery, "parallel_map", serial_map
        yield jobs.storage.parquet, "_try", lambda footer: None
        yield jobs.control.controller, "planned", self._planned
        yield workers.execution.attempt, "ShardRun", self._shard_run
        yield workers.execution.attempt, "watched", self._watched
        yield workers.execution.suspension, "unfit", self._unfit
        yield jobs.state, "Locks", lambda connection: SimLocks(self)
        yield Script, "source", property(_source_by_the_world_s_clock)
        yield Connection, "run", self._script(Connection.run)
        yield Script, "ordered", self._with_time(Script.ordered)
        yield Connection, "now", lambda connection: world.now
        told = jobs.state.progress.progress_from
        yield jobs.state.jobs, "progress_from", lambda job, found, now, groups: told(job, found, world.now, groups)
        for kind, method in ((_Redis, "execute_command"), (_Pipeline, "execute")):
            yield kind, method, self._command(getattr(kind, method))

    def _with_time(self, ordered: Callable[..., Any]) -> Callable[..., Any]:
        def timed(script: Script, named: dict[str, str | float]) -> Any:
            keys, arguments = ordered(script, named)
            return keys, [*arguments, self.world.now]

        return timed

    def _script(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(connection: Connection, name: str, **named: Any) -> Any:
            self.world.step("redis")
            with _no_steps(self.world):
                return run(connection, name, **named)

        return stepped

    def _command(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(client: Any, *args: Any, **options: Any) -> Any:
            self.world.step("redis")
            return run(client, *args, **options)

        return stepped

    def _planned(
        self, spec: Any, columns: Any, storage: Any, settings: Any, limits: Any, check: Any, unseen: Any
    ) -> Any:
        shards = int(spec.labels["shards"])
        for _ in range(2):
            self.world.sleep(self.world.random.uniform(0, 2))
            check()
        part = Slice(uri=spec.input.uris[0], etag="e", size=10, row_group=0, start=0, rows=1, source_row=0)
        made = (
            Shard(shard=n, slices=(part.model_copy(update={"start": n, "source_row": n}),), rows=1, bytes=10)
            for n in range(shards)
        )
        return Planned(columns=_COLUMNS, shards=made, skipped={})

    def storage(self, host: str) -> Storage:
        return storage_of(self.world, self.objects, host)

    def state(self, host: str) -> State:
        return State(self.settings.model_copy(update={"host": host}))

    # -- machines ------------------------------------------------------------------------------------------------------

    def add(self, name: str, workers: int, **bad: Any) -> Machine:
        machine = Machine(name, **bad)
        self.machines.append(machine)
        self.boot(machine, workers)
        return machine

    def boot(self, machine: Machine, workers: int) -> None:
        """Start a machine's processes."""
        machine.is_up = True
        machine.processes.clear()
        name = f"{machine.name}-{self.world.random.getrandbits(32):x}"
        supervisor = Process(name, machine.name)
        machine.processes.append(supervisor)
        state = self.state(machine.name)
        self.world.start(supervisor, lambda: self._supervise(state, name, workers, machine))
        for slot in range(workers):
            self._start_worker(machine, name, slot)
        self._start_control(machine, name)

    def crash(self, machine: Machine) -> None:
        """End all of a machine at once."""
        machine.is_up = False
        for process in machine.processes:
            process.alive = False
        supervisor = machine.processes[0].name
        forgotten = self.state("fate")
        self.world.at(REPORT_S, lambda: forgotten.workers.forget(supervisor))

    def kill(self, machine: Machine, process: Process) -> None:
        """End one process. Its supervisor sees it, and starts another."""
        process.alive = False
        supervisor = machine.processes[0]

        def seen() -> None:
            if not (machine.is_up and supervisor.alive and supervisor is machine.processes[0]):
                return
            self.world.start(supervisor, lambda: self._replace(machine, process), 0.0)

        self.world.at(self.world.random.uniform(0.2, 1.0), seen)

    def _replace(self, machine: Machine, process: Process) -> None:
        supervisor = machine.processes[0].name
        if process in machine.processes:
            machine.processes.remove(process)
        if not isinstance(process, WorkerProcess):
            self._start_control(machine, supervisor)
            return
        while process.in_hand is not None:
            order, attempt = process.in_hand
            state = self.state(machine.name)
            try:
                verdict = state.shards.lost(order, attempt, Loss.WORKER_LOST)
            except ServiceUnavailable:
                self.world.sleep(0.5)
                continue
            process.in_hand = None
            if verdict.suspect:
                machine.failures.setdefault(process.slot, []).append("the process was lost")
            try:
                if verdict.finish:
                    SimBroker(self).finish_job(order.job, order.output)
            except ServiceUnavailable:
                pass
        self.world.sleep(self.world.random.uniform(0.5, 4.0))
        self._start_worker(machine, supervisor, process.slot)

    def _start_worker(self, machine: Machine, supervisor: str, slot: int) -> None:
        process = WorkerProcess(f"{supervisor}/{slot}", machine.name, slot=slot)
        machine.processes.append(process)
        self.world.start(process, lambda: self._work(machine, process, supervisor), self.world.random.uniform(0, 2))

    def _start_control(self, machine: Machine, supervisor: str) -> None:
        process = Process(f"{supervisor}/control", machine.name)
        machine.processes.append(process)
        self.world.start(process, lambda: self._control(process), self.world.random.uniform(0, 2))

    # -- processes -----------------------------------------------------------------------------------------------------

    def _supervise(self, state: State, name: str, count: int, machine: Machine) -> None:
        catalog = Catalog(self.settings.catalog_uri, self.storage(machine.name))
        broker = SimBroker(self)
        while True:
            try:
                state.workers.begin()
                state.workers.report(name, list(Group), count, host=machine.name)
                sweep(state, broker, self.settings, name)
                rebuild_if_new(state, broker, catalog, self.settings, name)
            except (NightshiftError, OSError):
                pass
            self.world.sleep(self.settings.sweep_s)

    def _next_message(self, queues: list[str]) -> tuple[str, dict[str, str]] | None:
        self.world.step("redis")
        for queue in queues:
            found = self.redis.rpop(queue)
            if found is not None:
                function, message = json.loads(found)
                return function, message
        return None

    def _control(self, process: Process) -> None:
        state, storage = self.state(process.host), self.storage(process.host)
        control = Control(self.settings, state, SimBroker(self), storage, process.name)
        while True:
            try:
                message = self._next_message([CONTROL_QUEUE])
                if message is None:
                    self.world.doze(5.0)
                elif message[0] == PLAN_JOB:
                    control.plan_job(**message[1])
                elif message[0] == FINISH_JOB:
                    control.finish_job(**message[1])
            except ServiceUnavailable:
                self.world.sleep(1.0)
            except Dead:
                raise
            except Exception as error:  # noqa: BLE001 - Celery logs it, and goes on
                self.errors.append(f"control: {type(error).__name__}: {error}")

    def _work(self, machine: Machine, process: "WorkerProcess", supervisor: str) -> None:
        context = SimContext(self, machine, process, supervisor)
        while True:
            try:
                message = self._next_message([task_queue(TASK)])
            except ServiceUnavailable:
                self.world.sleep(1.0)
                continue
            if message is None:
                self.world.doze(5.0)
            elif message[0] == RUN_SHARD:
                run_turns(message[1]["task"], context)  # type: ignore[arg-type]

    @contextmanager
    def _watched(self, folder: Any, slot: int, order: Any, attempt: str, *limits: float) -> Iterator[Any]:
        process = self.world.process
        assert isinstance(process, WorkerProcess)
        process.in_hand = order, attempt
        yield SimpleNamespace(hurry=lambda: None, loading=_nothing, moving=_nothing, moved=lambda stage: None)
        process.in_hand = None

    def _unfit(self, device: Any, folder: Any) -> str | None:
        process = self.world.process
        assert process is not None
        machine = next(one for one in self.machines if one.name == process.host)
        return "the device is broken" if machine.is_bad("device", self.world.now) else None

    def _shard_run(self, handler: Any, budget: Any, each: Callable[[int], None], watch: Any) -> "SimRun":
        process = self.world.process
        assert process is not None
        return SimRun(self, next(one for one in self.machines if one.name == process.host), each)

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def submit(self, shards: int, troubles: Troubles, tenant: str = "", priority: int = 5) -> AcceptedJob:
        """Accept a job, in storage and in Redis."""
        number = len(self.jobs)
        labels = {"shards": str(shards)} | ({"tenant": tenant} if tenant else {})
        spec = parse_spec(
            {
                "task": TASK, "model": f"/model-{number % 2}", "input": {"uri": "/in.parquet"}, "priority": priority,
                "output": {"uri": f"/out-{number}/"}, "labels": labels,
            }
        )  # fmt: skip
        model = ResolvedModel(source=spec.model, kind="local", revision="r")
        job = new_job(spec, model, accepted_by="me").model_copy(
            update={
                "id": f"20260101-0000{number:02}-aaaaaa",
                "accepted_at": _moment(self.world.now),
            }
        )
        self.troubles[job.id] = troubles
        self.jobs.append(job)
        catalog = Catalog(self.settings.catalog_uri, self.storage("client"))
        Submitter(catalog, embedded=False).create(job)
        while True:
            try:
                enqueue(job, self.state("client"), SimBroker(self), is_new=True)
                return job
            except ServiceUnavailable:
                self.world.sleep(1.0)


@dataclass(eq=False)
class WorkerProcess(Process):
    slot: int = 0
    in_hand: Any = None


class SimContext:
    """What `workers.execution.process.Process` is to the product: what a worker process keeps between shards."""

    def __init__(self, deployment: Deployment, machine: Machine, process: WorkerProcess, supervisor: str) -> None:
        world = deployment.world
        self._deployment = deployment
        self._machine = machine
        self._process = process
        self.settings = deployment.settings.model_copy(
            update={"host": machine.name, "worker": supervisor, "slot": process.slot, "serves": [TASK]}
        )
        self.state = State(self.settings)
        self.broker = SimBroker(deployment)
        self.storage = deployment.storage(machine.name)
        self.models = SimModels(deployment, machine)
        self.name = process.name
        self.versions = {"nightshift": "simulated"}
        self.stop_file = None
        self.is_stopping = False
        self.is_checked = False
        self.suspended_since: float | None = None
        self.suspect_folder = None
        self.unanswered: list[str] = []
        self.breaker = Breaker(clock=lambda: world.now)
        self.breaker.recall(machine.failures.get(process.slot, []))
        self._jobs: dict[str, JobContext] = {}

    def job(self, job: str) -> JobContext:
        if job not in self._jobs:
            context = JobContext(job, self.storage, self.settings, Witnesses())
            context.handler = lambda *_: SimpleNamespace(deterministic=True)  # type: ignore[assignment]
            self._jobs[job] = context
        return self._jobs[job]

    def forget_failures(self) -> None:
        self._machine.failures.pop(self._process.slot, None)

    def note_rate(self, job: Any, rate: float) -> None: ...

    def leave(self) -> None:
        self._deployment.kill(self._machine, self._process)
        raise Dead


class SimModels:
    """Models that take a while to load, and may not."""

    def __init__(self, deployment: Deployment, machine: Machine) -> None:
        self._deployment = deployment
        self._machine = machine
        self.device = SimpleNamespace(type="cpu")
        self.warm: list[str] = []

    def get(self, job: AcceptedJob, handler: Any, loading: Callable[[], Any], fetching: Callable[[], Any]) -> Any:
        world = self._deployment.world
        key = job.model.source
        if key not in self.warm:
            with loading():
                world.sleep(world.random.uniform(0.5, 3))
                if self._machine.is_bad("load", world.now):
                    process = world.process
                    assert process is not None
                    self._deployment.kill(self._machine, process)
                    raise Dead
                bad = self._deployment.troubles[job.id].bad_model
                if bad or self._machine.is_bad("model", world.now):
                    if bad:
                        self._deployment.seen.setdefault((job.id, -1), []).append(self._machine.name)
                    raise Permanent("the model doesn't load (simulated)", code="model")
            self.warm = [*self.warm, key][-2:]
        loaded = SimpleNamespace(dtype="float32")
        return SimpleNamespace(loaded=loaded, load_s=0.0, budget=SimpleNamespace(records=None))


class SimRun:
    """What `ShardRun` is to the product: the work on one shard."""

    def __init__(self, deployment: Deployment, machine: Machine, each: Callable[[int], None]) -> None:
        self._deployment = deployment
        self._machine = machine
        self._each = each
        self._rows = 0
        self.answered = True
        self.unexpected: NightshiftError | None = None

    def run(self, shard: Shard, reader: Any, task_columns: Any, writer: Any, *more: Any) -> None:
        world, deployment = self._deployment.world, self._deployment
        process = world.process
        assert isinstance(process, WorkerProcess)
        order, _ = process.in_hand
        troubles = deployment.troubles[order.job]
        for _ in range(2):
            self._each(self._rows)
            process.stalled_until = world.now + deployment.stalls.pop(self._machine.name, 0.0)
            world.sleep(world.random.uniform(0.1, 1.0))
        deployment.seen.setdefault((order.job, shard.shard), []).append(self._machine.name)
        if self._machine.is_bad("dies", world.now) or shard.shard in troubles.deadly:
            deployment.kill(self._machine, process)
            raise Dead
        if shard.shard in troubles.unreadable:
            raise Unreadable("a page can't be read (simulated)")
        if self._machine.is_bad("disk", world.now):
            raise OSError(28, "No space left on device")
        self._rows = shard.rows
        if self._machine.is_bad("device", world.now):
            self.answered = False
            self.unexpected = NightshiftError("the device fails (simulated)")
        self._each(self._rows)

    def report(self, **known: Any) -> ShardReport:
        return ShardReport(rows=self._rows, errors={}, batches=1, tokens=1, padded_tokens=1, **known)


@contextmanager
def _nothing(stage: object) -> Iterator[None]:
    yield


@contextmanager
def _no_steps(world: World) -> Iterator[None]:
    """What a script's call does inside is one step."""
    current, world._current = world._current, None
    try:
        yield
    finally:
        world._current = current


def _source_by_the_world_s_clock(script: Script) -> str:
    """The script's text: the time is its last argument, and keys expire by it."""
    read = jobs.state.connection._read
    source = "".join(map(read, ["prelude", *script.libraries])) + script.body
    start = source.index("local function now()")
    end = source.index("end\n", start) + 4
    clock = "local function now() return tonumber(ARGV[#ARGV]) end\n"
    expiry = "redis.call('ZADD', P .. 'sim-expiry', now() + 5, promised)"
    return (source[:start] + clock + source[end:]).replace("redis.call('PEXPIRE', promised, 5000)", expiry)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
