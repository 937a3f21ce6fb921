"""Which job spec is a run? The schedule's template, with its holes filled."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from jobs.schedules.due_times import zone_of
from jobs.settings import Settings
from jobs.storage.base import is_path
from jobs.submission.resolve_model import model_kind
from jobs.submission.rights import check_reach, narrowed_to
from jobs.submission.validate import check_paths, with_full_uris
from schemas.errors import Problem, SpecError
from schemas.holes import Filling, filled
from schemas.job import JobSpec, parse_spec
from schemas.schedule import RUN_LABELS, ScheduleVersion

#: Where a spec has URIs that may have holes.
_URIS = (
    ("input", "uri"),
    ("output", "uri"),
    ("output", "latest"),
    ("output", "table", "location"),
    ("incremental", "series"),
    ("reuse",),
)


def expand(version: ScheduleVersion, due: datetime, run: str, settings: Settings) -> JobSpec:
    """Return the spec of a run, its URIs in full. The spec's tenant is the schedule's.

    Raise SpecError, with fields below `spec`, if the template or its expansion is wrong, or leaves what the schedule's
    rights and the settings allow.
    """
    narrowed = narrowed_to(version.rights, settings)
    try:
        spec = parse_spec(_filled(version, due, run)).in_series(_own_series(version))
        check_paths(spec, narrowed)
        _check_absolute(spec)
        spec = with_full_uris(spec)
        check_reach(spec, narrowed)
    except SpecError as error:
        raise below_spec(error) from None
    return spec


def below_spec(error: SpecError) -> SpecError:
    """Return the error of a job spec with its fields named as a schedule has them."""
    return SpecError([Problem(f"spec.{p.field}" if p.field else "spec", p.message) for p in error.problems])


def _filled(version: ScheduleVersion, due: datetime, run: str) -> dict[str, Any]:
    schedule = version.schedule
    filling = Filling(due.astimezone(zone_of(schedule.time_zone)), schedule.name, run)
    spec = dict(schedule.spec)
    for path in _URIS:
        spec = _put_at(spec, path, filling, ".".join(path))
    labels = spec.get("labels") or {}
    if isinstance(labels, dict):
        own = {name: _put(value, filling, f"labels.{name}") for name, value in labels.items()}
        taken = next((name for name in RUN_LABELS if name in own), None)
        if taken is not None:
            raise SpecError.of(f"labels.{taken}", "each run sets this label itself; leave it out")
        if own.get("tenant", version.tenant) != version.tenant:
            raise SpecError.of("labels.tenant", f"the schedule is of tenant {version.tenant!r}; leave this label out")
        tenant = {"tenant": version.tenant} if version.tenant else {}
        spec["labels"] = own | tenant | {"schedule": schedule.name, "due": filling.date.isoformat()}
    return spec


def _check_absolute(spec: JobSpec) -> None:
    """Raise SpecError for a local path that means another place in each process."""
    places = [("input.uri", uri) for uri in spec.input.uris] + [("output.uri", spec.output.uri)]
    places += [("model", spec.model)] if model_kind(spec.model) == "local" else []
    for field, uri in places:
        if is_path(uri) and not uri.removeprefix("file://").startswith("/"):
            raise SpecError.of(field, f"{uri!r} is relative, and workers run in other folders; write the path in full")


def _own_series(version: ScheduleVersion) -> str:
    """Return the folder for what an incremental schedule's runs annotated: beside the outputs of all its runs."""
    output = version.schedule.spec.get("output")
    uri = output.get("uri") if isinstance(output, dict) else None
    fixed = uri.partition("{")[0] if isinstance(uri, str) else ""
    return f"{fixed[: fixed.rfind('/') + 1]}_series-{version.name}/"


def _put_at(place: Any, path: Sequence[str], filling: Filling, field: str) -> Any:
    """Fill the text at a path of keys, if there is one."""
    if not path:
        return _put(place, filling, field)
    if not isinstance(place, dict) or path[0] not in place:
        return place
    return place | {path[0]: _put_at(place[path[0]], path[1:], filling, field)}


def _put(value: Any, filling: Filling, field: str) -> Any:
    """Fill a text, or the texts of a list. What is neither is refused with the rest of the spec."""
    if isinstance(value, list):
        return [_put(one, filling, f"{field}.{index}") for index, one in enumerate(value)]
    return filled(value, filling, field) if isinstance(value, str) else value
