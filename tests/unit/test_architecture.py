"""The floors: imports run downward only, and the lower ones start without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What workers may use of the producer's side.
SHARED = {"jobs.storage", "jobs.state", "jobs.broker", "jobs.settings", "jobs.logs"}
HEAVY = {"torch", "transformers"}


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("file", sources("schemas"), ids=lambda f: str(f.relative_to(ROOT)))
def test_schemas_stand_on_pydantic_and_pyarrow_alone(file: Path) -> None:
    for module in imports(file):
        top = module.split(".")[0]
        assert top in {"schemas", "pydantic", "pyarrow", *sys.stdlib_module_names}, module


@pytest.mark.parametrize("file", sources("jobs"), ids=lambda f: str(f.relative_to(ROOT)))
def test_jobs_import_neither_workers_nor_torch(file: Path) -> None:
    assert not {m for m in imports(file) if m.split(".")[0] in HEAVY | {"workers", "tests", "benchmarks"}}


@pytest.mark.parametrize("file", sources("workers"), ids=lambda f: str(f.relative_to(ROOT)))
def test_workers_import_only_the_shared_part_of_jobs(file: Path) -> None:
    for module in imports(file):
        if module.startswith("jobs."):
            assert ".".join(module.split(".")[:2]) in SHARED, module


def modules(package: str) -> list[str]:
    names = [file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for file in sources(package)]
    return [name.removesuffix(".__init__") for name in names]


def test_schemas_and_jobs_import_without_torch() -> None:
    # The Celery application is an entry point: importing it reads settings, which name no Redis here.
    names = [name for name in modules("schemas") + modules("jobs") if name != "jobs.control_app"]
    script = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
    script += f"print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_help_loads_nothing_heavy() -> None:
    """`--help` answers in a tenth of a second; what would make it slow is what it imports."""
    script = (
        "import sys\nfrom jobs.cli.main import cli\ncli.main(['--help'], standalone_mode=False)\n"
        "print(sorted({'torch', 'transformers', 'pyarrow', 'boto3', 'celery', 'redis'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


def test_only_settings_read_the_environment() -> None:
    """Elsewhere `os.environ` is only handed on to child processes, or listed for the GPUs that CUDA may use."""
    readers = {
        str(file.relative_to(ROOT))
        for package in ("schemas", "jobs", "workers")
        for file in sources(package)
        for line in file.read_text().splitlines()
        if "os.environ" in line and "environment(os.environ)" not in line
    }
    assert readers <= {"jobs/settings.py", "jobs/celery_processes.py", "jobs/embedded.py"}, readers


def test_no_test_measures_time() -> None:
    """How long something takes says how busy the machine is. Tests count; benchmarks measure.

    A clock is read to keep a deadline, and two readings are never subtracted.
    """
    clocks = {"time", "monotonic", "perf_counter", "process_time", "thread_time"}
    clocks |= {f"{name}_ns" for name in clocks}

    def reads_a_clock(node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and ast.unparse(node.func).removeprefix("time.") in clocks

    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in sources("tests")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and reads_a_clock(node.left)
    ]
    assert found == []


def test_files_stay_readable() -> None:
    """A file over 400 lines wants splitting."""
    long = [f for p in ("schemas", "jobs", "workers") for f in sources(p) if len(f.read_text().splitlines()) > 400]
    assert not long
