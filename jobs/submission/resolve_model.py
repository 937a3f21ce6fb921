"""Can the model be used? It must be found, pinned to a revision, fit for the task, and in safetensors.

Only its configuration and the names of its files are read. Workers download the weights.
"""

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from jobs.settings import Settings
from jobs.storage import ObjectInfo, Storage
from jobs.storage.base import normalized
from jobs.storage.model_digest import MAX_CONFIG_BYTES, folder_revision, model_files
from schemas.errors import AccessDenied, NotFound, SpecError
from schemas.job import JobSpec, ResolvedModel
from schemas.task import Group, Task

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
#: Files that stand for weights in a format that can run code, or that only other libraries read.
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf")
#: Files of a model's folder at most.
MAX_FILES = 10_000
#: One of these is there wherever there is a tokenizer.
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", ".model", ".tiktoken")
#: One of these is there wherever pictures or sound are made into what the model takes.
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class _Found:
    """A model's files by their path inside it, its config.json, and its revision."""

    files: list[str]
    config: dict[str, Any]
    revision: str


def model_kind(model: str, files: bool = True) -> Literal["hub", "s3", "local"]:
    """Return where the model is. As in Transformers, a folder of that name goes before a hub id if `files` may be."""
    if model.startswith("s3://"):
        return "s3"
    if model.startswith(("/", "./", "../", "~", "file:")) or not _HUB_ID.fullmatch(model):
        return "local"
    return "local" if files and Path(model).is_dir() else "hub"


def model_source(model: str, files: bool = True) -> tuple[Literal["hub", "s3", "local"], str]:
    """Return where the model is, and its name there: a hub id, or a location in full."""
    kind = model_kind(model, files)
    return kind, model if kind == "hub" else normalized(model, "model").rstrip("/")


def check_model_path(model: str, settings: Settings) -> None:
    """Raise SpecError for a local folder if none is allowed. Nothing is looked up for it."""
    if not settings.allow_files and model_kind(model, files=False) == "local":
        raise SpecError.of("model", f"{model!r}: local folders are not allowed here")


def resolve_model(spec: JobSpec, storage: Storage, settings: Settings) -> ResolvedModel:
    """Return the spec's model, pinned. Raise SpecError if something is wrong with it."""
    check_model_path(spec.model, settings)
    kind, source = model_source(spec.model, settings.allow_files)
    allowed = settings.allowed_models
    if not any(fnmatchcase(source, pattern) or fnmatchcase(spec.model, pattern) for pattern in allowed):
        raise SpecError.of("model", f"{spec.model!r} is not among the models allowed here: {', '.join(allowed)}")
    if kind != "hub" and spec.revision is not None:
        raise SpecError.of("revision", f"only a hub model has revisions; {spec.model!r} is a folder")
    if "*" in allowed:  # else the settings name it, and what it may read
        storage = storage.within(settings.allowed_inputs)
    found = _on_hub(source, spec.revision) if kind == "hub" else _in_folder(source, storage)
    _check(found, spec.task_schema, spec.model)
    return ResolvedModel(source=source, kind=kind, revision=found.revision)


def _in_folder(source: str, storage: Storage) -> _Found:
    try:
        listed = list(islice(storage.list(source + "/"), MAX_FILES + 1))
        if len(listed) > MAX_FILES:
            raise SpecError.of("model", f"{source!r} has more than {MAX_FILES:,} files; a model has a few")
        files = {info.uri.removeprefix(source + "/"): info for info in listed}
        if not files:
            raise SpecError.of("model", f"there is no model at {source!r}: no files")
        if "config.json" not in files:
            raise SpecError.of("model", f"{source!r} is not a Transformers model: it has no config.json")
        config = _parsed(_small(files["config.json"], storage), source)
        return _Found(list(files), config, folder_revision(list(model_files(storage, source, listed))))
    except (NotFound, AccessDenied) as error:
        raise SpecError.of("model", error.message) from None


def _small(config: ObjectInfo, storage: Storage) -> bytes:
    if config.size > MAX_CONFIG_BYTES:
        raise SpecError.of("model", f"{config.uri} has {config.size:,} bytes; {MAX_CONFIG_BYTES:,} are allowed")
    with storage.open(config) as source:
        return source.read()


def _parsed(config: bytes, source: str) -> dict[str, Any]:
    try:
        parsed = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise SpecError.of("model", f"the config.json of {source!r} is no JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise SpecError.of("model", f"the config.json of {source!r} is not an object")
    return parsed


def _on_hub(source: str, revision: str | None) -> _Found:
    """Return a model of the Hugging Face hub; of its local cache if the hub is offline (`HF_HUB_OFFLINE=1`) or away."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info = HfApi().model_info(source, revision=revision)
        if info.sha is None:
            raise SpecError.of("model", f"the hub names no commit for {source!r}")
        config = hf_hub_download(source, "config.json", revision=info.sha)
        files = [sibling.rfilename for sibling in info.siblings or []]
        return _Found(files, _parsed(Path(config).read_bytes(), source), info.sha)
    except HFValidationError as error:
        raise SpecError.of("model", f"{source!r} is neither a folder nor a name that the hub has: {error}") from None
    except GatedRepoError:
        raise SpecError.of("model", f"{source!r} is gated: accept its terms on the hub and set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise SpecError.of("revision", f"{source!r} has no revision {revision!r} on the hub") from None
    except RepositoryNotFoundError:
        raise SpecError.of(
            "model", f"there is no folder and no hub model {source!r} (a private one needs HF_TOKEN)"
        ) from None
    except EntryNotFoundError:
        raise SpecError.of("model", f"{source!r} is not a Transformers model: it has no config.json") from None
    except HfHubHTTPError as error:
        raise SpecError.of("model", f"the hub answered for {source!r}: {error}") from None
    except (ConnectionError, HTTPError) as error:
        return _in_hub_cache(source, revision, error)


def _in_hub_cache(source: str, revision: str | None, cause: Exception) -> _Found:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(source, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        raise SpecError.of(
            "model",
            f"there is no folder {source!r}, and the hub can't be asked for a model of that name: {cause}. It is not "
            "in the hub's local cache either",
        ) from None
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if "config.json" not in files:
        raise SpecError.of("model", f"the cached copy of {source!r} has no config.json; fetch it again")
    return _Found(files, _parsed((folder / "config.json").read_bytes(), source), folder.name)


def _check(found: _Found, task: Task, model: str) -> None:
    architectures = found.config.get("architectures") or []
    if not isinstance(architectures, list) or not any(str(name).endswith(task.heads) for name in architectures):
        what = " and ".join(map(str, architectures)) if isinstance(architectures, list) else str(architectures)
        raise SpecError.of(
            "model",
            f"{model!r} is a {what or 'model without an architecture'}; {task.id} needs one ending in "
            f"{' or '.join(task.heads)}",
        )
    if not any(name.endswith(".safetensors") for name in found.files):
        others = [name for name in found.files if name.endswith(_OTHER_WEIGHTS)]
        what = f"only {', '.join(others)}" if others else "no weights"
        raise SpecError.of(
            "model",
            f"{model!r} has {what}; weights are loaded from safetensors only: convert them with "
            "model.save_pretrained(FOLDER)",
        )
    if task.group in (Group.TEXT, Group.GENERATION) and not any(name.endswith(_TOKENIZERS) for name in found.files):
        raise SpecError.of(
            "model", f"{model!r} has no tokenizer: put its files beside the weights with tokenizer.save_pretrained"
        )
    if task.media is not None and not any(name in _PROCESSORS for name in found.files):
        raise SpecError.of(
            "model", f"{model!r} has no processor: put its files beside the weights with processor.save_pretrained"
        )
