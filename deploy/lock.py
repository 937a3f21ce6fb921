"""Write the requirements of the images, deploy/locks/*.txt, from uv.lock: `python deploy/lock.py UV [--check]`.

uv.lock alone decides on versions. The one file that it does not know is torch for CPUs, which is on PyTorch's own
index: its hashes are fetched if the locked version of torch has changed, with the options of `uv pip compile` in
TORCH_CPU. `--check` writes nothing, and fails if a file differs.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "deploy" / "locks"
WORKER = ["--extra", "worker", "--extra", "audio", "--extra", "vision"]
#: Each file, and what it has of uv.lock.
EXPORTS = {
    "api": ["--no-default-groups", "--extra", "api"],
    "worker-gpu": ["--no-default-groups", *WORKER],
    "build": ["--only-group", "build"],
    "uv": ["--only-group", "uv"],
}
HEADER = "# From uv.lock by `make locks`.\n"
#: What torch with CUDA needs and torch for CPUs doesn't.
CUDA = re.compile(r"(nvidia-|cuda-|triton|torch==)")


def main() -> None:
    uv, check = sys.argv[1], sys.argv[2:] == ["--check"]
    files = {name: HEADER + exported(uv, options) for name, options in EXPORTS.items()}
    files["worker-cpu"] = for_cpus(uv, files["worker-gpu"])
    stale = [name for name, text in files.items() if text != current(name)]
    if check and stale:
        sys.exit(f"deploy/locks differ from uv.lock: {', '.join(stale)}; run `make locks`")
    for name in stale:
        (LOCKS / f"{name}.txt").write_text(files[name])


def current(name: str) -> str:
    file = LOCKS / f"{name}.txt"
    return file.read_text() if file.exists() else ""


def exported(uv: str, options: list[str]) -> str:
    command = [uv, "export", "--quiet", "--frozen", "--no-emit-project", "--no-annotate", "--no-header", *options]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def blocks(requirements: str) -> list[str]:
    """Return each requirement with the lines of its hashes."""
    return re.split(r"^(?=[a-z0-9])", requirements, flags=re.M)[1:]


def for_cpus(uv: str, gpu: str) -> str:
    """Return the requirements with torch for CPUs in the place of torch with CUDA."""
    kept = [block for block in blocks(gpu) if not CUDA.match(block)]
    version = next(block for block in blocks(gpu) if block.startswith("torch==")).split()[0].removeprefix("torch==")
    torch = [block for block in blocks(current("worker-cpu")) if block.startswith(f"torch=={version}+cpu ")]
    if not torch:
        options = shlex.split(os.environ.get("TORCH_CPU", "--torch-backend cpu"))
        command = [uv, "pip", "compile", "-", "--no-config", "--quiet", "--no-deps", "--no-annotate", "--no-header"]
        command += [
            "--python-version",
            "3.11",
            "--python-platform",
            "x86_64-manylinux_2_28",
            "--generate-hashes",
            *options,
        ]
        wanted = f"torch=={version}+cpu"
        torch = [subprocess.run(command, check=True, input=wanted, stdout=subprocess.PIPE, text=True).stdout]
    return HEADER + "".join(sorted([*kept, *torch]))


if __name__ == "__main__":
    main()
