"""How is a stored file read that another version of Nightshift may have written? Unknown fields are kept."""

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from schemas import __version__
from schemas.errors import Damaged, SpecError
from schemas.job import STORED

Content = TypeVar("Content", bound=BaseModel)


def parse_stored(model: type[Content], data: bytes, uri: str, code: str, way_out: str) -> Content:
    """Return the content of the file at `uri`. Raise Damaged, with the versions and a way out, if it can't be read."""
    try:
        return model.model_validate_json(data, extra="allow", context=STORED)
    except (ValidationError, SpecError) as error:
        writer = _writer(data)
        by = f"Nightshift {writer} wrote it" if writer else "nothing says which version of Nightshift wrote it"
        raise Damaged(
            f"{uri} is damaged, or of another version: {by}, {__version__} reads it; {way_out}. {error}", code=code
        ) from None


def _writer(data: bytes) -> str | None:
    """Return the version that a job's file, the catalog's entry of a job, or a manifest says it was written by."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    entry = found.get("job") if isinstance(found, dict) else None
    job = entry if isinstance(entry, dict) else found
    version = job.get("version") if isinstance(job, dict) else None
    return version if isinstance(version, str) else None
