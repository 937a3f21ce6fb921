"""Bring a model's files into a local folder, from the hub, S3 or a folder.

Of a model on the hub or in S3, only the files needed for loading are fetched: once per machine, under a lock.
"""

import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from filelock import FileLock

from jobs.logs import event
from jobs.storage import Storage
from jobs.storage.model_digest import LOADED, ModelFile, folder_revision, model_files
from schemas.errors import Permanent, Transient
from schemas.job import ResolvedModel
from workers.models.trust import read_config

_log = logging.getLogger(__name__)

_CHUNK = 8 << 20
#: Seconds between two looks at how much of a model has come.
_LOOK_S = 1.0


def local_folder(model: ResolvedModel, storage: Storage, home: Path, moved: Callable[[], None] = lambda: None) -> Path:
    """Return the folder to load the model from. Raise Permanent if it isn't the one the job was accepted with.

    `moved` is called whenever some of its files has come, or more of one, even if another process fetches them.
    """
    if model.kind == "hub":
        return _from_hub(model, moved)
    return _from_s3(model, storage, home, moved) if model.kind == "s3" else _from_folder(model, storage, home, moved)


def stored_dtype(folder: Path) -> str | None:
    """Return the dtype that the checkpoint's configuration names, or None if it names no dtype."""
    config = read_config(folder / "config.json")
    found: str | None = config.get("dtype") or config.get("torch_dtype")
    return found


def _from_folder(model: ResolvedModel, storage: Storage, home: Path, moved: Callable[[], None]) -> Path:
    """Return a folder of links to the files of a local model that may be loaded: the model's own may hold others."""
    files = _check_revision(model, storage, moved)
    source = hashlib.sha256(model.source.encode()).hexdigest()[:12]
    folder = home / "models" / f"{model.revision}-{source}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            aside = folder.with_name(folder.name + ".part")
            shutil.rmtree(aside, ignore_errors=True)
            for file in filter(_is_loaded, files):
                (aside / file.name).parent.mkdir(parents=True, exist_ok=True)
                (aside / file.name).symlink_to(os.path.realpath(f"{model.source}/{file.name}"))
            aside.rename(folder)
    return folder


def _is_loaded(file: ModelFile) -> bool:
    return any(fnmatchcase(file.name, pattern) for pattern in LOADED)


def _check_revision(model: ResolvedModel, storage: Storage, moved: Callable[[], None]) -> list[ModelFile]:
    files = []
    for file in model_files(storage, model.source):
        files.append(file)
        moved()
    if not files:
        raise Permanent(f"the model is gone from {model.source}, or isn't visible to this worker", code="model")
    if folder_revision(files) != model.revision:
        raise Permanent(f"the model at {model.source} was changed after the job was accepted", code="model")
    return files


def _from_s3(model: ResolvedModel, storage: Storage, home: Path, moved: Callable[[], None]) -> Path:
    folder = home / "models" / model.revision
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(folder.name + ".part")
    with _followed(aside, moved), FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return folder
        start = time.monotonic()
        files = _check_revision(model, storage, moved)
        shutil.rmtree(aside, ignore_errors=True)
        for file in filter(_is_loaded, files):
            _fetch(f"{model.source}/{file.name}", aside / file.name, storage)
        aside.rename(folder)
        event(_log, "model_fetched", model=model.source, seconds=time.monotonic() - start)
        return folder


def _fetch(uri: str, target: Path, storage: Storage) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with storage.open(storage.stat(uri)) as source, target.open("wb") as file:
        while chunk := source.read(_CHUNK):
            file.write(chunk)


@contextmanager
def _followed(folder: Path, moved: Callable[[], None]) -> Iterator[None]:
    """Call `moved` whenever the files below a folder have grown, whichever process writes them."""
    over = threading.Event()

    def follow() -> None:
        before = _extent(folder)
        while not over.wait(_LOOK_S):
            now = _extent(folder)
            if now != before:
                moved()
            before = now

    thread = threading.Thread(target=follow, name="download", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _extent(folder: Path) -> list[tuple[str, int]]:
    """Return the names of the files below a folder, and their sizes."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # moved to its own name meanwhile
                found.append((name, Path(place, name).stat().st_size))
    return sorted(found)


def _from_hub(model: ResolvedModel, moved: Callable[[], None]) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        GatedRepoError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )
    from huggingface_hub.file_download import repo_folder_name

    cached = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=model.source, repo_type="model"))
    try:
        with _followed(cached, moved):
            return Path(snapshot_download(model.source, revision=model.revision, allow_patterns=LOADED))
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise Permanent(
            f"the hub refuses {model.source} to this worker; set HF_TOKEN: {error}", code="model"
        ) from error
    except (LocalEntryNotFoundError, HTTPError, ConnectionError) as error:
        raise Transient(f"the hub can't be reached for {model.source}: {error}") from error
