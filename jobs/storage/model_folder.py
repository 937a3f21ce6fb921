"""A model in a folder or under a prefix: its files, and what pins their content. Both sides judge it the same way."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from fnmatch import fnmatchcase

from jobs.storage import ObjectInfo, Storage

#: What loading from safetensors may need: weights, configuration, and every form of vocabulary.
WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.spm", "*.bpe"]
_CHUNK = 8 << 20


@dataclass(frozen=True)
class ModelFile:
    """A file that loading may need, by its path inside the model; `content` changes whenever its content does."""

    name: str
    size: int
    content: str


def file_names(storage: Storage, source: str) -> list[str]:
    """The paths of all files of a model, in order."""
    return [info.uri.removeprefix(source + "/") for info in storage.list(source + "/")]


def model_files(storage: Storage, source: str) -> Iterator[ModelFile]:
    """The files below a model folder or prefix that loading may need, in order; none that begins with a dot.

    In S3 the etag stands for the content. Local files are read whole and hashed: their times differ between machines,
    and a checkpoint trained again in its place has the same names and sizes.
    """
    for info in storage.list(source + "/"):
        name = info.uri.removeprefix(source + "/")
        hidden = any(part.startswith(".") for part in name.split("/"))
        if not hidden and any(fnmatchcase(name, pattern) for pattern in WANTED):
            content = info.etag if source.startswith("s3://") else _digest(info, storage)
            yield ModelFile(name, info.size, content)


def _digest(info: ObjectInfo, storage: Storage) -> str:
    digest = hashlib.sha256()
    with storage.open(info) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def folder_revision(files: list[ModelFile]) -> str:
    """What pins a model's content: a digest of its files."""
    return hashlib.sha256(json.dumps([astuple(file) for file in files]).encode()).hexdigest()[:40]
