"""The stage of the campaign: a copy of the packages with the stub task in it, real workers of that, jobs on them."""

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.api.tokens import Scope, Tokens
from jobs.broker import Broker, make_app
from jobs.cli.run_job import submitter_of, validated_job
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.submission.accept import enqueue
from schemas.errors import NotFound
from schemas.job import AcceptedJob, parse_spec
from schemas.layout import MANIFEST, child
from schemas.manifest import Manifest
from schemas.table import TableSpec
from tests.acceptance.api import server
from tests.acceptance.cli import NIGHTSHIFT, environment
from tests.faults.invariants import Ended, check
from tests.packages import copy_packages
from tests.servers import wait_for

OVERLAY = Path(__file__).parent / "overlay"
#: The two entry points that Celery's processes import, and that of the process that commits to a table.
APPS = ("workers/celery_app.py", "jobs/control/celery_app.py", "jobs/tables/child.py")
#: Generous: the machine may be busy. What it bounds is seconds where nothing fails.
BOUND_S = 240.0


def copy_with_stub_task(root: Path) -> Path:
    """The packages with the stub task's files; each of the two Celery apps imports the failpoints."""
    return with_failpoints(copy_packages(root, OVERLAY))


def with_failpoints(root: Path) -> Path:
    """Let the entry points of the packages in `root` import the failpoints. Return `root`."""
    for app in APPS:
        if not (root / app).exists():  # an earlier version
            continue
        with (root / app).open("a") as file:
            file.write("\nimport failpoints\n")
    return root


def make_stub_model(folder: Path) -> Path:
    """The files that a producer looks for in a model; the stub task loads none of them."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["StubForNoise"]}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


@dataclass
class Failpoints:
    """The test's side of the failpoints: arms them, and sees which were reached."""

    folder: Path
    _armed: int = 0

    def __post_init__(self) -> None:
        for name in ("armed", "fired"):
            (self.folder / name).mkdir(parents=True)

    def arm(self, step: str, action: str, shard: int | None = None) -> None:
        """Let the first process that reaches the step `kill`, `stop` or `hang` itself there."""
        self._armed += 1
        of = "any" if shard is None else shard
        aside = self.folder / f"{step}-{self._armed}"
        aside.write_text(action)
        aside.rename(self.folder / "armed" / f"{step}@{of}~{self._armed}")

    def fired(self, step: str = "") -> list[int]:
        """The processes that reached the step, or any."""
        return [int(file.name.rsplit("~", 1)[1]) for file in (self.folder / "fired").glob(f"{step}*")]

    @property
    def waiting(self) -> list[str]:
        """The steps that nobody has reached."""
        return [file.name for file in (self.folder / "armed").iterdir()]

    def claims(self, job: str) -> Counter[int]:
        """How often each shard of the job was claimed."""
        return Counter(int(line.split()[1]) for line in self._asked() if line.startswith(f"{job} "))

    def claims_by_host(self, job: str) -> Counter[str]:
        """How many of the job's shards each host claimed."""
        return Counter(line.split()[2] for line in self._asked() if line.startswith(f"{job} "))

    @property
    def in_vain(self) -> int:
        """How many messages found no shard to claim."""
        return self._asked().count("nothing")

    def _asked(self) -> list[str]:
        file = self.folder / "claims"
        return file.read_text().splitlines() if file.exists() else []


@dataclass
class Worker:
    """A `nightshift worker` and everything it started."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def family(self) -> list[psutil.Process]:
        """The supervisor, its Celery processes, and their children."""
        try:
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """kill -9 of all of it, as when a machine is lost."""
        end(self.family())
        self.process.wait()

    def terminate(self) -> None:
        self.process.terminate()


def end(family: list[psutil.Process]) -> None:
    for member in family:
        if member.is_running():
            member.kill()
    psutil.wait_procs(family, timeout=30)


@dataclass
class Submitted:
    """A job on the stage, and the files it reads."""

    accepted: AcceptedJob
    inputs: list[str]

    @property
    def id(self) -> str:
        return self.accepted.id

    @property
    def output(self) -> str:
        return self.accepted.output


@dataclass
class Stage:
    """A deployment of the copy: one Redis, and workers as they are started. `env` is its processes' alone."""

    copy: Path
    folder: Path
    settings: Settings
    failpoints: Failpoints
    env: dict[str, str] = field(default_factory=dict)
    _workers: int = 0

    def __post_init__(self) -> None:
        self.state = State(self.settings)
        self.broker = Broker(make_app(self.settings, "stage"))
        self.storage = Storage()
        self.model = make_stub_model(self.folder / "model")

    def worker(self, *arguments: str, **env: str) -> AbstractContextManager[Worker]:
        """A worker, gone with the context, whatever state it is in."""
        return self.started([*NIGHTSHIFT, "worker", *arguments], **env)

    @contextmanager
    def started(self, command: list[str], **env: str) -> Iterator[Worker]:
        """The worker that this command starts."""
        self._workers += 1
        log = self.folder / f"worker-{self._workers}.log"
        own = {"PYTHONPATH": str(self.copy), "FAULTS": str(self.failpoints.folder)} | self.env | env
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, env=environment(**self.settings.environment(own)), cwd=self.copy,
                stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        worker = Worker(process, log)
        try:
            yield worker
        finally:
            family = worker.family()
            process.terminate()
            try:
                process.wait(self.settings.grace_s + 15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            end(family)

    @contextmanager
    def api(self) -> Iterator[httpx2.Client]:
        """A `nightshift api` of the copy, asked with a token that may do everything."""
        home = self.settings.home
        secret = Tokens(home / "tokens.json").new("stage", [Scope.SUBMIT, Scope.READ], ["*"], ["*"])[1]
        env = self.settings.environment({"PYTHONPATH": str(self.copy), "NIGHTSHIFT_ALLOW_FILES": "true"})
        with (
            server(self.folder / "api.log", cwd=self.copy, **env) as url,
            httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {secret}"}, timeout=60) as http,
        ):
            yield http

    def cli(self, *arguments: object) -> "subprocess.Popen[str]":
        """A command of the copy, just started."""
        env = environment(**self.settings.environment({"PYTHONPATH": str(self.copy)}))
        command = [*NIGHTSHIFT, *map(str, arguments)]
        return subprocess.Popen(
            command, env=env, cwd=self.copy, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )

    def submit(self, source: str | list[str], output: str, **changes: Any) -> Submitted:
        """A job of the stub task, or of another, over these files with columns `id` and `text`.

        A `table` among the changes is the one that it is committed to.
        """
        table: TableSpec | None = changes.pop("table", None)
        files = [source] if isinstance(source, str) else source
        place = {"uri": output} | ({} if table is None else {"table": table.model_dump()})
        spec = {"task": "noise", "model": str(self.model), "input": {"uri": files}, "output": place}
        new = validated_job(parse_spec(spec | changes), self.storage, self.settings)
        accepted = submitter_of(self.settings, self.storage).create(new)
        enqueue(accepted.job, self.state, self.broker, accepted.is_new)
        return Submitted(accepted.job, files)

    def job(self, name: str, rows: int, *, texts: list[str] | None = None, **changes: Any) -> Submitted:
        """A job over a new local table of so many rows; by default 10 rows a shard, 2 batches each."""
        file = write_table(self.folder / f"{name}.parquet", texts or [f"text {i}" for i in range(rows)])
        usual = {"shard": {"rows": 10}, "batch_size": 5}
        return self.submit(str(file), str(self.folder / name), **(usual | changes))

    def ended(self, job: Submitted, bound_s: float = BOUND_S) -> Ended:
        """The job's location at the moment its manifest is there."""

        wait_for(f"job {job.id} has ended", lambda: self.has_manifest(job), timeout_s=bound_s)
        return Ended.seen(job.output, self.storage)

    def has_manifest(self, job: Submitted) -> bool:
        try:
            return bool(self.storage.stat(child(job.output, MANIFEST)))
        except NotFound:
            return False

    def check(
        self,
        ended: Ended,
        job: Submitted,
        bound_s: float = BOUND_S,
        attempts: int = 1,
        meanwhile: list[Ended] | None = None,
        was: dict[str, str] | None = None,
    ) -> Manifest:
        """The job's invariants, no shard claimed more than so many times."""
        claims = self.failpoints.claims(job.id)
        return check(
            ended, job.inputs, bound_s, attempts=claims, most_attempts=attempts, meanwhile=meanwhile or (), was=was
        )


def write_table(file: Path, texts: list[str], row_group: int = 1000) -> Path:
    table = pa.table({"id": range(len(texts)), "text": pa.array(texts, pa.string())})
    pq.write_table(table, file, row_group_size=row_group)
    return file
