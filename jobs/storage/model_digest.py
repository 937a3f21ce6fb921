"""A model in a folder or under a prefix: its files, and what pins their content. Both sides judge it the same way."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from fnmatch import fnmatchcase

from jobs.storage import ObjectInfo, Storage

#: What loading from safetensors may need: weights, configuration, and every form of vocabulary.
WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.spm", "*.bpe"]
#: What is brought to a worker of them: no text but vocabularies, since text under another name may be a pickle.
LOADED = [*(pattern for pattern in WANTED if pattern != "*.txt"), "vocab.txt", "merges.txt"]
#: Bytes of a configuration, which has a label for each class at most.
MAX_CONFIG_BYTES = 16 << 20


@dataclass(frozen=True)
class ModelFile:
    """A file that loading may need, by its path inside the model; `content` changes whenever its content does."""

    name: str
    size: int
    content: str


def model_files(storage: Storage, source: str, listed: Iterable[ObjectInfo] | None = None) -> Iterator[ModelFile]:
    """Return the files below a model folder or prefix that loading may need, in order. Hidden files are left out.

    `listed` are the objects there, if they are known already. Files are told apart by their contents: a checkpoint
    trained again in its place has the same names and sizes.
    """
    for info in storage.list(source + "/") if listed is None else listed:
        name = info.uri.removeprefix(source + "/")
        hidden = any(part.startswith(".") for part in name.split("/"))
        if not hidden and any(fnmatchcase(name, pattern) for pattern in WANTED):
            yield ModelFile(name, info.size, storage.content(info))


def folder_revision(files: list[ModelFile]) -> str:
    """Return what pins a model's content: a digest of its files."""
    return hashlib.sha256(json.dumps([astuple(file) for file in files]).encode()).hexdigest()[:40]
