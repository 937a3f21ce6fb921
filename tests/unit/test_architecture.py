"""The layers: imports run downward only, and the lower ones start without torch."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What workers may use of the producer's side.
SHARED = {"jobs.storage", "jobs.state", "jobs.broker", "jobs.settings", "jobs.logs"}
HEAVY = {"torch", "transformers"}
_BASE = {"jobs.settings", "jobs.logs", "jobs.parallel_map"}
#: Every package of jobs/ and workers/, every module in their roots, and which of the others each may import.
MAY_IMPORT: dict[str, set[str]] = {
    "jobs.logs": set(),
    "jobs.settings": set(),
    "jobs.parallel_map": set(),
    "jobs.demo": set(),
    "jobs.client": set(),
    "jobs.state": _BASE,
    "jobs.storage": _BASE,
    "jobs.tables": {*_BASE, "jobs.storage"},
    "jobs.broker": {*_BASE, "jobs.state"},
    "jobs.planning": {*_BASE, "jobs.storage"},
    "jobs.webhooks": {*_BASE, "jobs.state", "jobs.storage"},
    "jobs.results": {*_BASE, "jobs.storage", "jobs.planning"},
    "jobs.submission": {*_BASE, "jobs.broker", "jobs.state", "jobs.storage", "jobs.planning", "jobs.webhooks"},
    "jobs.control": {
        *_BASE, "jobs.broker", "jobs.state", "jobs.storage", "jobs.planning", "jobs.tables", "jobs.webhooks",
    },
    "jobs.schedules": {
        *_BASE, "jobs.broker", "jobs.state", "jobs.storage", "jobs.planning", "jobs.submission", "jobs.webhooks",
    },
    "jobs.supervisor": {*_BASE, "jobs.broker", "jobs.state", "jobs.storage", "jobs.submission", "jobs.schedules"},
    "jobs.api": {
        *_BASE, "jobs.broker", "jobs.state", "jobs.storage", "jobs.planning", "jobs.results", "jobs.submission",
        "jobs.schedules", "jobs.supervisor",
    },
    "jobs.cli": {
        *_BASE, "jobs.broker", "jobs.state", "jobs.storage", "jobs.planning", "jobs.results", "jobs.submission",
        "jobs.schedules", "jobs.supervisor", "jobs.webhooks", "jobs.api", "jobs.demo",
    },
    "workers.handler": set(),
    "workers.labels": {"workers.handler"},
    "workers.models": {"workers.handler"},
    "workers.text": {"workers.handler", "workers.models"},
    "workers.audio": {"workers.handler", "workers.models"},
    "workers.vision": {"workers.handler", "workers.models"},
    "workers.generation": {"workers.handler", "workers.models", "workers.text"},
    "workers.io": {"workers.handler", "workers.audio", "workers.vision"},
    "workers.engine": {"workers.handler", "workers.io", "workers.models"},
    "workers.tasks": {
        "workers.handler", "workers.labels", "workers.models", "workers.text", "workers.generation", "workers.audio",
        "workers.vision",
    },
    "workers.execution": {"workers.engine", "workers.io", "workers.models", "workers.tasks"},
    "workers.celery_app": {"workers.execution"},
}  # fmt: skip


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


def room(module: str) -> str:
    """The package, or the module in a root, that a module belongs to."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_package_imports_only_what_is_below_it(name: str) -> None:
    place = ROOT / name.replace(".", "/")
    for file in sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
        own = name.split(".")[0]
        found = {room(module) for module in imports(file) if module.startswith(f"{own}.")}
        assert found & MAY_IMPORT.keys() <= MAY_IMPORT[name] | {name}, file


def test_every_package_is_on_the_map_and_there_is_no_circle() -> None:
    found = {
        f"{top}.{entry.stem}"
        for top in ("jobs", "workers")
        for entry in (ROOT / top).iterdir()
        if (entry.suffix == ".py" or (entry / "__init__.py").exists()) and entry.name != "__init__.py"
    }
    assert found == MAY_IMPORT.keys()
    order = list(TopologicalSorter(MAY_IMPORT).static_order())  # raises CycleError
    assert len(order) == len(MAY_IMPORT)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md", "docs/design.md", "README.md"])
def test_the_paths_that_pages_name_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(r"`((?:jobs|workers|schemas|tests|docs|deploy|benchmarks|nightshift)/[\w./-]*)`", text))
    gone = {path for path in named if not (ROOT / path).exists() and not path.endswith("/x.py")}
    assert not {path for path in gone if not path.endswith("test_x.py")}


def modules(package: str) -> list[str]:
    names = [file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for file in sources(package)]
    return [name.removesuffix(".__init__") for name in names]


def test_schemas_and_jobs_import_without_torch() -> None:
    # The Celery application is an entry point: importing it reads settings, which name no Redis here.
    names = [name for name in modules("schemas") + modules("jobs") if name != "jobs.control.celery_app"]
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
    assert readers <= {"jobs/settings.py", "jobs/supervisor/celery_processes.py", "jobs/supervisor/embedded.py"}, (
        readers
    )


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
