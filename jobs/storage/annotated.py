"""What did a job annotate? Of its input, what its committed shards stand for, as its series records it."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import groupby

from jobs.logs import event
from jobs.parallel_map import parallel_map
from jobs.storage.hashes import Hashes, HashSet, from_bytes, hashes, key_hashes
from jobs.storage.job_folder import JobFolder, open_part
from jobs.storage.series import Seen
from schemas.errors import Damaged, NotFound, Permanent
from schemas.incremental import Annotation
from schemas.job import AcceptedJob, JobSpec, ResolvedModel
from schemas.manifest import Manifest
from schemas.plan import OBJECT, Shard, Slice

_log = logging.getLogger(__name__)
#: Parts that are read at once.
_READERS = 8
#: Entries that are added at once.
_MANY = 1 << 16


def annotation_of(spec: JobSpec, model: ResolvedModel) -> Annotation:
    """Return all that decides what a record's annotation is, beside the record."""
    return Annotation(
        task=spec.task,
        prediction_version=spec.task_schema.version,
        model=model.revision,
        params=_text(spec.params),
        dtype=spec.dtype,
        seed=spec.seed,
        columns=_text(spec.input.columns),
        key=None if spec.incremental is None else spec.incremental.key,
    )


def _text(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={values[name]!r}" for name in sorted(values)) or "none"


def version_of(uri: str, etag: str) -> bytes:
    """Return what stands for one version of an object."""
    return f"{uri}\0{etag}".encode("utf-8", "surrogatepass")


def annotated_by(job: AcceptedJob, manifest: Manifest, folder: JobFolder) -> Seen:
    """Return what the job annotated, rows with an error included: by its plan, or its parts if its series has a key.

    Parts, or a plan, that are gone or damaged annotate nothing: no one can read their rows.
    """
    key = None if job.spec.incremental is None else job.spec.incremental.key
    found = Seen()
    if key is not None:
        names = [part.name for part in manifest.parts]
        for some in parallel_map(partial(_keys, key, folder), names, _READERS):
            found.add(some)
    elif manifest.parts:
        committed = {part.shard for part in manifest.parts}
        try:
            _add_slices(found, folder.plan().shards(), committed)
        except (NotFound, Damaged) as error:
            event(_log, "annotated_unknown", logging.WARNING, job=job.id, error=error.message)
            return Seen()
    return found


def _keys(key: str, folder: JobFolder, name: str) -> Hashes:
    """Return the keys in a part. A row that could not be read has none."""
    found = HashSet()
    try:
        with open_part(folder.part(name), folder.storage) as part:
            for batch in part.iter_batches(batch_size=_MANY, columns=[key]):
                some, nulls = key_hashes(batch[key])
                found.add(some[~nulls])
    except (NotFound, Permanent) as error:
        event(_log, "annotated_unknown", logging.WARNING, part=name, error=error.message)
        return from_bytes(b"")
    return found.sorted()


def _add_slices(found: Seen, shards: Iterable[Shard], committed: set[int]) -> None:
    """Add the objects and files of the committed shards. A file is there as a whole if all its slices are."""
    whole: list[bytes] = []
    for (uri, etag), slices in groupby(_placed(shards, committed), key=lambda one: (one[0].uri, one[0].etag)):
        done = True
        rows: list[tuple[int, int]] = []
        for part, is_committed in slices:
            done = done and is_committed
            if is_committed and part.row_group != OBJECT:
                rows.append((part.source_row, part.rows))
        if done:
            whole.append(version_of(uri, etag))
        elif rows:
            found.add_rows(hashes([version_of(uri, etag)]).tobytes(), rows)
        if len(whole) >= _MANY:
            found.add(hashes(whole))
            whole.clear()
    found.add(hashes(whole))


def _placed(shards: Iterable[Shard], committed: set[int]) -> Iterator[tuple[Slice, bool]]:
    """Yield the slices, each with whether its shard was committed."""
    for shard in shards:
        is_committed = shard.shard in committed
        yield from ((part, is_committed) for part in shard.slices)
