"""What the images' targets run, without an engine: their locks in clean virtual environments, and a job through both.

`make deploy-check`, or `python -m deploy.check api worker-gpu`. The API's environment takes a job over HTTP and the
worker's runs it. Needs pip's index; TORCH_INDEX says where the CPU's torch is instead, as options of pip. Fails where a
package outside of a lock is needed, where torch came along with the API, or where the server doesn't answer while its
Redis is away.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.checkpoints import make_classifier
from tests.packages import copy_source
from tests.servers import free_ports, redis_at, running, wait_for

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "deploy" / "locks"
API, WORKERS = "api", ("worker-cpu", "worker-gpu")
LOCKED = ["-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r"]
#: As the Dockerfile has it: torch for CPUs alone is on PyTorch's own index.
INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"


def main() -> None:
    targets = sys.argv[1:] or [API, "worker-cpu"]
    if API not in targets or not set(targets) <= {API, *WORKERS}:
        sys.exit(f"name {API!r} and any of {', '.join(WORKERS)}")
    with tempfile.TemporaryDirectory(prefix="nightshift-deploy-") as name:
        folder = Path(name)
        wheel = built(folder)
        bins = {target: installed(target, wheel, folder) for target in targets}
        heavy = [p for p in packages(bins[API]) if p.startswith(("torch", "nvidia", "transformers", "triton"))]
        assert not heavy, f"the api target holds {heavy}"
        with Server(bins[API], folder) as server:
            tell(f"api: {len(packages(bins[API]))} packages, none of them torch; answered after {server.seconds:.1f} s")
            for worker in targets:
                if worker != API:
                    torch = run(str(bins[worker] / "python"), "-c", "import torch; print(torch.__version__)").strip()
                    rows = server.job_by(bins[worker], worker)
                    count = len(packages(bins[worker]))
                    tell(f"{worker}: {count} packages, torch {torch}; a job of {rows} records through the API and it")


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def built(folder: Path) -> Path:
    """Nightshift's wheel, by the Dockerfile's commands, from a copy: setuptools writes beside the source."""
    venv.create(folder / "build", with_pip=True)
    python = f"{folder}/build/bin/python"
    run(python, *LOCKED, str(LOCKS / "build.txt"))
    source = copy_source(folder / "source")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "wheels")]
    run(python, "-m", "pip", "wheel", *options, str(source))
    (wheel,) = (folder / "wheels").iterdir()
    return wheel


def installed(target: str, wheel: Path, folder: Path) -> Path:
    """The `bin` of a new environment that holds what the Dockerfile's target installs, by the same commands."""
    venv.create(folder / target, with_pip=True)
    bin_ = folder / target / "bin"
    index = shlex.split(os.environ.get("TORCH_INDEX", INDEX)) if target == "worker-cpu" else []
    run(str(bin_ / "python"), *LOCKED, str(LOCKS / f"{target}.txt"), *index)
    run(str(bin_ / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    return bin_


def packages(bin_: Path) -> list[str]:
    return [p["name"] for p in json.loads(run(str(bin_ / "python"), "-m", "pip", "list", "--format=json"))]


class Server:
    """The API's environment, its server running: first without a Redis, then with one."""

    def __init__(self, bin_: Path, folder: Path) -> None:
        self._nightshift = str(bin_ / "nightshift")
        self._folder = folder
        port, self._redis_port = free_ports(2)
        self._url = f"http://127.0.0.1:{port}"
        self._command = [self._nightshift, "api", "--host", "127.0.0.1", "--port", str(port)]
        self._env = {name: v for name, v in os.environ.items() if not name.startswith(("NIGHTSHIFT_", "PYTHON"))}
        self._env |= {
            "NIGHTSHIFT_HOME": str(folder / "home"),
            "NIGHTSHIFT_REDIS_URL": f"redis://127.0.0.1:{self._redis_port}/0",
            "NIGHTSHIFT_ALLOW_FILES": "true",
            "HF_HUB_OFFLINE": "1",
        }
        self._token = ""
        self.seconds = 0.0

    def __enter__(self) -> "Server":
        allowed = ["--inputs", "*", "--outputs", "*"]
        self._token = run(self._nightshift, "token", "new", "--tenant", "check", *allowed, env=self._env).strip()
        log = self._folder / "api.log"
        begun = time.monotonic()
        self._server = running(self._command, self._env, log, self._folder)
        self._server.__enter__()
        wait_for("the server answers", lambda: self._ask("/healthz")[0] == 200, every_s=0.02)
        self.seconds = time.monotonic() - begun
        token, self._token = self._token, ""
        assert self._ask("/v1/tasks")[0] == 401
        self._token = token
        assert self._ask("/v1/tasks")[0] == 200
        assert self._ask("/v1/workers")[0] == 503
        assert token not in log.read_text()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.__exit__(None, None, None)

    def job_by(self, bin_: Path, target: str) -> int:
        """Have a job run by a worker of this environment; its records, all answered."""
        folder = self._folder / f"job-{target}"
        folder.mkdir()
        model = make_classifier(folder / "model")
        pq.write_table(pa.table({"text": [f"text {number}" for number in range(100)]}), folder / "in.parquet")
        spec = {"task": "text-classification", "model": str(model), "input": {"uri": str(folder / "in.parquet")}}
        with (
            redis_at(folder, self._redis_port),
            running([str(bin_ / "nightshift"), "worker"], self._env, folder / "worker.log", folder),
        ):
            wait_for("the server finds Redis", lambda: self._ask("/v1/workers")[0] == 200)
            status, job = self._ask("/v1/jobs", spec | {"output": {"uri": str(folder / "out")}})
            assert status == 202, job

            def ended() -> Any:
                return self._ask(f"/v1/jobs/{job['id']}")[1]["end"]

            wait_for("the job ends", ended, timeout_s=300)
            end = ended()
        assert (end["status"], end["records"], end["errors"]) == ("succeeded", 100, {}), end
        return int(end["records"])

    def _ask(self, path: str, body: object = None) -> tuple[int, Any]:
        """Status and answer; 0 where nobody answers."""
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self._token}"} if self._token else {}
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self._url + path, data, headers), timeout=30) as answer:
                return int(answer.status), json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, None


def run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=cwd, env=env)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)}")
    return done.stdout


if __name__ == "__main__":
    main()
