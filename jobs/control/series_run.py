"""How does a job take its place in a series? It waits for the runs before it, and records what those have annotated.

A run is recorded at the end of its job, after its manifest. If the process dies in between, the next run records it
before it is planned.
"""

from jobs.planning.unseen import Unseen, series_of, unseen_in
from jobs.storage.annotated import annotated_by, annotation_of
from jobs.storage.catalog import Catalog
from jobs.storage.series import RunFile, Seen, Series
from schemas.errors import NotFinished, Permanent
from schemas.job import AcceptedJob
from schemas.manifest import Manifest


def begin_run(job: AcceptedJob, catalog: Catalog) -> Unseen | None:
    """Give the job its number in its series, and return what it leaves out; None if it has no series.

    Raise NotFinished while a run before it is under way, and Permanent if such a run was stopped and isn't gone on
    with, or can't be read.
    """
    series = series_of(job.spec, catalog.storage)
    if series is None:
        return None
    own = RunFile(job=job.id, output=job.output, annotation=annotation_of(job.spec, job.model))
    number = series.begin(own)
    for other, run in series.unrecorded():
        if other < number:
            series.record(other, run, _ended(run, job, series, catalog))
    return unseen_in(series, job.spec, job.model, number)


def record_run(job: AcceptedJob, manifest: Manifest, catalog: Catalog) -> None:
    """Record what an ended job annotated, if it is in a series and isn't recorded."""
    series = series_of(job.spec, catalog.storage)
    if series is None:
        return
    for number, run in series.unrecorded():
        if run.job == job.id:
            series.record(number, run, _annotated(job, manifest, catalog))


def _annotated(job: AcceptedJob, manifest: Manifest, catalog: Catalog) -> Seen:
    """Return what an ended job annotated: nothing if its table refused it, so that the next run does it again."""
    return Seen() if manifest.is_refused else annotated_by(job, manifest, catalog.folder_of(job))


def _ended(run: RunFile, after: AcceptedJob, series: Series, catalog: Catalog) -> Seen:
    """Return what an earlier run annotated. Raise NotFinished or Permanent if it hasn't ended."""
    entry = catalog.find(run.job)
    job = None if entry is None else catalog.job(run.job)
    if entry is None or job is None:
        raise Permanent(
            f"job {run.job}, an earlier run of the series {series.uri}, isn't in the catalog at {catalog.uri}: nothing "
            "says whether it has ended. Use the catalog that it was accepted in, or name another series",
            code="series_unknown",
        )
    own = job.spec.incremental
    if job.tenant != after.tenant or own is None or own.series != series.uri:
        # Who may write to the series' folder can name any job there.
        raise Permanent(
            f"{series.uri} has a run by job {run.job}, which isn't of this series or is another tenant's; name another "
            "series",
            code="series_foreign",
        )
    folder = catalog.folder_of(job)
    manifest = folder.read_manifest()
    if manifest is not None:
        return _annotated(job, manifest, catalog)
    if catalog.is_marked(job.id):
        return Seen()  # it ended without results
    if entry.embedded:
        there = folder.read_job()
        if there is None or there.id != job.id:
            return Seen()  # its output was removed
        raise Permanent(
            f"job {job.id} at {job.output}, the run before this one in {series.uri}, was stopped: go on with "
            f"it (nightshift resume {job.output}), or remove its output; then submit this one again",
            code="series_unfinished",
        )
    raise NotFinished(f"job {job.id} at {job.output}, the run before this one in the series, has not ended")
