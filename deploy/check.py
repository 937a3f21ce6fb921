"""What the `api` image does, without an engine: its lock file in a clean virtual environment, and the server started.

`make deploy-check`. Needs pip's index; prints how long the server took to answer. Fails where torch came along, where a
package outside of the lock is needed, or where the server doesn't answer with its Redis away.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "deploy" / "locks"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="nightshift-api-") as name:
        folder = Path(name)
        python = installed(folder)
        found = json.loads(run(python, "-m", "pip", "list", "--format=json"))
        heavy = {p["name"] for p in found if p["name"].startswith(("torch", "nvidia", "transformers", "triton"))}
        assert not heavy, f"the api target holds {sorted(heavy)}"
        seconds = started(python, folder)
    said = f"api target: {len(found)} packages, none of them torch; the server answered after {seconds:.1f} s"
    sys.stdout.write(said + "\n")


def installed(folder: Path) -> str:
    """The python of a new environment that holds what the Dockerfile's `api` installs, by the same commands."""
    build, target = folder / "build", folder / "api"
    for environment in (build, target):
        venv.create(environment, with_pip=True)
    locked = ["-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r"]
    run(f"{build}/bin/python", *locked, str(LOCKS / "build.txt"))
    # From a copy, since setuptools writes beside the source.
    tracked = run("git", "ls-files", "-co", "--exclude-standard", "schemas", "jobs", "workers", cwd=ROOT).splitlines()
    for file in [*tracked, "pyproject.toml", "README.md", "LICENSE"]:
        if (ROOT / file).exists():
            (folder / "source" / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / file).write_bytes((ROOT / file).read_bytes())
    wheel = [
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder / "wheels"),
    ]
    run(f"{build}/bin/python", *wheel, str(folder / "source"))
    python = f"{target}/bin/python"
    run(python, *locked, str(LOCKS / "api.txt"))
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", *map(str, (folder / "wheels").iterdir()))
    return python


def started(python: str, folder: Path) -> float:
    """Seconds until the image's command answered, with a Redis that nobody runs."""
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        port, nobody = one.getsockname()[1], other.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("NIGHTSHIFT_", "PYTHON"))}
    env |= {"NIGHTSHIFT_HOME": str(folder / "home"), "NIGHTSHIFT_REDIS_URL": f"redis://127.0.0.1:{nobody}/0"}
    nightshift = str(Path(python).parent / "nightshift")
    token = run(nightshift, "token", "new", "--tenant", "check", "--scopes", "read", env=env).strip()
    begun = time.monotonic()
    log = folder / "api.log"
    with log.open("wb") as output:
        command = [nightshift, "api", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(command, env=env, stdout=output, stderr=output, cwd=folder)
    try:
        while answer(f"http://127.0.0.1:{port}/healthz") != 200:
            if server.poll() is not None or time.monotonic() > begun + 60:
                sys.exit(f"the server doesn't answer: {log.read_text()}")
            time.sleep(0.05)
        seconds = time.monotonic() - begun
        assert answer(f"http://127.0.0.1:{port}/v1/tasks") == 401
        assert answer(f"http://127.0.0.1:{port}/v1/tasks", token) == 200
        assert answer(f"http://127.0.0.1:{port}/v1/workers", token) == 503
        assert token not in log.read_text()
    finally:
        server.terminate()
        server.wait(30)
    return seconds


def answer(url: str, token: str | None = None) -> int:
    """The status of a GET; 0 where nobody answers."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=cwd, env=env)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)}")
    return done.stdout


if __name__ == "__main__":
    main()
