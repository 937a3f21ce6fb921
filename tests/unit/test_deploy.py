"""The images and the Compose file: what can be known of them without an engine."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import redis
import yaml
from packaging.requirements import Requirement

from jobs.settings import Settings
from jobs.supervisor.embedded import redis_server
from schemas.task import Group
from tests.servers import S3_ENV, free_ports, redis_client, running, s3_client, seaweedfs, wait_for

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
GPU: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.gpu.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
LOCKS = ["api", "worker-cpu", "worker-gpu", "build"]
OURS = [name for name in SERVICES if name not in ("redis", "s3")]
PASSWORDS = {"REDIS_PASSWORD": "of-redis", "S3_ACCESS_KEY": "testing", "S3_SECRET_KEY": "testing-secret"}


#: What the images run on.
IMAGE = {
    "python_version": "3.11",
    "python_full_version": "3.11.14",
    "sys_platform": "linux",
    "platform_machine": "x86_64",
}


def locked(name: str) -> dict[str, str]:
    """The packages that an image gets, with their versions."""
    lines = (DEPLOY / "locks" / f"{name}.txt").read_text().splitlines()
    requirements = [Requirement(line.removesuffix(" \\")) for line in lines if line[:1].isalnum()]
    return {
        one.name: str(one.specifier).removeprefix("==")
        for one in requirements
        if one.marker is None or one.marker.evaluate(IMAGE)
    }


def extras() -> dict[str, list[str]]:
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


@pytest.mark.parametrize("file", [COMPOSE, GPU], ids=["compose", "gpu"])
def test_compose_follows_the_published_schema(file: dict[str, Any]) -> None:
    """deploy/schema holds compose-spec.json as the Compose specification's project publishes it."""
    schema = json.loads((DEPLOY / "schema" / "compose-spec.json").read_text())
    checker = jsonschema.Draft7Validator(schema)
    assert [error.message for error in checker.iter_errors(file)] == []
    assert list(checker.iter_errors({"services": {"api": {"imagee": "x"}}})), "a typing error is found"


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="Debian's docker-compose is not installed")
@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]], ids=["cpu", "gpu"])
def test_compose_is_read_by_its_client(files: list[str]) -> None:
    command = ["docker-compose", *(word for file in files for word in ("-f", str(DEPLOY / file))), "config"]
    env = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    done = subprocess.run(command, capture_output=True, text=True, env=env | PASSWORDS, check=False)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"].keys() == SERVICES.keys()
    refused = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert refused.returncode != 0, "without passwords nothing starts"


def test_every_group_has_a_worker() -> None:
    commands = [service.get("command", []) for service in SERVICES.values()]
    served = [command[2] for command in commands if command[:1] == ["worker"]]
    assert sorted(served) == sorted(Group)
    for name in GPU["services"]:
        assert SERVICES[name]["command"] == ["worker", "--groups", name]
    assert GPU["services"].keys() == set(Group) - {Group.CONTROL}


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_shut_in(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No privileges, and settings that the program takes."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    for variable, value in service["environment"].items():
        filled = re.sub(r"\$\{(\w+)[^}]*\}", lambda found: PASSWORDS.get(found[1], ""), value)
        monkeypatch.setenv(variable, filled)
    settings = Settings.read()
    assert not settings.allow_files
    assert settings.notify_secret is None, "an empty secret signs nothing"
    assert all(prefix.endswith("/") for prefix in settings.allowed_inputs + settings.allowed_outputs)


def test_only_loopback_is_published() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    images = [service["image"] for service in SERVICES.values() if "build" not in service]
    assert all(re.search(r":\d+\.\d+", image) for image in images), images


def test_the_images_are_pinned_and_run_as_nobody_in_particular() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON=python:3\.11\.\d+-slim-\w+$", text, re.M)
    stages = re.split(r"^FROM ", text, flags=re.M)[1:]
    targets = {stage.split()[2]: stage for stage in stages}
    assert targets.keys() == {"build", "base", "api", "worker-cpu", "worker-gpu"}
    for name in ("api", "worker-cpu", "worker-gpu"):
        assert "USER 10001" in targets[name]
        assert f"/locks/{name}.txt" in targets[name]
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert all("--require-hashes" in line or "--no-index" in line for line in installs), installs
    used = {
        service["build"]["target"] for service in [*SERVICES.values(), *GPU["services"].values()] if "build" in service
    }
    assert used == {"api", "worker-cpu", "worker-gpu"}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_each_package_by_hash(name: str) -> None:
    text = (DEPLOY / "locks" / f"{name}.txt").read_text()
    entries = re.split(r"^(?=\w)", text, flags=re.M)[1:]
    assert entries
    assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize(
    ("name", "chosen"),
    [("api", ["", "api"]), *((name, ["", "worker", "audio", "vision"]) for name in ("worker-cpu", "worker-gpu"))],
)
def test_a_lock_is_of_the_requirements_as_they_are(name: str, chosen: list[str]) -> None:
    """When this fails, pyproject.toml was changed after the locks were made: `make locks`."""
    there = locked(name)
    for requirement in (Requirement(text) for extra in chosen for text in extras()[extra]):
        package = requirement.name.lower().replace("_", "-")
        if requirement.marker is None or requirement.marker.evaluate(IMAGE):
            assert requirement.specifier.contains(there[package]), package


def test_the_api_image_has_no_torch_and_no_other_versions() -> None:
    api, cpu, gpu = locked("api"), locked("worker-cpu"), locked("worker-gpu")
    heavy = ("torch", "nvidia", "triton", "transformers")
    assert not [name for name in api if name.startswith(heavy)]
    assert cpu["torch"].endswith("+cpu")
    assert not [name for name in cpu if name.startswith("nvidia")]
    assert [name for name in gpu if name.startswith("nvidia")]
    for name, version in cpu.items():
        assert {other[name].split("+")[0] for other in (api, gpu) if name in other} <= {version.split("+")[0]}, name


def test_redis_starts_as_the_compose_file_says(tmp_path: Path) -> None:
    """The same command on this machine's Redis, but for the port."""
    script = SERVICES["redis"]["command"][2].replace("$$", "$")
    port = free_ports(1)[0]
    here = script.replace("redis-server -", f"{redis_server()} - --port {port} --bind 127.0.0.1 --dir {tmp_path}")
    env = {"REDIS_PASSWORD": "of-redis", "PATH": os.environ["PATH"]}
    with running(["sh", "-c", here], env, tmp_path / "redis.log"):
        client = redis_client(port, password="of-redis")

        def up() -> bool:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

        wait_for("Redis answers", up)
        found = client.config_get("append*") | client.config_get("maxmemory-policy")
        assert (found["appendonly"], found["maxmemory-policy"]) == ("yes", "noeviction")
        stranger = redis_client(port)
        with pytest.raises(redis.AuthenticationError):
            stranger.ping()
        stranger.close()
        client.shutdown(nosave=True)  # the shell that started it would leave it running
        client.close()


def test_the_buckets_are_made_once_the_s3_server_answers(tmp_path: Path) -> None:
    script = SERVICES["buckets"]["entrypoint"][2]
    (tmp_path / "data").mkdir()
    with seaweedfs(tmp_path / "data") as endpoint:
        env = {"PATH": os.environ["PATH"], "AWS_ENDPOINT_URL_S3": endpoint} | S3_ENV
        for _ in range(2):
            subprocess.run([sys.executable, "-c", script], env=env, check=True, timeout=60)
        names = {bucket["Name"] for bucket in s3_client(endpoint).list_buckets()["Buckets"]}
    assert {"raw", "annotated"} <= names
