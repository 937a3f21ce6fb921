"""Copies of the packages, for tests that add files to them or break them, and for building the wheel."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("nightshift", "schemas", "jobs", "workers")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "ruff.toml")


def copy_packages(root: Path, overlay: Path | None = None) -> Path:
    """Copy the packages to `root`, and the files of `overlay` over them. Return `root`."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, root / name, ignore=_LEFT_OUT)
    return root if overlay is None else overlaid(root, overlay)


def overlaid(root: Path, overlay: Path) -> Path:
    """Copy the files of `overlay` over the packages in `root`. Return `root`."""
    shutil.copytree(overlay, root, dirs_exist_ok=True, ignore=_LEFT_OUT)
    return root


def copy_source(root: Path) -> Path:
    """Copy to `root` what the wheel is built from, as git has it, and return `root`. (Setuptools writes beside it.)"""
    built_from = [*PACKAGES, "pyproject.toml", "README.md", "LICENSE"]
    command = ["git", "ls-files", "-co", "--exclude-standard", *built_from]
    listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    return root
