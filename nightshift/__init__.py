"""Nightshift's public surface: everything that users import comes from here.

    from nightshift import Client, JobSpec

    client = Client("https://nightshift.internal", token="nst_…")
    job = client.submit({"task": "text-classification", "model": …, "input": …, "output": …})
    job.wait(progress=True)
    table = job.results()

The packages `schemas`, `jobs` and `workers` are the implementation; names in them may change in any release. What is
listed here is imported at its first use, so that `import nightshift` costs nothing.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.client import ApiError, Client, Conflict, Job, JobFailed, RateLimited
    from schemas import __version__
    from schemas.errors import (
        AccessDenied,
        Forbidden,
        NightshiftError,
        NotFound,
        Problem,
        ServiceUnavailable,
        SpecError,
        Unauthenticated,
    )
    from schemas.job import InputSpec, JobSpec, OutputSpec, ShardSpec
    from schemas.manifest import JobStatus, Manifest

__all__ = [
    "AccessDenied",
    "ApiError",
    "Client",
    "Conflict",
    "Forbidden",
    "InputSpec",
    "Job",
    "JobFailed",
    "JobSpec",
    "JobStatus",
    "Manifest",
    "NightshiftError",
    "NotFound",
    "OutputSpec",
    "Problem",
    "RateLimited",
    "ServiceUnavailable",
    "ShardSpec",
    "SpecError",
    "Unauthenticated",
    "__version__",
]

_MODULES = ("jobs.client", "schemas.errors", "schemas.job", "schemas.manifest", "schemas")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'nightshift' has no attribute {name!r}")
    _check_not_hidden()
    for module in _MODULES:
        found = getattr(import_module(module), name, None)
        if found is not None:
            return found
    raise AttributeError(name)


def __dir__() -> list[str]:
    return __all__


def _check_not_hidden() -> None:
    """Raise ImportError if a folder or file of the user's takes the place of one of the packages."""
    here = Path(__file__).parents[1]
    for name in ("schemas", "jobs"):
        found = Path(import_module(name).__file__ or "").parent
        if found != here / name:
            raise ImportError(
                f"{found} hides Nightshift's package {name!r}, since Python looks there first; rename it, "
                "or run from another folder or with `python -P`"
            )
