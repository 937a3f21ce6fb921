"""Is there anything for a run to do? A place without files of its kind is told from one with nothing at all."""

from dataclasses import dataclass

from jobs.planning.input_files import MEDIA, PARQUET, FileKind, InputFiles
from jobs.settings import Settings
from jobs.storage import Storage
from schemas.errors import AccessDenied, NotFound, SpecError
from schemas.input_uris import fixed_prefix, is_glob
from schemas.job import JobSpec


@dataclass(frozen=True)
class Inputs:
    """The URIs of an input, by what is there: files, other objects alone, or no object at all."""

    full: tuple[str, ...]
    empty: tuple[str, ...]
    missing: tuple[str, ...]


def look(spec: JobSpec, storage: Storage, settings: Settings) -> Inputs:
    """Return where the input of a spec has files. At most a page of each place is listed, if it has files.

    Raise SpecError for a place that may not be read, Transient if its store is away.
    """
    within = storage.within(settings.allowed_inputs)
    found: dict[str, list[str]] = {"full": [], "empty": [], "missing": []}
    for uri in dict.fromkeys(spec.input.uris):
        found[_state(uri, _kind(spec), within)].append(uri)
    return Inputs(tuple(found["full"]), tuple(found["empty"]), tuple(found["missing"]))


def _state(uri: str, kind: FileKind, storage: Storage) -> str:
    try:
        next(iter(InputFiles(storage, [uri], kind)))
    except SpecError as error:
        # Raised for no files, and from an error of the store.
        if isinstance(error.__cause__, AccessDenied):
            raise
        if isinstance(error.__cause__, NotFound):
            return "missing"
        place = fixed_prefix(uri) if is_glob(uri) else uri.rstrip("/") + "/"
        return "empty" if next(iter(storage.list(place)), None) is not None else "missing"
    return "full"


def _kind(spec: JobSpec) -> FileKind:
    media = spec.task_schema.media
    if media is None or spec.input.format == "parquet":
        return PARQUET
    own = MEDIA[media.kind]
    return own if spec.input.format == "media" else FileKind("data", PARQUET.suffixes + own.suffixes)
