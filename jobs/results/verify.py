"""Are a job's results what the job made? Every part against the manifest and the plan, the manifest against both.

What can be worked out again is: rows, errors and checksums from the parts' data, a part's rows from its shard's slices,
the manifest's totals from the parts' reports, kept columns from the input. The rest of the manifest is held to the
digest that the catalog's mark has of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from jobs.parallel_map import parallel_map
from jobs.results.verify_part import PartVerifier, SeenPart
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.storage.job_folder import JobFolder
from jobs.storage.parts_tally import PartsTally
from jobs.storage.plan_file import Plan
from schemas.errors import Damaged, NotFinished
from schemas.job import AcceptedJob
from schemas.layout import MANIFEST, PLAN
from schemas.manifest import JobStatus, Manifest, Part
from schemas.output import kept_columns
from schemas.plan import NO_COLUMNS, Shard

#: Parts that are read at once.
_READERS = 8
#: Seconds are sums of numbers in floating point, whose order may differ.
_ROUNDING = 0.01


@dataclass(frozen=True)
class Finding:
    """What was found at an object of a job. A note is no fault: it says what could not be verified."""

    place: str
    message: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass
class Checked:
    """What `verify` has gone through: parts, rows, and of each shard the checksum of the rows that were read."""

    parts: int = 0
    rows: int = 0
    checksums: dict[int, str] = field(default_factory=dict)


def verify(
    job: AcceptedJob,
    catalog: Catalog,
    settings: Settings,
    checked: Checked,
    *,
    with_input: bool = True,
    moved: Callable[[], None] = lambda: None,
) -> Iterator[Finding]:
    """Yield what is wrong with a job's results, one finding for each object, and notes of what can't be verified.

    `checked` is filled meanwhile, and `moved` called for each part. `with_input` compares kept columns with the input.
    Raise NotFinished if the job has not ended, Transient or AccessDenied if its objects can't be read now.
    """
    folder = catalog.folder_of(job)
    try:
        manifest = folder.read_manifest()
    except Damaged as error:
        yield Finding(MANIFEST, error.message)
        return
    mark = catalog.ended_mark(job.id)
    digest = mark.manifest if mark is not None else None
    if manifest is None and digest is None:
        raise NotFinished(f"job {job.id} has not ended: it can be verified when it has")
    if manifest is None:
        yield Finding(MANIFEST, "is missing; the job had one when it ended")
        return
    if digest is None:
        yield Finding(MANIFEST, "the catalog has no digest of it: what can't be worked out again isn't verified", True)
    elif digest != folder.manifest_digest():
        yield Finding(MANIFEST, "was edited or replaced: the catalog's digest of it is another")
    for problem in _against_job(manifest, job):
        yield Finding(MANIFEST, problem)
    try:
        plan = folder.find_plan()
        if plan is None:
            if manifest.shards or manifest.parts:
                yield Finding(PLAN, "is missing: which rows the parts should have can't be told")
            return
        yield from _by_plan(job, manifest, plan, folder, catalog.storage, settings, with_input, checked, moved)
    except Damaged as error:
        yield Finding(PLAN, error.message)


def _against_job(manifest: Manifest, job: AcceptedJob) -> Iterator[str]:
    """Compare the manifest with the job as the catalog has it."""
    expected = {
        "job": job.id,
        "task": job.spec.task,
        "model": job.model,
        "accepted_at": job.accepted_at,
        "parent": job.parent,
        "layout": job.layout,
    }
    for name, value in expected.items():
        found = getattr(manifest, name)
        if found != value:
            yield f"says {name} {found}; the job has {value}"


def _by_plan(
    job: AcceptedJob,
    manifest: Manifest,
    plan: Plan,
    folder: JobFolder,
    inputs: Storage,
    settings: Settings,
    with_input: bool,
    checked: Checked,
    moved: Callable[[], None],
) -> Iterator[Finding]:
    columns = plan.columns()
    kept = tuple(kept_columns(job.spec, columns)) if with_input and columns != NO_COLUMNS else ()
    verifier = PartVerifier(job, folder, kept, inputs, settings)
    named = {part.shard: part for part in manifest.parts}
    shards = 0
    lost: list[int] = []

    def pairs() -> Iterator[tuple[Part, Shard | None]]:
        nonlocal shards
        for shard in plan.shards():
            shards += 1
            part = named.get(shard.shard)
            if part is None:
                lost.append(shard.shard)
            else:
                yield part, shard
        for number, part in named.items():
            if number >= shards:
                yield part, None

    tally = PartsTally()
    changed: set[str] = set()
    for seen in parallel_map(lambda pair: verifier.verify(*pair), pairs(), _READERS):
        yield from _of_part(seen)
        if seen.info is not None and seen.report is not None and seen.report.shard == seen.part.shard:
            tally.add(seen.info, seen.report)
        if seen.checksum is not None:
            checked.checksums[seen.part.shard] = seen.checksum
        changed |= seen.changed_inputs
        checked.parts += 1
        checked.rows += seen.rows
        moved()
    for uri in sorted(changed):
        yield Finding(uri, "isn't the version that was planned, or is gone: kept columns aren't compared with it", True)
    for problem in _against_plan(manifest, shards, plan.skipped(), lost):
        yield Finding(MANIFEST, problem)
    for problem in _against_reports(manifest, tally):
        yield Finding(MANIFEST, problem)
    names = {part.name for part in manifest.parts}
    for _, info in folder.parts():
        name = info.uri.rsplit("/", 1)[-1]
        if name not in names:
            yield Finding(name, "isn't in the manifest, and readers of the folder see its rows")


def _of_part(seen: SeenPart) -> Iterator[Finding]:
    if seen.problems:
        yield Finding(seen.part.name, "; ".join(seen.problems))
    for note in seen.notes:
        yield Finding(seen.part.name, note, True)


def _against_plan(manifest: Manifest, shards: int, skipped: dict[str, int], lost: list[int]) -> Iterator[str]:
    numbers = [part.shard for part in manifest.parts]
    if len(set(numbers)) != len(numbers):
        yield "names a shard twice"
    if manifest.shards != shards:
        yield f"says {manifest.shards:,} shards; the plan has {shards:,}"
    if manifest.skipped != skipped:
        yield f"says {manifest.skipped} were skipped; the plan {skipped}"
    if manifest.status is JobStatus.SUCCEEDED and lost:
        yield f"says succeeded, and has no part for {len(lost):,} of the plan's shards, the first of them {lost[0]}"
    unknown = {shard.shard for shard in manifest.lost} - set(lost)
    if unknown:
        yield f"says that shard {min(unknown)} was lost, which has a part or isn't in the plan"


def _against_reports(manifest: Manifest, tally: PartsTally) -> Iterator[str]:
    """Compare the manifest's totals with the sums of its parts and, if every part can be read, of their reports."""
    for name, total in (("rows", "rows"), ("error_rows", "error_rows")):
        found = sum(getattr(part, name) for part in manifest.parts)
        if getattr(manifest, total) != found:
            yield f"says {getattr(manifest, total):,} {total} in all; its parts add up to {found:,}"
    if len(tally.found) != len(manifest.parts):
        return
    expected = tally.totals()
    for name in ("errors", "versions"):
        if getattr(manifest, name) != expected[name]:
            yield f"says {name} {getattr(manifest, name)}; the parts' reports {expected[name]}"
    seconds = expected["seconds"]
    if manifest.seconds.keys() != seconds.keys() or any(
        abs(manifest.seconds[name] - value) > _ROUNDING for name, value in seconds.items()
    ):
        yield f"says seconds {manifest.seconds}; the parts' reports {seconds}"
