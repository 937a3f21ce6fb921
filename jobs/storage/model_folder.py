"""A model in a folder or under a prefix: its files, and what pins their content. Both sides judge it the same way."""

import hashlib
import json
from collections.abc import Iterator

from jobs.storage import Storage


def model_files(storage: Storage, source: str) -> Iterator[tuple[str, int]]:
    """The files below a model folder or prefix: path inside it and size, in order; none that begins with a dot."""
    for info in storage.list(source + "/"):
        name = info.uri.removeprefix(source + "/")
        if not any(part.startswith(".") for part in name.split("/")):
            yield name, info.size


def folder_revision(files: list[tuple[str, int]], config: bytes) -> str:
    """What pins a folder's content: a digest of its configuration and of the names and sizes of its files."""
    digest = hashlib.sha256(config)
    digest.update(json.dumps(files).encode())
    return digest.hexdigest()[:40]
